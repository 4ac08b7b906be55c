"""The outbox: one gapless chain per lane, whatever is rolled back, reopened or started again."""

from pathlib import Path

import pytest
from sqlalchemy import select

from shared.kernel.errors import ConflictError
from shared.store import schema
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.sync.events import Direction, Lane, decode
from shared.sync.outbox import GENESIS_HASH, chain_hash
from shared.sync.ports import Segment
from shared.sync.segments import opened
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

pytestmark = pytest.mark.usefixtures("each_database")

_PEER = "_central"


def emit(tx, version: str = "1") -> None:
    tx.emit("agent.started", {"version": version, "recovered": 0}, actor="system")


def emit_urgent(tx) -> None:
    tx.emit("history.gap", {"detail": "test"}, actor="system")


async def lanes(database: Database) -> dict[tuple[str, int], list]:
    """Read all rows by segment and lane, and verify each chain."""
    rows = await database.read(
        select(schema.outbox).order_by(schema.outbox.c.segment, schema.outbox.c.sequence)
    )
    found: dict[tuple[str, int], list] = {}
    for row in rows:
        lane = found.setdefault((row.segment, row.lane), [])
        previous = lane[-1].hash if lane else GENESIS_HASH
        place = (row.segment, Lane(row.lane), len(lane) + 1)
        assert row.sequence == len(lane) + 1
        assert row.hash == chain_hash(previous, "gw-01", Direction.UP, *place, row.event)
        lane.append(row)
    return found


@pytest.fixture
def sink() -> Outbox:
    return Outbox.of_gateway("gw-01", "1.0")


@pytest.fixture
async def database(tmp_path: Path, sink: Outbox):
    async with open_database(tmp_path / "a.db", sink=sink) as made:
        yield made


async def start(database: Database, sink: Outbox) -> Segment:
    return await database.writer.run(lambda tx: sink.start(tx, _PEER))


async def test_both_lanes_open_with_the_segment(database, sink):
    segment = await start(database, sink)
    found = await lanes(database)
    assert {lane: [row.type for row in rows] for (_, lane), rows in found.items()} == {
        0: ["segment.opened"],
        1: ["segment.opened"],
    }
    assert opened(decode(found[segment.name, 0][0].event)) == segment
    assert (segment.parent, segment.start_counter, segment.version) == (None, 1, "1.0")


async def test_a_start_uses_an_unused_segment_on(database, sink):
    first = await start(database, sink)
    assert await start(database, sink) == first
    await database.writer.run(emit)
    second = await start(database, sink)
    assert (second.parent, second.start_counter) == (first.name, 2)
    assert {lane: head.sequence for lane, head in second.parent_heads.items()} == {
        Lane.URGENT: 1,
        Lane.NORMAL: 2,
    }
    states = {row.segment: row.state for row in await database.read(select(schema.segment))}
    assert states == {first.name: "sealed", second.name: "open"}


async def test_a_rolled_back_opening_leaves_the_former_segment_open(database, sink):
    first = await start(database, sink)
    await database.writer.run(emit)

    def opens_and_fails(tx):
        sink.open_segment(tx, _PEER)
        emit(tx)
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await database.writer.run(opens_and_fails)
    await database.writer.run(emit)
    await database.writer.run(emit_urgent)
    found = await lanes(database)
    assert {key: len(rows) for key, rows in found.items()} == {
        (first.name, 0): 2,
        (first.name, 1): 3,
    }


async def test_the_chain_goes_on_after_forgetting_and_reopening(tmp_path):
    for number in range(3):
        sink = Outbox.of_gateway("gw-01", "1.0")
        async with open_database(tmp_path / "a.db", sink=sink) as database:
            await database.writer.run(emit)
            sink.forget()
            await database.writer.run(emit)
            found = await lanes(database)
            assert len(found) == 2  # one segment: nobody started
            assert len(next(rows for (_, lane), rows in found.items() if lane == 1)) == (
                3 + 2 * number
            )


async def test_central_writes_to_gateways_and_into_its_own_books(tmp_path):
    booked = []
    sink = Outbox.of_central("1.0", lambda _tx, event: booked.append(event.type))
    async with open_database(tmp_path / "a.db", sink=sink, clock=ManualClock()) as database:
        body = {
            "incarnation": "i",
            "number": 1,
            "ca_id": "a",
            "serial": "b",
            "reason": "superseded",
        }
        for gateway in ("gw-01", "gw-02"):
            await database.writer.run(
                lambda tx, gateway=gateway: tx.emit(
                    "directive.revoke", body, actor="user:a", peer=gateway
                )
            )
        await database.writer.run(emit)
        rows = await database.read(select(schema.outbox.c.peer, schema.outbox.c.type))
        orders = {row.peer for row in rows if row.type == "directive.revoke"}
        assert (orders, booked) == ({"gw-01", "gw-02"}, ["agent.started"])
