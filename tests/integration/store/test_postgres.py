"""What is PostgreSQL's own: its connection, locks, types and login. All else runs on both."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, insert, literal_column, select, text

from shared.kernel.errors import (
    ConflictError,
    IncompatibleError,
    OutcomeUnknownError,
    StorageFullError,
    UnavailableError,
)
from shared.store import database as database_module
from shared.store import schema
from shared.store.database import Database
from shared.store.migrations import HEAD
from shared.store.postgres import Server, opened
from shared.store.transaction import Transaction
from tests.support.postgres import PostgresServer
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import ListSink

_ADD = insert(schema.fact)
_NAMES = (f"own_{number}" for number in itertools.count())


def adding(name: str):
    return lambda tx: tx.execute(_ADD, {"name": name, "value": ""})


async def names(database: Database) -> set[str]:
    return {row.name for row in await database.read(select(schema.fact))}


class Own:
    """A database of this test, opened, and the door around it."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.url(name)

    def open(self):
        return opened(Server(self.url), sink=ListSink(), clock=ManualClock())

    async def sql(self, statement: str) -> str:
        return await asyncio.to_thread(self._server.sql, statement, self._name)


@pytest.fixture
def own(postgres_server: PostgresServer) -> Own:
    name = next(_NAMES)
    postgres_server.sql(f"CREATE DATABASE {name}")
    return Own(postgres_server, name)


@pytest.fixture
async def database(own: Own) -> AsyncIterator[Database]:
    made = await own.open()
    yield made
    await made.close()


async def test_the_migrations_make_what_the_schema_says(own, database, postgres_server):
    """Compared by PostgreSQL's own words, with a database that ``create_all`` makes."""
    declared = next(_NAMES)
    await asyncio.to_thread(postgres_server.sql, f"CREATE DATABASE {declared}")
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    server = Server(postgres_server.url(declared))
    engine = create_async_engine("postgresql+tma://", async_creator=server.connect)
    async with engine.begin() as connection:
        await connection.run_sync(schema.metadata.create_all)
    await engine.dispose()
    shape = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' "
        "AND table_name <> 'alembic_version' UNION ALL "
        "SELECT tablename, indexname, indexdef, '', '', '' FROM pg_indexes "
        "WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2"
    )
    migrated = (await own.sql(shape)).replace("user_pkey1", "user_pkey")  # a table of before
    assert migrated == await asyncio.to_thread(postgres_server.sql, shape, declared)
    assert "|bigint|" in migrated
    assert "|integer|" not in migrated
    assert "WHERE (status <> 'good'::text)" in migrated
    assert await own.sql("SELECT version_num FROM alembic_version") == f"{HEAD}\n"


async def test_a_newer_database_is_refused(own):
    await (await own.open()).close()
    await own.sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(IncompatibleError) as refused:
        await own.open()
    assert "9999" in refused.value.message


async def test_text_is_compared_byte_by_byte_whatever_the_server_prefers(database):
    for name in ("b", "A", "a", "B", "ä"):
        await database.writer.run(adding(name))
    ordered = select(schema.fact.c.name).order_by(schema.fact.c.name)
    assert [row.name for row in await database.read(ordered)] == ["A", "B", "a", "b", "ä"]
    [row] = await database.read(select(func.sum(schema.counter.c.value).label("all")))
    assert row.all is None
    add = insert(schema.counter)
    for name in "ab":
        await database.writer.run(
            lambda tx, name=name: tx.execute(add, {"name": name, "value": START_US})
        )
    [row] = await database.read(select(func.sum(schema.counter.c.value).label("all")))
    assert (row.all, type(row.all)) == (2 * START_US, int)


async def test_a_lost_connection_answers_unknown_and_the_next_unit_passes(own, database):
    def cut_off(tx: Transaction) -> None:
        adding("lost")(tx)
        with contextlib.suppress(Exception):
            tx.run_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        adding("alone")(tx)

    with pytest.raises(OutcomeUnknownError):
        await database.writer.run(cut_off)
    await database.writer.run(adding("after"))
    assert await names(database) == {"after"}


async def test_who_goes_on_after_a_failed_statement_is_not_answered_as_done(database):
    """PostgreSQL makes of COMMIT a rollback then, and says nothing."""

    def careless(tx: Transaction) -> None:
        adding("one")(tx)
        with contextlib.suppress(Exception):
            adding("one")(tx)

    with pytest.raises(OutcomeUnknownError):
        await database.writer.run(careless)
    assert await names(database) == set()


async def test_a_failing_unit_takes_only_itself_back(database):
    def failing(tx: Transaction) -> None:
        adding("two")(tx)
        raise ConflictError("no")

    units = [adding("one"), failing, adding("three"), adding("one")]
    results = await database.writer.run_each(units)
    assert [type(result).__name__ for result in results] == [
        "int", "ConflictError", "int", "UniqueViolationError"
    ]  # fmt: skip
    assert await names(database) == {"one", "three"}


async def test_a_full_disk_says_so(own, database):
    """The error is the server's, raised by a trigger."""
    await own.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$"
    )
    await own.sql(
        "CREATE TRIGGER full_disk BEFORE INSERT ON fact FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    with pytest.raises(StorageFullError):
        await database.writer.run(adding("one"))
    await own.sql("DROP TRIGGER full_disk ON fact")
    await database.writer.run(adding("two"))
    assert await names(database) == {"two"}


async def test_two_processes_write_one_after_the_other(own, database):
    """A command beside the server: nobody computes from what the other is about to change."""
    other = await own.open()

    def counting(tx: Transaction) -> None:
        row = tx.one(select(func.count().label("rows")).select_from(schema.fact))
        adding(f"{row.rows:03}")(tx)  # the name is taken if two saw the same number

    writers = [database.writer, other.writer]
    await asyncio.gather(*(writers[number % 2].run(counting) for number in range(60)))
    await other.close()
    assert len(await names(database)) == 60


async def test_readers_cannot_write_and_end_in_time(own, monkeypatch):
    monkeypatch.setattr(database_module, "READ_S_MAX", 0.3)
    database = await own.open()
    numbers = select(literal_column("1").label("n")).cte("numbers", recursive=True)
    endless = numbers.union_all(select(numbers.c.n + 1))
    for refused in (
        insert(schema.fact).values(name="a", value="b"),
        select(text("count(*)")).select_from(endless),
    ):
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(database.read(refused), 10)
    assert await names(database) == set()
    await database.close()


async def test_who_cannot_log_in_is_told_what_to_look_at(own, postgres_server):
    settings = postgres_server.new()
    wrong = Server(str(settings["url"]), lambda: "wrong")
    with pytest.raises(UnavailableError) as refused:
        await opened(wrong, sink=ListSink(), clock=ManualClock())
    assert "password authentication failed" in refused.value.message
    assert "database.url" in refused.value.remedy
    with pytest.raises(UnavailableError):
        nowhere = Server("postgresql:///a?host=/nonexistent")
        await opened(nowhere, sink=ListSink(), clock=ManualClock())
