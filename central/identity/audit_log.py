"""The audit log as it is read: searched, exported, and judged whether anything was changed.

Each entry holds the hash of the one before, so a changed, missing or inserted entry shows at the
next one. What is missing at the end shows by checkpoints: heads signed by the directive key. Who
can delete checkpoints too is found by one that was kept elsewhere (``checkpoint``).
"""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select

from central.inventory.audit import GENESIS, digest_of
from central.sync.directive_keys import DirectiveKeys
from shared.kernel import cbor
from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, UntrustedError
from shared.pki import cose
from shared.store.database import Database
from shared.store.schema import audit, audit_checkpoint
from shared.store.transaction import Transaction
from shared.web.pages import utc_text

ROWS_MAX = 1000
_TYPE = "tma-audit-head"
_AAD = b""
_CHECKPOINT_BYTES_MAX = 1024
_CHECKPOINTS_AT_ONCE = 500
_PAUSE_S = 600

_AFTER = select(audit).where(audit.c.id > bindparam("after")).order_by(audit.c.id)
_AFTER_ROWS = _AFTER.limit(ROWS_MAX)
_HEAD = select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)
_CHECKPOINTS = (
    select(audit_checkpoint.c.audit_id, audit_checkpoint.c.envelope)
    .where(audit_checkpoint.c.audit_id > bindparam("after"))
    .order_by(audit_checkpoint.c.audit_id)
    .limit(_CHECKPOINTS_AT_ONCE)
)
_NEWEST = (
    select(audit_checkpoint.c.audit_id, audit_checkpoint.c.envelope)
    .order_by(audit_checkpoint.c.audit_id.desc())
    .limit(1)
)
_THIS_CHECKPOINT = select(audit_checkpoint.c.audit_id).where(
    audit_checkpoint.c.audit_id == bindparam("head")
)
_ADD_CHECKPOINT = insert(audit_checkpoint)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; empty: anything. ``action`` may end in ``*``."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    before: int = 0


class AuditLog:
    """Reads and judges the log; adds nothing to it but checkpoints beside it."""

    def __init__(self, database: Database, keys: DirectiveKeys, clock: Clock) -> None:
        """Take the database and the directive keys."""
        self._database = database
        self._keys = keys
        self._clock = clock

    async def search(self, wanted: Wanted, limit: int) -> list[Record]:
        """Find entries, newest first."""
        statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if wanted.before:
            statement = statement.where(audit.c.id < wanted.before)
        if wanted.actor:
            statement = statement.where(audit.c.actor == wanted.actor)
        if wanted.subject:
            statement = statement.where(audit.c.subject == wanted.subject)
        if wanted.action.endswith("*"):
            start = wanted.action[:-1]
            statement = statement.where(audit.c.action >= start, audit.c.action < start + "\x7f")
        elif wanted.action:
            statement = statement.where(audit.c.action == wanted.action)
        return [_shown(row) for row in await self._database.read(statement)]

    async def following(self, after: int) -> list[Record]:
        """Give the next entries behind an id, oldest first: an export is all of these."""
        return [_shown(row) for row in await self._database.read(_AFTER_ROWS, {"after": after})]

    async def exported(self) -> AsyncIterator[bytes]:
        """Give the whole log as JSON lines, in parts."""
        after = 0
        while found := await self.following(after):
            yield "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found).encode()
            after = found[-1]["id"]

    async def step(self) -> float:
        """Sign the head, if it moved; gives the seconds until the next time."""
        rows = await self._database.read(_HEAD)
        if rows:
            await self._sign(rows[0].id, rows[0].hash)
        return _PAUSE_S

    async def checkpoint(self) -> Record:
        """Sign the head and give it, to be kept elsewhere."""
        await self.step()
        rows = await self._database.read(_NEWEST)
        if not rows:
            return {"id": 0, "checkpoint": ""}
        return {"id": rows[0].audit_id, "checkpoint": b64encode(rows[0].envelope).decode()}

    async def verify(self, kept: Sequence[str] = ()) -> Record:
        """Walk the whole log; ``broken`` names the first entry that is not as it was written.

        ``kept`` are checkpoints that were kept elsewhere. Raises BadRequestError, UntrustedError
        for one that is none of this central.
        """
        heads = dict([self._opened(_decoded(text)) for text in kept])
        checkpoints = 0
        previous, last, entries = GENESIS, 0, 0
        broken: Record | None = None
        async for audit_id, envelope in self._checkpoints():
            checkpoints += 1
            try:
                signed_id, digest = self._opened(envelope)
            except UntrustedError:
                signed_id, digest = audit_id, b""
            if signed_id != audit_id or heads.setdefault(audit_id, digest) != digest or not digest:
                broken = broken or _broken(audit_id, "its checkpoint is not what was signed")
        async for row in self._rows():
            said = (row.at, row.actor, row.action, row.subject, row.detail)
            if digest_of(previous, said) != row.hash:
                why = "it was changed, or one before it is missing or was added"
                broken = _first(broken, row.id, why)
            elif heads.get(row.id, row.hash) != row.hash:
                broken = _first(broken, row.id, "it is not the entry that its checkpoint signed")
            previous, last, entries = row.hash, row.id, entries + 1
        if missing := [signed for signed in heads if signed > last]:
            why = f"entries up to {max(missing)} are missing at the end"
            broken = broken or _broken(last + 1, why)
        return {
            "id": "audit",
            "entries": entries,
            "head": previous.hex(),
            "checkpoints": checkpoints,
            "broken": broken,
        }

    async def _rows(self) -> AsyncIterator[Any]:
        after = 0
        while found := await self._database.read(_AFTER_ROWS, {"after": after}):
            for row in found:
                yield row
            after = found[-1].id
            await asyncio.sleep(0)

    async def _checkpoints(self) -> AsyncIterator[tuple[int, bytes]]:
        after = -1
        while found := await self._database.read(_CHECKPOINTS, {"after": after}):
            for row in found:
                yield row.audit_id, row.envelope
            after = found[-1].audit_id

    async def _sign(self, head: int, digest: bytes) -> None:
        now_us, signer = self._clock.now().utc_us, self._keys.current
        envelope = cose.sign1(
            cbor.encode({"id": head, "hash": digest, "at": now_us}),
            key=signer.key,
            kid=signer.kid,
            type=_TYPE,
            external_aad=_AAD,
        )

        def unit(transaction: Transaction) -> None:
            if transaction.one(_THIS_CHECKPOINT, {"head": head}) is None:
                row = {"audit_id": head, "envelope": envelope, "created_at": now_us}
                transaction.execute(_ADD_CHECKPOINT, row)

        await self._database.writer.run(unit)

    def _opened(self, envelope: bytes) -> tuple[int, bytes]:
        payload = cose.open1(
            envelope,
            find_key=self._keys.find,
            type=_TYPE,
            external_aad=_AAD,
            limit=_CHECKPOINT_BYTES_MAX,
        )
        value: Any = cbor.decode(payload, limit=_CHECKPOINT_BYTES_MAX)
        return value["id"], value["hash"]


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise BadRequestError("This is no checkpoint as `audit checkpoint` prints it.") from error


def _first(broken: Record | None, entry: int, why: str) -> Record:
    """Keep what is broken first in the log."""
    return broken if broken is not None and broken["entry"] <= entry else _broken(entry, why)


def _broken(entry: int, why: str) -> Record:
    return {"entry": entry, "why": why}


def _shown(row: Any) -> Record:
    return {
        "id": row.id,
        "at": utc_text(row.at),
        "at_us": row.at,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "detail": json.loads(row.detail),
        "hash": row.hash.hex(),
    }
