"""Where the writer commits: on the loop while the disk is quick, in its thread otherwise."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from shared.kernel.errors import ConflictError
from shared.store import schema, writer
from shared.store.database import Database
from shared.store.statements import SQLITE
from shared.store.transaction import Transaction
from tests.support.store_databases import ListSink, open_database
from tests.support.store_faults import Faults, FaultyConnection

_ADD = insert(schema.fact)
_TICK_S = 0.01


class Places:
    """Units that write down in which thread they ran, and in which order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def unit(self, name: str, *, lasts_s: float = 0.0):
        def unit(tx: Transaction) -> None:
            thread = threading.current_thread()
            self.seen.append((name, "loop" if thread is threading.main_thread() else "thread"))
            time.sleep(lasts_s)
            tx.execute(_ADD, {"name": name, "value": ""})

        return unit

    def of(self, name: str) -> list[str]:
        return [place for seen, place in self.seen if seen == name]


async def prove_quick(database: Database, places: Places) -> None:
    """Let so many commits pass that the writer takes the disk for a quick one."""
    for number in range(20):
        await database.writer.run(places.unit(f"warm-{number}"), brief=True)


async def longest_pause_while(work: asyncio.Future) -> float:
    """How long the loop did nothing else at a time."""
    longest = 0.0
    while not work.done():
        began = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        longest = max(longest, time.perf_counter() - began)
    return longest


@pytest.fixture
def quick(monkeypatch) -> None:
    """Take every disk for a quick one: this machine's may be busy."""
    monkeypatch.setattr(writer, "QUICK_COMMIT_S", 60.0)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "a.db") as opened:
        yield opened


async def test_brief_units_are_committed_on_the_loop(quick, database):
    places = Places()
    await prove_quick(database, places)
    await database.writer.run(places.unit("brief"), brief=True)
    await database.writer.run(places.unit("other"))
    assert places.of("brief") == ["loop"]
    assert places.of("other") == ["thread"]
    assert places.of("warm-0") == ["thread"]  # nothing is known of the disk yet


async def test_a_long_unit_does_not_keep_the_loop(quick, database):
    places = Places()
    await prove_quick(database, places)
    work = asyncio.ensure_future(database.writer.run(places.unit("long", lasts_s=1.0)))
    assert await longest_pause_while(work) < 0.5


async def test_units_keep_their_order_wherever_they_run(quick, database):
    places = Places()
    await prove_quick(database, places)
    places.seen.clear()
    names = [f"unit-{number}" for number in range(200)]
    await asyncio.gather(
        *(
            database.writer.run(places.unit(name), brief=number % 7 != 0)
            for number, name in enumerate(names)
        )
    )
    assert [name for name, _ in places.seen] == names
    rows = await database.read(select(schema.fact).where(schema.fact.c.name.like("unit-%")))
    assert len(rows) == len(names)


async def test_a_refusal_on_the_loop_takes_only_itself_back(quick, tmp_path):
    sink, places = ListSink(), Places()

    def failing(tx: Transaction) -> None:
        places.unit("failing")(tx)
        tx.emit("agent.started", {"version": "1", "recovered": 0}, actor="system")
        raise ConflictError("no")

    async with open_database(tmp_path / "a.db", sink=sink) as database:
        await prove_quick(database, places)
        results = await asyncio.gather(
            database.writer.run(places.unit("one"), brief=True),
            database.writer.run(failing, brief=True),
            database.writer.run(places.unit("two"), brief=True),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), ConflictError, type(None)]
        assert places.of("failing") == ["loop", "loop"]  # bare, and in its savepoint
        rows = await database.read(select(schema.fact.c.name))
        names = {row.name for row in rows}
    assert {"one", "two"} <= names
    assert "failing" not in names
    assert sink.events == []


async def test_room_on_a_full_disk_is_made_in_the_thread(quick, tmp_path):
    """To fold the log back takes a disk's time; the loop has none."""
    faults, places = Faults(tmp_path / "a.db"), Places()
    async with open_database(tmp_path / "a.db", connect=faults.connect) as database:
        await prove_quick(database, places)
        faults.arm("COMMIT", sqlite3.SQLITE_FULL, drops=True, times=2)
        await database.writer.run(places.unit("one"), brief=True)
        rows = await database.read(select(schema.fact.c.name))
    assert places.of("one") == ["loop", "thread", "thread"]
    assert faults.statements.count(SQLITE.fold) == 1
    assert "one" in {row.name for row in rows}


async def test_a_slow_commit_sends_the_next_ones_to_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "QUICK_COMMIT_S", 0.5)
    places = Places()
    slow = threading.Event()

    def plan(sql: str) -> None:
        if sql == "COMMIT" and slow.is_set():
            time.sleep(5.0)
            slow.clear()

    path = tmp_path / "a.db"
    async with open_database(path, connect=lambda: FaultyConnection(path, plan)) as database:
        await prove_quick(database, places)
        await database.writer.run(places.unit("quick"), brief=True)
        slow.set()
        await database.writer.run(places.unit("slow"), brief=True)
        await database.writer.run(places.unit("after"), brief=True)
    assert [places.of(name) for name in ("quick", "slow", "after")] == [
        ["loop"], ["loop"], ["thread"]
    ]  # fmt: skip


async def test_the_loop_waits_for_no_foreign_lock(quick, tmp_path, database):
    places = Places()
    await prove_quick(database, places)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    work = asyncio.ensure_future(database.writer.run(places.unit("one"), brief=True))
    asyncio.get_running_loop().call_later(0.6, other.execute, "ROLLBACK")
    assert await longest_pause_while(work) < 0.4
    await work
    other.close()
    assert places.of("one") == ["thread"]


async def test_the_log_is_folded_back_although_the_loop_commits(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_FOLD_PAGES", 16)
    async with open_database(tmp_path / "a.db") as database:
        places = Places()
        for number in range(400):
            await database.writer.run(places.unit(str(number)), brief=True)
        assert sum(place == "loop" for _, place in places.seen) > 300
        assert (tmp_path / "a.db-wal").stat().st_size < 200 * 4_120  # 400 commits write 800 pages


async def test_closing_finishes_brief_units_too(quick, tmp_path):
    async with open_database(tmp_path / "a.db") as database:
        places = Places()
        await prove_quick(database, places)
        waiting = [
            asyncio.ensure_future(database.writer.run(places.unit(str(n)), brief=n % 2 == 0))
            for n in range(100)
        ]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*waiting)
    assert not (tmp_path / "a.db-wal").exists()  # folded back
