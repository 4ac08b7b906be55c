"""The second person: what waits until somebody else agrees, and is then carried out once.

A request keeps the exact content and its hash. Who agrees claims it by a conditional UPDATE, and
the same transaction carries it out: two answers, or a crash between them, cannot do it twice.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from central.inventory import audit
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ConflictError, ForbiddenError, IntegrityError, NotFoundError
from shared.policy.rights import Permission, Scope
from shared.store.database import Database
from shared.store.schema import approval
from shared.store.transaction import Transaction
from shared.web.auth import Principal
from shared.web.pages import utc_text

_HOUR_US = 3600 * US_PER_SECOND
_ROWS_MAX = 200
_PENDING = "pending"

_THIS = select(approval).where(approval.c.id == bindparam("wanted"))
_SAME = select(approval.c.id).where(
    approval.c.state == _PENDING,
    approval.c.kind == bindparam("same_kind"),
    approval.c.content_hash == bindparam("same_hash"),
    approval.c.expires_at > bindparam("now"),
)
_ADD = insert(approval)
_NEWEST = select(approval.c.id).order_by(approval.c.id.desc()).limit(1)
_CLAIM = (
    update(approval)
    .where(
        approval.c.id == bindparam("wanted"),
        approval.c.state == _PENDING,
        approval.c.expires_at > bindparam("now"),
    )
    .values(
        state=bindparam("becomes"),
        decided_by=bindparam("by"),
        decided_at=bindparam("now"),
        remark=bindparam("why"),
    )
)
_LIST = select(approval).order_by(approval.c.id.desc()).limit(_ROWS_MAX)

Content = Mapping[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What can need a second person: ``setting`` is its name in ``approvals.operations``.

    ``act`` carries it out in the transaction, as its first actor; ``after`` follows the commit and
    may happen twice or, after a crash, not at all. ``refuse`` does in the transaction what a
    refusal asks for besides.
    """

    setting: str
    permission: Permission
    act: Callable[[Transaction, Content, str], None]
    after: Callable[[Content], Awaitable[None]] | None = None
    refuse: Callable[[Transaction, Content], None] | None = None


class Approvals:
    """Does things at once, or keeps them for a second person, as the settings say."""

    def __init__(
        self, database: Database, *, needed: frozenset[str], hours: int, clock: Clock
    ) -> None:
        """Take which operations need a second person, and for how long a request waits."""
        self._database = database
        self._needed = needed
        self._waits_us = hours * _HOUR_US
        self._clock = clock
        self._operations: dict[str, Operation] = {}

    def register(self, kind: str, operation: Operation) -> None:
        """Say how a kind of request is carried out."""
        self._operations[kind] = operation

    async def do(
        self, kind: str, subject: str, content: Content, actor: str, *, scope: Scope
    ) -> int | None:
        """Do it now (None), or give the number under which it waits for a second person."""
        operation = self._operations[kind]
        if operation.setting in self._needed:
            return await self._request(kind, subject, content, actor, scope)
        await self._database.writer.run(
            lambda transaction: operation.act(transaction, content, actor)
        )
        if operation.after is not None:
            await operation.after(content)
        return None

    async def decide(
        self, number: int, who: Principal, *, agreed: bool, remark: str = ""
    ) -> Record:
        """Carry a request out, or refuse it, as somebody else than who asked.

        Raises NotFoundError, ForbiddenError, ConflictError when it was decided or is over, and
        what the operation itself raises: then it goes on waiting.
        """

        def unit(transaction: Transaction) -> Any:
            row: Any = transaction.one(_THIS, {"wanted": number})
            if row is None or not _visible(row, who):
                raise NotFoundError(f"There is no request {number}.")
            _require_second(row, who, agreed=agreed)
            claimed = {
                "wanted": number,
                "now": transaction.now.utc_us,
                "becomes": "done" if agreed else "refused",
                "by": who.name,
                "why": remark[:256] or None,
            }
            if not transaction.execute(_CLAIM, claimed):
                state = row.state if row.state != _PENDING else "expired"
                raise ConflictError(f"The request {number} is {state} already.")
            self._record(transaction, row, who.name, agreed=agreed, remark=remark)
            operation, content = self._operations[row.kind], json.loads(row.content)
            if agreed:
                operation.act(transaction, content, row.requested_by)
            elif operation.refuse is not None:
                operation.refuse(transaction, content)
            return row

        row = await self._database.writer.run(unit)
        after = self._operations[row.kind].after
        if agreed and after is not None:
            await after(json.loads(row.content))
        return {"id": number, "state": "done" if agreed else "refused"}

    async def listed(self, who: Principal) -> list[Record]:
        """Give the newest requests that somebody may decide or made himself."""
        now_us = self._clock.now().utc_us
        rows = await self._database.read(_LIST)
        return [_shown(row, who, now_us) for row in rows if _visible(row, who)]

    async def _request(
        self, kind: str, subject: str, content: Content, actor: str, scope: Scope
    ) -> int:
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).digest()
        row = {
            "kind": kind,
            "subject": subject,
            "permission": self._operations[kind].permission.value,
            "scope": scope.text,
            "content": text,
            "content_hash": digest,
            "state": _PENDING,
            "requested_by": actor,
        }

        def unit(transaction: Transaction) -> int:
            now_us = transaction.now.utc_us
            same = {"same_kind": kind, "same_hash": digest, "now": now_us}
            if (waiting := transaction.one(_SAME, same)) is not None:
                return waiting[0]
            times = {"requested_at": now_us, "expires_at": now_us + self._waits_us}
            transaction.execute(_ADD, row | times)
            added: Any = transaction.one(_NEWEST)
            told = {"kind": kind, "approval": added.id, "sha256": digest.hex(), "content": content}
            audit.add(transaction, actor, "approval.requested", subject, told)
            return added.id

        return await self._database.writer.run(unit)

    def _record(
        self, transaction: Transaction, row: Any, actor: str, *, agreed: bool, remark: str
    ) -> None:
        told = {
            "kind": row.kind,
            "approval": row.id,
            "requested_by": row.requested_by,
            "sha256": row.content_hash.hex(),
            "remark": remark[:256],
        }
        action = "approval.given" if agreed else "approval.refused"
        audit.add(transaction, actor, action, row.subject, told)


def _require_second(row: Any, who: Principal, *, agreed: bool) -> None:
    if hashlib.sha256(row.content.encode()).digest() != row.content_hash:
        raise IntegrityError(f"The content of request {row.id} is not what was asked for.")
    if not agreed and who.name == row.requested_by:
        return  # who asked may take it back
    if not who.name.startswith("user:"):
        raise ForbiddenError("A station is no second person: log in as a user.")
    if who.name == row.requested_by:
        raise ForbiddenError("Somebody else than who asked must agree.")
    who.require(Permission(row.permission), on=Scope.parse(row.scope))


def _visible(row: Any, who: Principal) -> bool:
    own = who.name == row.requested_by
    return own or who.may(Permission(row.permission), Scope.parse(row.scope))


def _shown(row: Any, who: Principal, now_us: int) -> Record:
    over = row.state == _PENDING and now_us >= row.expires_at
    return {
        "id": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "content": json.loads(row.content),
        "sha256": row.content_hash.hex(),
        "state": "expired" if over else row.state,
        "requested_by": row.requested_by,
        "requested": utc_text(row.requested_at),
        "expires": utc_text(row.expires_at),
        "decided_by": row.decided_by,
        "remark": row.remark,
        "own": row.requested_by == who.name,
    }
