"""Revocations by query in the database: the port ``shared.issuance.mass_revocation.Operations``."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, TextClause, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.issuance.mass_revocation import Listed, Place
from shared.issuance.revocation_orders import Operation, Wanted
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import ConflictError, KeyReusedError
from shared.policy.rights import Scope
from shared.policy.selection import Selection
from shared.store import certificates
from shared.store.columns import has_pair
from shared.store.database import Database
from shared.store.reads import inside
from shared.store.schema import COMPLETE, REPORTED, certificate, crl, operation
from shared.store.transaction import Transaction

_PAGE = 1_000
#: So many rows are looked through by one read: without an index that still ends soon.
_WINDOW = 100_000

_THIS = operation.c.operation_id == bindparam("which")
_FIND = select(operation).where(_THIS)
_RUNNING = select(operation).where(operation.c.state == "running").order_by(operation.c.created_at)
_ADD = insert(operation).on_conflict_do_nothing()
_MOVE = (
    update(operation)
    .where(_THIS, operation.c.state == "running", operation.c.position == bindparam("expected"))
    .values(
        position=bindparam("reached"),
        revoked=operation.c.revoked + bindparam("more"),
        state=bindparam("becomes"),
        updated_at=bindparam("now"),
    )
)
_CANCEL = (
    update(operation)
    .where(_THIS, (operation.c.state == "waiting") | (operation.c.state == "running"))
    .values(state="cancelled", updated_at=bindparam("now"))
)
_RELEASE = (
    update(operation)
    .where(_THIS, operation.c.state == "waiting")
    .values(state="running", updated_at=bindparam("now"))
)
_LAST_ROW = select(func.coalesce(func.max(certificate.c.id), 0).label("id"))
_CRL_BYTES = select(crl.c.ca_id, func.length(crl.c.der).label("bytes")).where(
    crl.c.scope == COMPLETE
)
_BETWEEN = (certificate.c.id > bindparam("after")) & (certificate.c.id <= bindparam("end"))


class SqlOperations:
    """Implements ``Operations``."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def count(self, wanted: Wanted) -> list[Listed]:
        """Count by CA what the order means now."""
        counted: Counter[str] = Counter()
        statement = (
            select(certificate.c.ca_id, func.count().label("certificates"))
            .where(_BETWEEN, *_conditions(wanted))
            .group_by(certificate.c.ca_id)
        )
        [last] = await self._database.read(_LAST_ROW)
        for after in range(0, last.id, _WINDOW):
            window = {"after": after, "end": after + _WINDOW}
            for row in await self._database.read(statement, window):
                counted[row.ca_id] += row.certificates
        sizes = {row.ca_id: row.bytes for row in await self._database.read(_CRL_BYTES)}
        return [Listed(ca_id, number, sizes.get(ca_id, 0)) for ca_id, number in counted.items()]

    async def begin(
        self, operation_id: str, wanted: Wanted, found: int, *, waits: bool = False
    ) -> Operation:
        """Accept the order; raises KeyReusedError when the id has another one."""

        def unit(tx: Transaction) -> Operation:
            last: Any = tx.one(_LAST_ROW)
            row = {
                "operation_id": operation_id,
                "actor": wanted.actor,
                "document": _document(wanted),
                "state": "waiting" if waits else "running",
                "found": found,
                "revoked": 0,
                "position": 0,
                "through": last.id,
                "created_at": tx.now.utc_us,
                "updated_at": tx.now.utc_us,
            }
            tx.execute(_ADD, row)
            kept: Any = tx.one(_FIND, {"which": operation_id})
            if (kept.actor, kept.document) != (row["actor"], row["document"]):
                raise KeyReusedError("This Idempotency-Key was used for another request.")
            return _operation(kept)

        return await self._database.writer.run(unit)

    async def find(self, operation_id: str) -> Operation | None:
        """Find an operation."""
        rows = await self._database.read(_FIND, {"which": operation_id})
        return _operation(rows[0]) if rows else None

    async def running(self) -> list[Operation]:
        """Give those that are not at their end, oldest first."""
        return [_operation(row) for row in await self._database.read(_RUNNING)]

    async def following(self, operation: Operation) -> tuple[list[Place], int]:
        """Give what comes next behind the position, and up to which row this looked."""
        end = min(operation.position + _WINDOW, operation.through)
        statement = (
            select(certificate.c.id, certificate.c.ca_id, certificate.c.serial)
            .where(_BETWEEN, *_conditions(operation.wanted))
            .order_by(certificate.c.id)
            .limit(_PAGE)
        )
        window = {"after": operation.position, "end": end}
        found = [Place(*row) for row in await self._database.read(statement, window)]
        return found, found[-1].id if len(found) == _PAGE else end

    async def revoke(
        self, operation: Operation, places: Sequence[Place], position: int
    ) -> Operation | None:
        """Revoke these and move the position, in one commit; None if it is not running any more."""
        wanted = operation.wanted

        def unit(tx: Transaction) -> Operation:
            serials = [(place.ca_id, place.serial) for place in places]
            revoked = certificates.revoke_each(tx, serials, wanted.reason, wanted.actor)
            moved = {
                "which": operation.operation_id,
                "expected": operation.position,
                "reached": position,
                "more": revoked,
                "becomes": "done" if position >= operation.through else "running",
                "now": tx.now.utc_us,
            }
            if not tx.execute(_MOVE, moved):
                raise ConflictError("The operation does not run any more.")
            return _operation(tx.one(_FIND, {"which": operation.operation_id}))

        try:
            return await self._database.writer.run(unit)
        except ConflictError:
            return None

    async def cancel(self, operation_id: str) -> None:
        """End an operation that waits or runs; what it revoked stays revoked."""
        await self._database.writer.run(lambda tx: cancel(tx, operation_id))


