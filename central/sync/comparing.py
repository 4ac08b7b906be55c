"""Compares what central and a gateway hold of its certificates, and has the difference repaired.

``shared.sync.anti_entropy`` has the rules: digests first, then buckets that differ, then the
certificates in them. What only central holds is a question for a person.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select

from central.inventory import audit, conflicts
from central.sync import fleet, settling
from central.sync.apply import Applier
from central.sync.listener import Listener, Storage
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ConflictError, TmaError, UnavailableError, UntrustedError
from shared.store import facts
from shared.store.link import LinkTables
from shared.store.schema import ca, certificate, conflict, fact, gateway
from shared.store.transaction import Transaction
from shared.sync import anti_entropy
from shared.sync.anti_entropy import Question, Table
from shared.sync.effects import Effects
from shared.sync.errands import Rules, Taken
from shared.sync.messages import Errand, Part
from shared.sync.ports import Holding, LinkTransaction, Outcome

_LOG = logging.getLogger(__name__)
#: Kind of the question about certificates that only central holds.
MISSING: Final = "missing-at-gateway"
_PATIENCE_S = 30  # without any part of an answer
_PAUSE_S = 60
_HOUR_US = 3600 * US_PER_SECOND
_SPLIT_MAX = 32  # buckets; more of them are not split once more: much differs
_EXAMPLES = 20

_NEWEST = select(func.max(certificate.c.id).label("id"))
_HELD = (
    select(certificate.c.id, certificate.c.ca_id, certificate.c.serial, certificate.c.status)
    .where(
        certificate.c.ca_id == bindparam("ca"),
        certificate.c.id > bindparam("after"),
        certificate.c.id <= bindparam("newest"),
        certificate.c.issued_at <= bindparam("until"),
    )
    .order_by(certificate.c.id)
    .limit(anti_entropy.LOOKED_AT)
)
#: A stub was never reported: central ordered something of what it had not heard of.
_REPORTED = _HELD.where(certificate.c.state != "stub")
_CAS = select(ca.c.ca_id, ca.c.state).where(ca.c.gateway == bindparam("name"))
_LAST = select(fact.c.value).where(fact.c.name == bindparam("name"))
_COMPARABLE = select(gateway.c.name, fact.c.value).select_from(
    gateway.outerjoin(fact, fact.c.name == fleet.COMPARED + gateway.c.name)
).where(
    gateway.c.state == fleet.ACTIVE, gateway.c.link == fleet.ONLINE, gateway.c.backlog == 0
)  # fmt: skip
_ASKED = select(conflict.c.id).where(
    conflict.c.kind == MISSING,
    conflict.c.gateway == bindparam("name"),
    conflict.c.state == "open",
)


class _Bounds(NamedTuple):
    """What of central's own is compared: these CAs, up to a row, issued up to a moment."""

    cas: Sequence[str]
    newest: int
    until_us: int


