"""The writer: group commit, isolation of units, and what is answered when a commit is in doubt."""

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from shared.kernel.errors import (
    ConflictError,
    OutcomeUnknownError,
    StorageFullError,
    UnavailableError,
)
from shared.store import schema, writer
from shared.store.database import Database
from shared.store.statements import SQLITE
from shared.store.transaction import Transaction
from tests.support.store_databases import ListSink, open_database
from tests.support.store_faults import Faults

_ADD = insert(schema.fact)
_STARTED = {"version": "1", "recovered": 0}


def adding(name: str):
    return lambda tx: tx.execute(_ADD, {"name": name, "value": ""})


def failing(name: str):
    def unit(tx: Transaction) -> None:
        adding(name)(tx)
        tx.emit("agent.started", _STARTED, actor="system")
        raise ConflictError("no")

    return unit


async def names(database: Database) -> set[str]:
    return {row.name for row in await database.read(select(schema.fact))}


class Gate:
    """Keeps the writer busy until it is opened, so that a group gathers behind it."""

    def __init__(self, database: Database) -> None:
        self._open = threading.Event()
        self._entered = threading.Event()
        self._task = asyncio.ensure_future(database.writer.run(self._wait))

    def _wait(self, _tx: Transaction) -> None:
        self._entered.set()
        self._open.wait(10)

    async def release(self, *units):
        """Queue the units behind the gate, open it and give all results."""
        await asyncio.to_thread(self._entered.wait, 10)
        tasks = [asyncio.ensure_future(unit) for unit in units]
        await asyncio.sleep(0)
        self._open.set()
        await self._task
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def faults(tmp_path: Path):
    return Faults(tmp_path / "a.db")


@pytest.fixture
async def database(tmp_path: Path, faults: Faults):
    async with open_database(tmp_path / "a.db", connect=faults.connect) as opened:
        yield opened


async def test_units_that_wait_share_one_commit(database, faults):
    faults.statements.clear()
    gate = Gate(database)
    await gate.release(*(database.writer.run(adding(str(n))) for n in range(50)))
    assert faults.statements.count("COMMIT") <= 2
    assert len(await names(database)) == 50


async def test_a_failing_unit_takes_only_itself_back(tmp_path):
    sink = ListSink()
    async with open_database(tmp_path / "a.db", sink=sink) as database:
        gate = Gate(database)
        results = await gate.release(
            database.writer.run(adding("one")),
            database.writer.run(failing("two")),
            database.writer.run(adding("three")),
        )
        assert isinstance(results[1], ConflictError)
        assert await names(database) == {"one", "three"}
        assert sink.events == []


@settings(max_examples=30)
@given(plan=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
async def test_memory_follows_the_database(tmp_path_factory, plan):
    """Whatever mix of units passes and fails, the sink holds exactly what was committed."""
    sink = ListSink()

    def unit_of(number: int, inner_fails: bool, fails: bool):
        def unit(tx: Transaction) -> None:
            tx.emit("agent.started", {"version": f"{number}", "recovered": 0}, actor="s")
            try:
                with tx.savepoint():
                    failing(f"{number}-inner")(tx) if inner_fails else adding(f"{number}-inner")(tx)
            except ConflictError:
                pass
            adding(str(number))(tx)
            if fails:
                raise ConflictError("no")

        return unit

    async with open_database(tmp_path_factory.mktemp("w") / "a.db", sink=sink) as database:
        gate = Gate(database)
        units = [database.writer.run(unit_of(n, *how)) for n, how in enumerate(plan)]
        await gate.release(*units)
        passed = [(n, inner) for n, (inner, fails) in enumerate(plan) if not fails]
        assert [event.body["version"] for _, event in sink.events] == [str(n) for n, _ in passed]
        inner = {f"{n}-inner" for n, inner_fails in passed if not inner_fails}
        assert await names(database) == {str(n) for n, _ in passed} | inner


@pytest.mark.parametrize(
    ("at", "code", "drops"),
    [
        ("COMMIT", sqlite3.SQLITE_IOERR, True),
        ("COMMIT", sqlite3.SQLITE_IOERR, False),
        ("INSERT INTO fact", sqlite3.SQLITE_INTERRUPT, True),
        ("INSERT INTO fact", sqlite3.SQLITE_IOERR, True),
    ],
)
async def test_a_lost_transaction_answers_unknown_to_the_whole_group(
    tmp_path, faults, at, code, drops
):
    sink = ListSink()
    async with open_database(tmp_path / "a.db", sink=sink, connect=faults.connect) as database:
        await database.writer.run(adding("before"))
        gate = Gate(database)
        faults.arm(at, code, drops=drops, skip=int(at == "COMMIT"))  # the gate's own commit
        results = await gate.release(
            database.writer.run(adding("one")),
            database.writer.run(lambda tx: tx.emit("agent.started", _STARTED, actor="s")),
        )
        assert {type(result) for result in results} == {OutcomeUnknownError}
        assert (sink.forgotten, sink.events) == (1, [])
        await database.writer.run(adding("after"))
        assert faults.connections == 2
        assert await names(database) == {"before", "after"}


async def test_a_unit_cannot_go_on_after_its_transaction_is_lost(database, faults):
    """Else its next statement would be committed on its own."""

    def stubborn(tx: Transaction) -> None:
        with contextlib.suppress(Exception):
            adding("lost")(tx)
        adding("alone")(tx)

    faults.arm("INSERT INTO fact", sqlite3.SQLITE_IOERR, drops=True)
    with pytest.raises(OutcomeUnknownError):
        await database.writer.run(stubborn)
    assert await names(database) == set()


async def test_a_statement_that_fails_alone_fails_its_unit_only(database, faults):
    for code, error in (
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_LOCKED, UnavailableError),
    ):
        faults.arm("INSERT INTO fact", code, drops=False, times=2)  # bare, and in its savepoint
        with pytest.raises(error):
            await database.writer.run(adding("one"))
    assert await names(database) == set()


