"""The opt-in rule deletes what is applied and nothing else, and says what only the peer holds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from shared.store.database import Database
from shared.store.link import LinkTables
from shared.store.outbox import Outbox
from shared.store.pruning import Rule, held_by_peer_only, prune
from shared.store.schema import outbox
from shared.sync import outbox as rules
from shared.sync.events import Lane
from shared.sync.join import CENTRAL_NAME
from shared.sync.ports import Cursor
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

_DAY_S = 24 * 3600
_PAGES = text("SELECT page_count FROM pragma_page_count")


class Box:
    """A gateway's outbox of one segment, a day between two events."""

    def __init__(self, database: Database, sink: Outbox, clock: ManualClock) -> None:
        self.database, self.sink, self.clock = database, sink, clock
        self.segment = ""

    async def run(self, unit):
        return await self.database.writer.run(
            lambda tx: unit(LinkTables(tx, self.sink, CENTRAL_NAME, lambda *_: None))
        )

    async def write(self, count: int, pause_s: float = _DAY_S, size: int = 10) -> None:
        for number in range(count):
            self.clock.advance(pause_s)
            body = {"version": f"{number:0{size}}", "recovered": 0}
            await self.database.writer.run(
                lambda tx, body=body: tx.emit("agent.started", body, actor="system")
            )

    async def confirm(self, applied: int, archived: int = 0) -> None:
        def unit(tables: LinkTables) -> None:
            digest = tables.out_hash(self.segment, Lane.NORMAL, applied)
            assert digest is not None
            mark = Cursor(applied, digest, archived)
            assert rules.confirm(tables, {(self.segment, Lane.NORMAL): mark}) is None

        await self.run(unit)

    async def sequences(self) -> list[int]:
        rows = await self.database.read(
            select(outbox.c.sequence).where(outbox.c.lane == 1).order_by(outbox.c.sequence)
        )
        return [row.sequence for row in rows]

    async def prune(self, **rule: int) -> int:
        return await prune(self.database, CENTRAL_NAME, Rule(**rule), self.clock.utc_us)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    sink, clock = Outbox.of_gateway("gw-01", "1"), ManualClock()
    async with open_database(tmp_path / "a.db", sink=sink, clock=clock) as database:
        made = Box(database, sink, clock)
        made.segment = (await database.writer.run(lambda tx: sink.start(tx, CENTRAL_NAME))).name
        yield made


async def test_without_a_rule_only_what_is_archived_goes(box: Box):
    await box.write(10)
    await box.confirm(9, archived=4)
    assert await box.prune() == 0
    assert await box.sequences() == list(range(4, 12))  # the row at the watermark stays
    assert await held_by_peer_only(box.database, CENTRAL_NAME) == 0


async def test_by_age_only_applied_ones_go_and_the_page_can_say_so(box: Box):
    await box.write(10)  # sequences 2 to 11; the last one is of today
    await box.confirm(8, archived=3)
    assert await box.prune(days=6) == 2
    assert await box.sequences() == [3, *range(6, 12)]
    assert await box.prune(days=1) == 2  # 8, the last applied one, stays, and what is not applied
    assert await box.sequences() == [3, *range(8, 12)]
    assert await held_by_peer_only(box.database, CENTRAL_NAME) == 4
    await box.confirm(8, archived=7)
    await box.prune(days=1)
    assert await held_by_peer_only(box.database, CENTRAL_NAME) == 0
    assert await box.sequences() == list(range(8, 12))


async def test_by_size_the_oldest_go_until_it_fits(box: Box):
    await box.write(800, pause_s=0, size=4000)
    await box.confirm(700)
    assert await box.prune(megabytes=1000) == 0
    gone = await box.prune(megabytes=2)
    assert 400 <= gone < 699
    assert await box.sequences() == list(range(gone + 1, 802))
    assert await held_by_peer_only(box.database, CENTRAL_NAME) == gone


async def test_the_file_stops_growing_once_events_are_archived(box: Box):
    async def life(first: int) -> int:
        await box.write(150, pause_s=0, size=4000)
        await box.confirm(first + 150, archived=first + 150)
        [(pages,)] = await box.database.read(_PAGES)
        return pages

    sizes = [await life(1 + 150 * turn) for turn in range(5)]
    assert sizes[-1] <= sizes[1], sizes
