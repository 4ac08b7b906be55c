"""What is shown of the lanes equals what is in the tables, whatever happened (invariant I10)."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.store.lanes import standing
from shared.store.link import LinkTables
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.sync import outbox as rules
from shared.sync.events import Lane
from shared.sync.join import CENTRAL_NAME
from shared.sync.ports import Cursor
from shared.sync.standing import Rate
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

_TRUTH = """
SELECT o.segment, o.lane, max(o.sequence), coalesce(c.applied, 0), coalesce(c.archived, 0),
  (SELECT min(w.created_at) FROM outbox w WHERE w.segment = o.segment AND w.lane = o.lane
    AND w.sequence > coalesce(c.applied, 0))
FROM outbox o LEFT JOIN cursor c
  ON c.direction = 'out' AND c.segment = o.segment AND c.lane = o.lane
GROUP BY o.segment, o.lane
"""


def _truth(path: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return {(row[0], row[1]): row[2:] for row in connection.execute(_TRUTH)}


@pytest.mark.parametrize("seed", range(4))
async def test_every_lane_is_shown_as_it_is(tmp_path: Path, seed: int):
    chance, clock = random.Random(seed), ManualClock()
    path = tmp_path / "a.db"
    sink = Outbox.of_gateway("gw-01", "1")
    sent: dict[tuple[str, Lane], int] = {}
    async with open_database(path, sink=sink, clock=clock) as database:

        async def run(unit):
            return await database.writer.run(
                lambda tx: unit(tx, LinkTables(tx, sink, CENTRAL_NAME, lambda *_: None))
            )

        def emit(tx, _tables) -> None:
            for _ in range(chance.randint(1, 30)):
                if chance.random() < 0.2:
                    tx.emit("history.gap", {"detail": "x"}, actor="a")
                tx.emit("agent.started", {"version": "1", "recovered": 0}, actor="a")

        def confirm(_tx, tables) -> None:
            out = chance.choice(tables.out_segments(50, 50))
            lane = chance.choice(list(Lane))
            former, head = out.confirmed[lane], out.heads[lane].sequence
            applied = chance.randint(former.applied, head)
            if applied == 0:
                return
            archived = chance.randint(former.archived, applied)
            digest = tables.out_hash(out.segment.name, lane, applied)
            mark = Cursor(applied, digest, archived)
            assert rules.confirm(tables, {(out.segment.name, lane): mark}) is None

        await database.writer.run(lambda tx: sink.start(tx, CENTRAL_NAME))
        for _ in range(60):
            clock.advance(chance.random())
            step = chance.choice((emit, emit, confirm, confirm, lambda _tx, t: t.open_segment()))
            await run(step)
            shown = await standing(database, CENTRAL_NAME, sent)
            truth = _truth(path)
            for one in shown:
                assert truth[one.segment, one.lane] == (
                    one.head, one.applied, one.archived, one.oldest_us
                )  # fmt: skip
            unseen = truth.keys() - {(one.segment, int(one.lane)) for one in shown}
            assert all(truth[lane][0] == truth[lane][2] for lane in unseen), "only archived ones"
            assert [one.state for one in shown[:2]] == ["open", "open"]
            queue = await Reads(database).queue(CENTRAL_NAME)
            assert queue.waiting == sum(one.waiting for one in shown)
            ages = [one.oldest_us for one in shown if one.oldest_us is not None]
            assert queue.oldest_us == min(ages, default=None)


def test_the_rate_follows_and_forgets():
    rate = Rate()
    for second in range(600):
        rate.observe(10 * second, second * 10**9)
    assert 9.9 < rate.per_second < 10.1
    for second in range(600, 1200):
        rate.observe(6000, second * 10**9)
    assert rate.per_second < 0.01
    rate.observe(0, 1201 * 10**9)  # central was restored
    assert rate.per_second >= 0
