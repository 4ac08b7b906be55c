"""Device records: imported row by row with a verdict each, and searched."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from central.inventory import audit
from central.inventory.terms import META
from central.scope import Of, anywhere
from shared.kernel import limits
from shared.kernel.errors import BadRequestError, ForbiddenError, NotFoundError
from shared.pki import names
from shared.policy.device import DeviceRecord
from shared.store import facts
from shared.store.columns import has_pair
from shared.store.database import Database
from shared.store.devices import record_of
from shared.store.schema import device
from shared.store.transaction import Transaction

#: Fact: the revision of the newest change of a device record.
REVISION = "device_revision"
#: Rows that one call may bring; files are sent in so many at a time.
IMPORT_ROWS_MAX = 500
_FIELDS = ("serial", "product", "order", "line")
_CHARS_MAX = 64
_REFUSED = "refused"

_COLUMNS = (
    device.c.serial,
    device.c.product,
    device.c.order_no,
    device.c.line,
    device.c.metadata,
)
_FIND = select(*_COLUMNS, device.c.state, device.c.previous_line).where(
    device.c.serial == bindparam("number")
)
_put = insert(device)
_PUT = _put.on_conflict_do_update(
    index_elements=[device.c.serial],
    set_={
        name: getattr(_put.excluded, name)
        for name in (
            "product",
            "order_no",
            "line",
            "metadata",
            "state",
            "previous_line",
            "revision",
            "updated_at",
        )
    },
)
_REMOVE = (
    update(device)
    .where(device.c.serial == bindparam("number"), device.c.state == "active")
    .values(
        state="removed",
        previous_line=device.c.line,
        revision=bindparam("new_revision"),
        updated_at=bindparam("now"),
    )
)
FILTERS = {"product": device.c.product, "order": device.c.order_no, "line": device.c.line}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one row: ``added``, ``changed``, ``same`` or ``refused`` (and why)."""

    row: int
    serial: str
    verdict: str
    detail: str = ""


