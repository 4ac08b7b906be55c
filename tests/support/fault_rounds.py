"""A patient line during faults, and what must hold after them: nothing lost, nothing twice."""

import asyncio
import itertools
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import delete, select, update

from central.sync import books
from central.sync.apply import Applier
from shared.store import schema
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.sync import events
from shared.sync.events import Direction
from shared.system.clock import SystemClock
from tests.support.fleet import Fleet
from tests.support.processes import wait_until
from tests.support.products import gateway_ledger, inventory, rows
from tests.support.rest import PROFILES, Device, Line, connect

FAULTY = "gw-01"
_DRAIN_S = 120


def seeded() -> random.Random:
    """Give the chances of a run; the seed is printed, and TMA_SEED repeats it."""
    seed = int(os.environ.get("TMA_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"TMA_SEED={seed}")
    return random.Random(seed)


class Load:
    """A patient line in a thread of its own; the main thread kills."""

    def __init__(self, fleet: Fleet, prefix: str, name: str = FAULTY) -> None:
        self.name = name
        self._fleet = fleet
        self._prefix = prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._enroll()))
        self.received: dict[str, bytes] = {}
        self.asked = 0

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(_DRAIN_S)
        assert not self._thread.is_alive(), "The line never got its last answers."

    async def _enroll(self) -> None:
        [gateway] = [one for one in self._fleet.gateways if one.name == self.name]
        bundle = self._fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            line = Line(rest, at_once=8, received=self.received)
            await line.enroll(self._wishes(), patient=True)

    def _wishes(self) -> Iterator[Device]:
        for number in itertools.count():
            if self._stop.is_set():
                return
            self.asked += 1
            yield Device.make(f"{self._prefix}-{number:05}", PROFILES[number % len(PROFILES)])


def require_nothing_lost(fleet: Fleet, load: Load, folder: Path) -> None:
    """Wait until central knows all that the gateway does; then hold it against the raw events."""
    require_all_known(fleet, load)
    asyncio.run(_recompute(fleet, folder))


def require_all_known(fleet: Fleet, load: Load) -> None:
    """Wait until central knows all that the gateway does; what the line got is in it, once."""
    name = load.name
    wait_until(
        lambda: gateway_ledger(fleet, name) == inventory(fleet, name),
        what="central knows what the gateway knows",
        timeout_s=_DRAIN_S,
    )
    known = {row[4]: row for row in inventory(fleet, name)}
    assert load.received.keys() <= known.keys()
    released = [row for row in known.values() if row[2] == "issued" and row[5] is not None]
    assert len({row[5] for row in released}) == len(released), "A device got two certificates."
    assert not rows(fleet.central.database, "SELECT * FROM quarantine")


async def _recompute(fleet: Fleet, folder: Path) -> None:
    """Apply the raw events again from nothing: the effects are those that are stored."""
    copy = folder / "recomputed.db"
    with (
        closing(sqlite3.connect(fleet.central.database)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    before = _effects(copy)
    sink = Outbox(Direction.DOWN, version="test", books=books.enter)
    database = await Database.open(copy, sink=sink, clock=SystemClock())
    try:
        await database.writer.run(_forget_effects)
        assert _effects(copy) != before
        raw = await database.read(
            select(schema.inbox_event.c.event).order_by(
                schema.inbox_event.c.segment,
                schema.inbox_event.c.lane,
                schema.inbox_event.c.sequence,
            )
        )
        await database.writer.run(lambda transaction: _apply(transaction, [row[0] for row in raw]))
    finally:
        await database.close()
    assert _effects(copy) == before


def _forget_effects(transaction: Transaction) -> None:
    own = schema.certificate.c.origin == FAULTY
    transaction.execute(delete(schema.certificate).where(own))
    counted = schema.counter.c.name.endswith(f"/{FAULTY}")
    transaction.execute(delete(schema.counter).where(counted))
    transaction.execute(update(schema.grant_use).values(used=0))


def _apply(transaction: Transaction, raw: list[bytes]) -> None:
    applier = Applier(FAULTY)
    for data in raw:
        event = events.decode(data)
        if event.type != events.OPENED:
            applier.apply(transaction, event)


def _effects(database: Path) -> list[object]:
    """Give certificates, counters and spent grants, without the order of arrival."""
    statements = (
        (
            "SELECT ca_id, serial, state, status, sha256, device_id, profile, principal, test,"
            " not_before, not_after, issued_at, reason, metadata FROM certificate WHERE origin = ?"
        ),
        "SELECT name, value FROM counter WHERE name LIKE '%/' || ? AND value <> 0",
        "SELECT grant_id, used FROM grant_use WHERE ? <> ''",
    )
    return [sorted(rows(database, statement, FAULTY), key=repr) for statement in statements]
