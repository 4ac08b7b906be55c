"""Search of the inventory for people and programs: pages of rows, exports, kept queries."""

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import bindparam, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from central.inventory import audit, query
from central.inventory.finder import Finder
from central.inventory.indexing import Indexing, Progress
from shared.kernel.clock import datetime_of
from shared.kernel.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from shared.pki import formats
from shared.policy.rights import Permission, Scope
from shared.store.database import Database
from shared.store.schema import certificate, saved_query
from shared.store.transaction import Transaction
from shared.web.auth import Principal

ROWS_MAX = 500
_SAVED_MAX = 50
_NAME_CHARS_MAX = 64
_COLUMNS = (
    certificate.c.ca_id,
    certificate.c.serial,
    certificate.c.origin,
    certificate.c.state,
    certificate.c.status,
    certificate.c.subject_cn,
    certificate.c.device_id,
    certificate.c.profile,
    certificate.c.principal,
    certificate.c.alias,
    certificate.c.protocol,
    certificate.c.issued_at,
    certificate.c.not_before,
    certificate.c.not_after,
    certificate.c.revoked_at,
    certificate.c.reason,
    certificate.c.sha256,
    certificate.c.metadata,
)
_HEADS = [column.name for column in _COLUMNS]
_TIMES = ("issued_at", "not_before", "not_after", "revoked_at")
#: A spreadsheet takes what begins so for a formula (OWASP, *CSV Injection*).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_VISIBLE = (
    select(saved_query)
    .where(or_(saved_query.c.owner == bindparam("who"), saved_query.c.shared == 1))
    .order_by(saved_query.c.name, saved_query.c.owner)
    .limit(4 * _SAVED_MAX)
)
_COUNT = (
    select(func.count()).select_from(saved_query).where(saved_query.c.owner == bindparam("who"))
)
_keep = upsert(saved_query)
_KEEP = _keep.on_conflict_do_update(
    index_elements=[saved_query.c.owner, saved_query.c.name],
    set_={"query": _keep.excluded.query, "shared": _keep.excluded.shared},
)
_DROP = delete(saved_query).where(
    saved_query.c.owner == bindparam("who"), saved_query.c.name == bindparam("title")
)


class Export(StrEnum):
    """How an export is written: a table, JSON lines, or the certificates themselves."""

    CSV = "csv"
    JSON = "json"
    PEM = "pem"


class Search:
    """Answers queries within what the asker may read."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database
        self._finder = Finder(database)
        self.indexing = Indexing(database)

    async def page(
        self, text: str, who: Principal, *, after: str = "", limit: int = ROWS_MAX
    ) -> tuple[list[dict[str, Any]], str]:
        """Give rows, and what leads to the next page ("": nothing). Raises BadRequestError."""
        found = await self._finder.find(
            text, _within(who), columns=_COLUMNS, after=after, limit=min(limit, ROWS_MAX)
        )
        return [_shown(row) for row in found.rows], found.after

    async def progress(self) -> Progress:
        """Tell how far terms are behind."""
        return await self.indexing.progress()

    async def exported(self, text: str, who: Principal, form: Export) -> AsyncIterator[bytes]:
        """Give all that is found, in parts; memory holds one page at a time.

        Who exported what is in the audit log before the first part. Raises BadRequestError.
        """
        part, after = await self.part(text, who, form, "")
        yield part
        while after:
            part, after = await self.part(text, who, form, after)
            yield part

    async def part(self, text: str, who: Principal, form: Export, after: str) -> tuple[bytes, str]:
        """Give one part of an export, and what leads to the next; the first is audited."""
        query.parse(text)
        if not after:
            record = partial(_audit, actor=who.name, text=text, form=form)
            await self._database.writer.run(record)
        columns = (*_COLUMNS, certificate.c.der) if form is Export.PEM else _COLUMNS
        found = await self._finder.find(
            text, _within(who), columns=columns, after=after, limit=ROWS_MAX
        )
        head = _csv([_HEADS]) if form is Export.CSV and not after else b""
        return head + _written(found.rows, form), found.after

    async def saved(self, who: Principal) -> list[dict[str, Any]]:
        """Give the queries that somebody keeps, and those that others share."""
        _within(who)
        rows = await self._database.read(_VISIBLE, {"who": who.name})
        return [
            {
                "name": row.name,
                "query": row.query,
                "owner": row.owner,
                "shared": bool(row.shared),
                "own": row.owner == who.name,
            }
            for row in rows
        ]

    async def keep(self, name: str, text: str, who: Principal, *, shared: bool) -> None:
        """Keep a query under a name of one's own, or change it; raises BadRequestError."""
        _within(who)
        query.parse(text)
        if not 0 < len(name) <= _NAME_CHARS_MAX or not name.isprintable():
            raise BadRequestError(
                f"The name of a query has 1 to {_NAME_CHARS_MAX} printable characters."
            )

        def unit(transaction: Transaction) -> None:
            counted: Any = transaction.one(_COUNT, {"who": who.name})
            if counted[0] >= _SAVED_MAX:
                raise ConflictError(
                    f"You keep {_SAVED_MAX} queries already.", remedy="Drop one of them first."
                )
            row = {"owner": who.name, "name": name, "query": text, "shared": int(shared)}
            transaction.execute(_KEEP, row | {"created_at": transaction.now.utc_us})

        await self._database.writer.run(unit)

    async def drop(self, name: str, who: Principal) -> None:
        """Forget one's own query; raises NotFoundError."""
        place = {"who": who.name, "title": name}
        if not await self._database.writer.run(lambda tx: tx.execute(_DROP, place)):
            raise NotFoundError(f"You keep no query {name!r}.")


def _within(who: Principal) -> Sequence[Scope]:
    """Give where somebody may look; raises ForbiddenError for whom that is nowhere."""
    scopes = who.scopes(Permission.CERTIFICATE_READ)
    if all(scope.serial is not None for scope in scopes):
        raise ForbiddenError(
            "You may not read the inventory.",
            remedy="Ask an administrator for a role that may read certificates.",
        )
    return scopes


def _audit(transaction: Transaction, actor: str, text: str, form: Export) -> None:
    audit.add(transaction, actor, "inventory.exported", "", {"query": text, "as": form.value})


def _shown(row: Any) -> dict[str, Any]:
    """Write a row for programs: times in ISO 8601, the gateway under its name."""
    values: dict[str, Any] = dict(zip(_HEADS, row, strict=False))
    for name in _TIMES:
        if values[name] is not None:
            values[name] = f"{datetime_of(values[name]):%Y-%m-%dT%H:%M:%SZ}"
    values["metadata"] = json.loads(values["metadata"] or "{}")
    return {"id": f"{values['ca_id']}-{values['serial']}", **values}


def _written(rows: Sequence[Any], form: Export) -> bytes:
    match form:
        case Export.PEM:
            return formats.pem([row[-1] for row in rows if row[-1] is not None]).encode()
        case Export.JSON:
            lines = (json.dumps(_shown(row), ensure_ascii=False) for row in rows)
            return "".join(f"{line}\n" for line in lines).encode()
        case Export.CSV:
            return _csv([_cells(_shown(row)) for row in rows])


def _cells(shown: Mapping[str, Any]) -> list[str]:
    metadata = " ".join(f"{name}={value}" for name, value in shown["metadata"].items())
    values = {**shown, "metadata": metadata}
    return [_harmless(values[name]) for name in _HEADS]


def _harmless(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()