class Comparing:
    """Compares on demand and by the clock; keeps the last result of each gateway."""

    def __init__(self, storage: Storage, listener: Listener, clock: Clock, hours: int) -> None:
        """Take storage and listener; ``hours`` between comparisons by the clock (0: none)."""
        self._storage = storage
        self._listener = listener
        self._clock = clock
        self._hours = hours

    async def last(self, name: str) -> dict[str, Any] | None:
        """Give the last result for a gateway; None before the first."""
        rows = await self._storage.database.read(_LAST, {"name": fleet.COMPARED + name})
        return json.loads(rows[0].value) if rows else None

    async def step(self) -> float:
        """Compare with a gateway that is due; gives the next pause."""
        due_us = self._clock.now().utc_us - self._hours * _HOUR_US
        if self._hours:
            for row in await self._storage.database.read(_COMPARABLE, {}):
                if row.value is None or json.loads(row.value)["at_us"] < due_us:
                    await self._compare_quietly(row.name)
        return _PAUSE_S

    async def _compare_quietly(self, name: str) -> None:
        try:
            await self.compare(name, "system")
        except TmaError as error:
            _LOG.info("Gateway %s could not be compared: %s", name, error.message)

    async def compare(self, name: str, actor: str) -> dict[str, Any]:
        """Compare now, repair, and give the result.

        Raises NotFoundError, ConflictError (not online, or busy), UnavailableError (no answer).
        """
        await self._storage.database.writer.run(partial(self._require_quiet, name))
        newest = (await self._storage.database.read(_NEWEST, {}))[0].id or 0
        until_us, theirs = await self._digest(name, Question())
        bounds = _Bounds(await self._cas(name, theirs), newest, until_us)
        ours = await self._own(bounds, Question())
        buckets = anti_entropy.differing(ours, theirs)
        count = sum(number for number, _ in theirs.values())
        result = {"at_us": self._clock.now().utc_us, "certificates": count, "buckets": len(buckets)}
        outcomes, only_here = await self._settle(name, bounds, buckets) if buckets else ([], [])
        result |= {
            "repaired": outcomes.count(Outcome.REPAIRED),
            "ordered": outcomes.count(Outcome.ORDERED),
            "only_here": len(only_here),
            "examples": only_here[:_EXAMPLES],
        }
        await self._storage.database.writer.run(partial(_keep, name, result, actor))
        return {"id": name, **result}

    def _require_quiet(self, name: str, tx: Transaction) -> None:
        """Raise ConflictError while something is under way, for then both sides must differ."""
        unsent = fleet.find(tx, name).backlog
        tables = LinkTables(tx, self._storage.outbox, name, Applier(name).apply_all)
        unconfirmed = tables.backlog()
        if unsent or unconfirmed:
            raise ConflictError(
                f"The gateway {name} has {unsent:,} events to send, and {unconfirmed:,} orders to "
                "confirm.",
                remedy="Compare once they are delivered: until then both sides must differ.",
            )

    async def _settle(
        self, name: str, bounds: _Bounds, buckets: Sequence[str]
    ) -> tuple[list[Outcome], list[str]]:
        """Look at the certificates in buckets that differ; gives what came of each of theirs.

        The second are those that only central holds.
        """
        suffixes = frozenset(buckets)
        if len(buckets) <= _SPLIT_MAX:
            question = Question(suffixes, bounds.until_us)
            _, theirs = await self._digest(name, question)
            finer = anti_entropy.differing(await self._own(bounds, question), theirs)
            if len(finer) <= anti_entropy.SUFFIXES_MAX:
                suffixes = frozenset(finer)
        if not suffixes:  # what was under way has come meanwhile
            return [], []
        question = Question(suffixes, bounds.until_us)
        found: dict[bytes, list[tuple[str, Outcome]]] = {}

        def take(store: LinkTransaction, part: Part) -> None:
            told = [anti_entropy.read_told(one) for one in part.content]
            found[part.nonce] = [
                (one.holding.serial, store.holdings.settle(one.holding, one.events)) for one in told
            ]

        await self._ask(name, Errand.LEDGER, question, take)
        settled = [one for part in found.values() for one in part]
        only_here = await self._unseen(bounds, question, {serial for serial, _ in settled})
        return [outcome for _, outcome in settled], only_here

    async def _digest(self, name: str, question: Question) -> tuple[int, Table]:
        """Ask the gateway for its sums; gives the moment that they are of, too."""
        parts: dict[bytes, list[tuple[int, Table]]] = {}

        def take(_store: LinkTransaction, part: Part) -> None:
            parts[part.nonce] = [anti_entropy.read_table(one) for one in part.content]

        await self._ask(name, Errand.DIGEST, question, take)
        until_us, table = question.until_us, Table()
        for tables in parts.values():
            for until, part in tables:
                until_us = until
                anti_entropy.join(table, part)
        return until_us, table

    async def _ask(
        self,
        name: str,
        errand: Errand,
        question: Question,
        take: Callable[[LinkTransaction, Part], None],
    ) -> None:
        """Run an errand to its end. Raises UnavailableError when the gateway falls silent."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()  # why it failed, or ''
        heard = loop.time()

        def taken(store: LinkTransaction, part: Part) -> Taken:
            nonlocal heard
            heard = loop.time()
            take(store, part)
            return Taken.YES

        def end(why: str) -> Effects:
            ended.set_result(why)
            return []

        rules = Rules(lambda _: question.encode(), taken, lambda _now: end(""), end)
        self._listener.inquire(name, errand, rules)
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=_PATIENCE_S)
                if not ended.done() and loop.time() - heard > _PATIENCE_S:
                    raise UnavailableError(
                        f"The gateway {name} does not answer.",
                        remedy="Try again later; a gateway of an older version cannot compare.",
                    )
        finally:
            self._listener.give_up(name, errand)
        if why := ended.result():
            raise UntrustedError(
                f"What the gateway {name} gave to be compared is refused: {why}",
                remedy="Nothing of that answer was used. Look at that gateway: is it genuine?",
            )

    async def _cas(self, name: str, theirs: Table) -> list[str]:
        """Give the CAs that are compared: those in force, and former ones that it knows of.

        What an earlier box of this name issued is not in its ledger.
        """
        named = {ca_id for ca_id, _ in theirs}
        rows = await self._storage.database.read(_CAS, {"name": name})
        return sorted(row.ca_id for row in rows if row.state == "active" or row.ca_id in named)

    async def _own(self, bounds: _Bounds, question: Question) -> Table:
        table: Table = {}
        async for page in self._pages(bounds):
            await asyncio.to_thread(anti_entropy.add_up, table, page, question)
        return table

    async def _unseen(self, bounds: _Bounds, question: Question, seen: set[str]) -> list[str]:
        return [
            f"{one.ca_id}/{one.serial}"
            async for page in self._pages(bounds, _REPORTED)
            for one in page
            if question.names(one.serial) and one.serial not in seen
        ]

    async def _pages(
        self, bounds: _Bounds, statement: Any = _HELD
    ) -> AsyncGenerator[list[Holding]]:
        for ca_id in bounds.cas:
            after = 0
            place = {"ca": ca_id, "newest": bounds.newest, "until": bounds.until_us}
            while rows := await self._storage.database.read(statement, {**place, "after": after}):
                after = rows[-1].id
                yield [Holding(*row) for row in rows]


def _keep(name: str, result: dict[str, Any], actor: str, transaction: Transaction) -> None:
    """Remember the result; ask a person about what only central holds, once."""
    if result["repaired"]:
        settling.recount(transaction, name)
    facts.put(transaction, fleet.COMPARED + name, json.dumps(result))
    differs = result["repaired"] or result["ordered"] or result["only_here"]
    if differs or actor != "system":
        audit.add(transaction, actor, "gateway.compared", name, result)
    if result["only_here"] and transaction.one(_ASKED, {"name": name}) is None:
        detail = {"certificates": result["only_here"], "examples": result["examples"]}
        conflicts.add(transaction, MISSING, name, name, detail)