def release(tx: Transaction, operation_id: str) -> None:
    """Let an operation run that waits; raises ConflictError if it does not wait any more."""
    if not tx.execute(_RELEASE, {"which": operation_id, "now": tx.now.utc_us}):
        raise ConflictError("The revocation does not wait any more: it was stopped meanwhile.")


def cancel(tx: Transaction, operation_id: str) -> None:
    """End an operation that waits or runs."""
    tx.execute(_CANCEL, {"which": operation_id, "now": tx.now.utc_us})


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool] | TextClause]:
    """Say in SQL which certificates are meant and not revoked yet."""
    selection, columns = wanted.selection, certificate.c
    yield columns.state == "issued"
    yield columns.status != "revoked"
    yield inside(wanted.scopes)
    for column, value in (
        (columns.profile, selection.profile),
        (columns.ca_id, selection.ca_id),
        (columns.origin, selection.origin),
    ):
        if value is not None:
            yield column == value
    if selection.origin is not None:
        yield REPORTED  # lets SQLite use the index of those
    if selection.device_ids:
        yield columns.device_id.in_(selection.device_ids)
    if selection.serials:
        yield columns.serial.in_(selection.serials)
    yield from _within(columns.issued_at, selection.issued_from, selection.issued_before)
    yield from _within(columns.not_after, selection.expires_from, selection.expires_before)
    for name, value in selection.metadata.items():
        yield has_pair(columns.metadata, name, value)


def _within(
    column: ColumnElement[int], first: datetime | None, before: datetime | None
) -> Iterator[ColumnElement[bool]]:
    if first is not None:
        yield column >= utc_us_of(first)
    if before is not None:
        yield column < utc_us_of(before)


def _document(wanted: Wanted) -> str:
    document = {
        "selection": wanted.selection.model_dump(mode="json", exclude_defaults=True),
        "reason": wanted.reason,
        "scopes": [scope.text for scope in wanted.scopes],
    }
    return json.dumps(document, sort_keys=True)


def _operation(row: Any) -> Operation:
    document = json.loads(row.document)
    wanted = Wanted(
        Selection.model_validate(document["selection"]),
        document["reason"],
        tuple(map(Scope.parse, document["scopes"])),
        row.actor,
    )
    return Operation(
        row.operation_id,
        wanted,
        row.state,
        row.found,
        row.revoked,
        row.position,
        row.through,
        row.created_at,
        row.updated_at,
    )