class Records:
    """Keeps the device records."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def import_rows(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        first_row: int,
        dry_run: bool,
        actor: str,
        may: Of = anywhere,
    ) -> list[Verdict]:
        """Judge each row, and keep what is right unless it is a dry run. One commit.

        ``header`` names the columns: serial, product, order, line; any other one is a metadata
        key. ``may`` tells if the actor may change records of a line. Raises BadRequestError for a
        header that cannot be read or too many rows.
        """
        require_header(header)
        if len(rows) > IMPORT_ROWS_MAX:
            raise BadRequestError(f"At most {IMPORT_ROWS_MAX} rows are taken at once.")
        read = [_read(header, row) for row in rows]

        def unit(transaction: Transaction) -> list[Verdict]:
            verdicts = [
                Verdict(number, row[0] if row else "", _REFUSED, record)
                if isinstance(record, str)
                else _judge(transaction, number, record, may=may, dry_run=dry_run)
                for number, (row, record) in enumerate(zip(rows, read, strict=True), first_row)
            ]
            counted = {
                kind: sum(one.verdict == kind for one in verdicts) for kind in ("added", "changed")
            }
            if any(counted.values()) and not dry_run:
                audit.add(transaction, actor, "devices.imported", f"row {first_row}", counted)
            return verdicts

        return await self._database.writer.run(unit)

    async def remove(self, serial: str, actor: str, may: Of = anywhere) -> None:
        """Forget a device, here and at its gateways; raises NotFoundError, ForbiddenError."""

        def unit(transaction: Transaction) -> None:
            known: Any = transaction.one(_FIND, {"number": serial})
            if known is not None and not may(known.line):
                raise ForbiddenError(_not_yours(known.line))
            parameters = {
                "number": serial,
                "new_revision": _next_revision(transaction),
                "now": transaction.now.utc_us,
            }
            if not transaction.execute(_REMOVE, parameters):
                raise NotFoundError(f"The device {serial} is not known.")
            audit.add(transaction, actor, "device.removed", serial, {})

        await self._database.writer.run(unit)

    async def search(
        self,
        filters: Mapping[str, str],
        *,
        after: str = "",
        rows: int = 100,
        lines: frozenset[str] | None = None,
    ) -> list[DeviceRecord]:
        """Give up to ``rows`` devices by serial, beginning behind ``after``.

        ``filters`` are equalities of ``FILTERS`` and of metadata (``meta.NAME``), and ``serial``: a
        beginning; ``lines`` None: of all lines. BadRequestError.
        """
        query = select(*_COLUMNS).where(device.c.state == "active", device.c.serial > after)
        for name, value in filters.items():
            if name == "serial":
                query = query.where(
                    device.c.serial >= value, device.c.serial < value + "\U0010ffff"
                )
            elif name in FILTERS:
                query = query.where(FILTERS[name] == value)
            elif name.startswith(META):
                query = query.where(has_pair(device.c.metadata, name.removeprefix(META), value))
            else:
                raise BadRequestError(
                    f"One cannot search devices by “{name}”.",
                    remedy=f"Use serial, {', '.join(FILTERS)}, {META}NAME.",
                )
        if lines is not None:
            query = query.where(device.c.line.in_(lines))
        bounded = query.order_by(device.c.serial).limit(min(rows, limits.PAGE_ROWS_MAX))
        return [record_of(row) for row in await self._database.read(bounded)]


def require_header(header: Sequence[str]) -> None:
    """Raise BadRequestError unless the columns can be understood."""
    if "serial" not in header:
        raise BadRequestError("The first line must name the columns, one of them “serial”.")
    if len(set(header)) != len(header):
        raise BadRequestError("The first line names a column twice.")
    if len(header) > len(_FIELDS) + limits.METADATA_PAIRS_MAX:
        raise BadRequestError(f"At most {limits.METADATA_PAIRS_MAX} metadata columns are taken.")
    for name in header:
        if problem := names.text_problem(name, limits.METADATA_KEY_CHARS_MAX):
            raise BadRequestError(f"The column name {name!r} {problem}.")


def shown(record: DeviceRecord) -> dict[str, Any]:
    """Show a record as JSON."""
    return {
        "serial": record.serial,
        "product": record.product,
        "order": record.order,
        "line": record.line,
        "metadata": dict(record.metadata),
    }


def _read(header: Sequence[str], row: Sequence[str]) -> DeviceRecord | str:
    """Give the record, or the sentence that says what is wrong with it."""
    if len(row) != len(header):
        return f"The row has {len(row)} columns, the first line has {len(header)}."
    values = dict(zip(header, (value.strip() for value in row), strict=True))
    for name, value in values.items():
        chars_max = _CHARS_MAX if name in _FIELDS else limits.METADATA_VALUE_CHARS_MAX
        problem = names.text_problem(value, chars_max) if value or name == "serial" else None
        if problem:
            return f"The column {name} {problem}."
    metadata = {name: value for name, value in values.items() if name not in _FIELDS and value}
    return DeviceRecord(*(values.get(name, "") for name in _FIELDS), metadata=metadata)


def _judge(
    transaction: Transaction, number: int, record: DeviceRecord, *, may: Of, dry_run: bool
) -> Verdict:
    known: Any = transaction.one(_FIND, {"number": record.serial})
    for line in (record.line, *((known.line,) if known is not None else ())):
        if not may(line):
            return Verdict(number, record.serial, _REFUSED, _not_yours(line))
    verdict = _keep(transaction, record, known, dry_run=dry_run)
    return Verdict(number, record.serial, verdict)


def _not_yours(line: str) -> str:
    return (
        f"You may not change devices of the line “{line}”."
        if line
        else ("You may not change devices of no line.")
    )


def _keep(transaction: Transaction, record: DeviceRecord, known: Any, *, dry_run: bool) -> str:
    active = known is not None and known.state == "active"
    if active and record_of(known) == record:
        return "same"
    if not dry_run:
        row = {
            "serial": record.serial,
            "product": record.product,
            "order_no": record.order,
            "line": record.line,
            "metadata": json.dumps(dict(record.metadata)),
            "state": "active",
            "previous_line": _previous_line(known, record),
            "revision": _next_revision(transaction),
            "updated_at": transaction.now.utc_us,
        }
        transaction.execute(_PUT, row)
    return "changed" if active else "added"


def _previous_line(known: Any, record: DeviceRecord) -> str | None:
    """Remember that the device moved: whoever had it before is told to forget it."""
    if known is None or known.line == record.line:
        return known and known.previous_line
    return known.line


def _next_revision(transaction: Transaction) -> int:
    revision = int(facts.get(transaction, REVISION) or 0) + 1
    facts.put(transaction, REVISION, str(revision))
    return revision
