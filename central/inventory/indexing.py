"""Keeps the terms of search behind the inventory: a task of its own, a batch at a time.

How far it is stands in the database with the terms themselves: a crash loses nothing, a backup has
both, and a database from before search is filled in from its beginning.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from central.inventory import terms
from central.inventory.terms import Found
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import certificate, fact, term, term_lacking
from shared.store.transaction import Transaction

_BATCH = 200
_PAUSE_S = 1.0
#: Between batches while there is more and nothing new comes in.
_BREATH_S = 0.01
#: While gateways report, search takes a batch a second only: a drain must not wait for it. So far
#: behind it may come by that.
_BEHIND_MAX = 100_000
_POSITION = "search/position"
_COLUMNS = (
    certificate.c.id,
    certificate.c.der,
    certificate.c.principal,
    certificate.c.alias,
    certificate.c.protocol,
    certificate.c.issued_at,
    certificate.c.metadata,
)
_WHERE = select(fact.c.value).where(fact.c.name == _POSITION)
_NEXT = (
    select(*_COLUMNS)
    .where(certificate.c.id > bindparam("position"))
    .order_by(certificate.c.id)
    .limit(_BATCH)
)
_LACKING = (
    select(*_COLUMNS)
    .where(certificate.c.id.in_(select(term_lacking.c.id).limit(_BATCH)))
    .order_by(certificate.c.id)
)
_NEWEST = select(func.max(certificate.c.id).label("id"))
_INSERT = upsert(term).on_conflict_do_nothing()
#: Many at once: each statement is a round trip where the database is a server.
_TOGETHER = 100
_INSERT_MANY = text(
    "INSERT INTO term (name, value, id) VALUES "  # noqa: S608  # names of parameters only
    + ", ".join(f"(:n{at}, :v{at}, :i{at})" for at in range(_TOGETHER))
    + " ON CONFLICT DO NOTHING"
)
_DONE = delete(term_lacking).where(term_lacking.c.id == bindparam("number"))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far search is behind: ``behind`` certificates cannot be found by terms yet."""

    position: int
    newest: int

    @property
    def behind(self) -> int:
        """About how many are still to come."""
        return max(0, self.newest - self.position)


class Indexing:
    """Writes terms; see ``step``."""

    def __init__(self, database: Database) -> None:
        """Take the database; nothing is read yet."""
        self._database = database
        self._newest = 0

    async def step(self) -> float:
        """Do one batch; gives the seconds until the next."""
        known = await self.progress()
        grew, self._newest = known.newest > self._newest, known.newest
        rows = await self._database.read(_NEXT, {"position": known.position})
        again = await self._database.read(_LACKING)
        if not rows and not again:
            return _PAUSE_S
        found = await asyncio.to_thread(_terms, [*rows, *again])
        last = rows[-1].id if rows else None
        await self._database.writer.run(partial(_write, found, last, [row.id for row in again]))
        return _PAUSE_S if grew and known.behind < _BEHIND_MAX else _BREATH_S

    async def progress(self) -> Progress:
        """Tell how far it is."""
        newest = (await self._database.read(_NEWEST))[0].id or 0
        return Progress(await self._position(), newest)

    async def _position(self) -> int:
        rows = await self._database.read(_WHERE)
        return int(rows[0].value) if rows else 0


def _terms(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Give the rows of ``term`` for rows of ``certificate``; voided serials have none."""
    return [
        {"name": name, "value": value, "id": row.id}
        for row in rows
        if row.der is not None
        for name, value in sorted(terms.terms_of(row.der, _found(row)))
    ]


def _found(row: Any) -> Found:
    metadata = json.loads(row.metadata or "{}")
    return Found(row.principal, row.alias, row.protocol, row.issued_at, metadata)


def _write(
    found: Sequence[dict[str, Any]],
    last: int | None,
    again: Sequence[int],
    transaction: Transaction,
) -> None:
    write_terms(transaction, found)
    for number in again:
        transaction.execute(_DONE, {"number": number})
    if last is not None:
        facts.put(transaction, _POSITION, str(last))


def write_terms(transaction: Transaction, found: Sequence[dict[str, Any]]) -> None:
    """Insert rows of ``term``, those that are there already excepted."""
    whole = len(found) - len(found) % _TOGETHER
    for first in range(0, whole, _TOGETHER):
        together: dict[str, Any] = {}
        for at, row in enumerate(found[first : first + _TOGETHER]):
            together |= {f"n{at}": row["name"], f"v{at}": row["value"], f"i{at}": row["id"]}
        transaction.execute(_INSERT_MANY, together)
    for row in found[whole:]:
        transaction.execute(_INSERT, row)