async def test_a_full_disk_folds_the_log_back_and_tries_once_more(database, faults):
    faults.arm("COMMIT", sqlite3.SQLITE_FULL, drops=True)
    await database.writer.run(adding("one"))
    faults.arm("COMMIT", sqlite3.SQLITE_FULL, drops=True, times=2)
    with pytest.raises(StorageFullError):
        await database.writer.run(adding("two"))
    assert faults.statements.count(SQLITE.fold) == 2
    assert await names(database) == {"one"}


async def test_a_full_disk_says_so_when_the_log_cannot_be_folded_back(database, faults):
    await database.writer.run(adding("before"))
    faults.statements.clear()
    faults.arm("", sqlite3.SQLITE_FULL, drops=True, skip=2, times=100)  # all but BEGIN and INSERT
    with pytest.raises(StorageFullError):
        await database.writer.run(adding("one"))
    assert faults.statements[2:] == ["COMMIT", SQLITE.fold]
    assert await names(database) == {"before"}


async def test_the_reserve_lets_the_group_pass_at_once(tmp_path, faults):
    path = tmp_path / "a.db"
    async with open_database(path, connect=faults.connect, reserve_bytes=4096) as database:
        database.reserve.require_room()
        faults.arm("COMMIT", sqlite3.SQLITE_FULL, drops=True)
        await database.writer.run(adding("one"))
        assert await names(database) == {"one"}
        assert not (tmp_path / "a.db-reserve").exists()


async def test_a_foreign_lock_is_waited_for_and_then_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_LOCK_WAIT_S", 0.2)
    async with open_database(tmp_path / "a.db") as database:
        await database.writer.run(adding("one"))
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError) as refused:
            await database.writer.run(adding("two"))
        assert not isinstance(refused.value, OutcomeUnknownError)
        other.execute("ROLLBACK")
        other.close()
        await database.writer.run(adding("three"))
        assert await names(database) == {"one", "three"}


async def test_the_queue_is_bounded(database, monkeypatch):
    monkeypatch.setattr(writer, "QUEUE_UNITS_MAX", 3)
    gate = Gate(database)
    results = await gate.release(*(database.writer.run(adding(str(n))) for n in range(5)))
    assert [isinstance(result, UnavailableError) for result in results] == [False] * 2 + [True] * 3
    await database.writer.run(adding("later"))


async def test_a_cancelled_caller_leaves_its_unit_to_finish(database):
    gate = Gate(database)
    task = asyncio.ensure_future(database.writer.run(adding("one")))
    await asyncio.sleep(0)
    task.cancel()
    await gate.release()
    await database.writer.run(adding("two"))
    assert await names(database) == {"one", "two"}


async def test_closing_finishes_what_waits_and_refuses_the_rest(tmp_path):
    async with open_database(tmp_path / "a.db") as database:
        waiting = [asyncio.ensure_future(database.writer.run(adding(str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*waiting)
        with pytest.raises(UnavailableError):
            await database.writer.run(adding("late"))
    assert not (tmp_path / "a.db-wal").exists()  # folded back


async def test_each_commit_is_synced(tmp_path):
    connection = writer.connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
