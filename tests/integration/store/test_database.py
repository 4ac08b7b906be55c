"""Opening, migrating, reading and closing."""

import asyncio
import hashlib
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, literal_column, select, text

from shared.kernel.errors import IncompatibleError, UnavailableError
from shared.policy.rights import Right
from shared.store import crl_parts, rights, schema, upgrade
from shared.store import database as database_module
from shared.store.access import Access
from shared.store.accounts import Accounts
from shared.store.ledger import SqlLedger
from shared.store.migrations import HEAD
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import metadata
from shared.web.auth import station_rights
from tests.support.store_databases import open_database
from tests.support.store_intents import CA_ID, count, issuing_database, make_intent
from tests.support.store_old_databases import restore

_SLOW = select(text("count(*)")).select_from(
    select(literal_column("1").label("n"))
    .cte("numbers", recursive=True)
    .union_all(select(literal_column("n + 1")).select_from(text("numbers")))
)


def shape(path: Path) -> dict[str, object]:
    """Describe all tables and indexes, whatever way their SQL is written."""
    with closing(sqlite3.connect(path)) as connection:
        run = connection.execute
        tables = {
            row[1]: row[3:]
            for row in run("PRAGMA table_list")
            if row[2] == "table" and not row[1].startswith(("sqlite_", "alembic_"))
        }
        found: dict[str, object] = {}
        for table, kind in tables.items():
            found[table] = (kind, run(f'PRAGMA table_info("{table}")').fetchall())
            found[f"{table} references"] = run(f'PRAGMA foreign_key_list("{table}")').fetchall()
            indexes = run(f'PRAGMA index_list("{table}")').fetchall()
            found[f"{table} indexes"] = {
                (unique, origin, partial, tuple(run(f'PRAGMA index_info("{name}")')))
                for _, name, unique, origin, partial in indexes
            }
        wheres = run("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")
        found["conditions"] = {name: sql.partition("WHERE")[2] for name, sql in wheres}
    return found


_KILLED_WHILE_MIGRATING = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
connection.execute("BEGIN EXCLUSIVE")
for number in range(200):
    connection.execute(f"CREATE TABLE half_{number} (a TEXT, b TEXT)")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_a_kill_left_of_a_migration_is_rolled_back(tmp_path: Path):
    """A new database has a rollback journal until it is opened for the first time."""
    path = tmp_path / "central.db"
    sqlite3.connect(path).close()
    killed = [sys.executable, "-c", _KILLED_WHILE_MIGRATING, str(path)]
    await asyncio.to_thread(subprocess.run, killed, check=False, timeout=30)
    assert (tmp_path / "central.db-journal").stat().st_size
    async with open_database(path) as database:
        names = await database.read(text("SELECT name FROM sqlite_master"))
    assert not [row.name for row in names if row.name.startswith("half_")]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_the_migrations_make_what_the_schema_says(tmp_path):
    async with open_database(tmp_path / "migrated.db"):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert shape(tmp_path / "migrated.db") == shape(tmp_path / "declared.db")


async def test_a_database_of_version_1_is_read_and_gone_on_with(tmp_path):
    path = tmp_path / "gateway.db"
    restore("v1", path)
    async with open_database(path, sink=Outbox.of_gateway("gw-01", "test")) as database:
        ledger = SqlLedger(database)
        rows = await Reads(database).search({}, None, 0, 10)
        assert [(row.device_id, row.state, row.status) for row in rows] == [
            ("SN-3", "voided", "revoked"),
            ("SN-2", "issued", "hold"),
            ("SN-1", "issued", "revoked"),
            ("SN-0", "issued", "good"),
        ]
        (still_open,) = await ledger.open_intents()
        assert still_open.request.device_id == "SN-4"
        again = make_intent("SN-0", key="k:0")
        assert (await ledger.intend(again)).der == rows[3].der
        await ledger.complete(still_open, b"der")
        issued = schema.outbox.c.type == "certificate.issued"
        assert await count(database, schema.outbox, issued) == 4


async def test_users_of_version_1_keep_their_role_and_password(tmp_path):
    path = tmp_path / "central.db"
    restore("v1", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        add = 'INSERT INTO "user" VALUES (?, ?, ?, 3, 77, 5)'
        connection.executemany(add, [("ada", "hash-a", "admin"), ("eve", "hash-e", "auditor")])
        connection.execute("INSERT INTO session VALUES (x'00', 'ada', 1, 1, 9)")
        station = "INSERT INTO station VALUES ('m', 'admin', x'01', NULL, '[\"*\"]', 1, NULL, NULL)"
        connection.execute(station)
    async with open_database(path) as database:
        user = await Accounts(database).user("ada")
        assert user is not None
        assert (user.password_hash, user.failed_logins, user.locked_until_us) == ("hash-a", 3, 77)
        assert not user.must_change
        assert not user.disabled
        assert await rights.of_user(database, "ada") == (Right.of("admin"),)
        assert await rights.of_user(database, "eve") == (Right.of("auditor"),)
        assert await database.read(select(schema.session)) == []
        kept = await Access(database).station_by_token(b"\x01")
        assert kept is not None
        assert station_rights(kept.role, kept.profiles) == (Right.of("admin"),)


async def test_parts_of_a_large_crl_outlive_the_upgrade_to_partitions(tmp_path, monkeypatch):
    path, before = tmp_path / "central.db", tmp_path / "migrations"
    restore("v1", path)
    shutil.copytree(Path(upgrade.__file__).parent / "migrations", before)
    for later in sorted((before / "versions").glob("0*.py")):
        if later.name >= "0014":
            later.unlink()
    with monkeypatch.context() as former:
        former.setattr(upgrade, "_MIGRATIONS", before)
        former.setattr(upgrade, "HEAD", "0013")
        upgrade.upgrade(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO crl_part VALUES (?, 0, 7, 2, x'01')", (CA_ID,))
    body = {"ca_id": CA_ID, "number": 7, "part": 1, "parts": 2, "der": b"\x02"}
    async with open_database(path) as database:
        der = await database.writer.run(lambda tx: crl_parts.collect(tx, body))
        assert der == b"\x01\x02"
        [row] = await database.read(select(schema.ca.c.crl_partitions))
        assert row.crl_partitions is None


async def test_a_newer_database_is_refused_untouched(tmp_path):
    path = tmp_path / "a.db"
    async with open_database(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = digest(path)
    with pytest.raises(IncompatibleError) as refused:
        async with open_database(path):
            pass
    assert "9999" in refused.value.message
    assert digest(path) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.db"]


async def test_a_migration_that_fails_leaves_the_database_untouched(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    async with issuing_database(path):
        pass
    before = shape(path)
    versions = tmp_path / "migrations/versions"
    versions.mkdir(parents=True)
    real = Path(upgrade.__file__).parent / "migrations"
    (versions.parent / "env.py").write_bytes((real / "env.py").read_bytes())
    for file in (real / "versions").glob("[0-9]*.py"):
        (versions / file.name).write_bytes(file.read_bytes())
    (versions / "next.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = 'next', '{HEAD}'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (done INTEGER)')\n"
        "    op.execute('DELETE FROM ca')\n"
        "    op.execute('no SQL')\n"
    )
    monkeypatch.setattr(upgrade, "_MIGRATIONS", versions.parent)
    monkeypatch.setattr(upgrade, "HEAD", "next")
    with pytest.raises(Exception, match="syntax error"):
        async with open_database(path):
            pass
    assert shape(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert connection.execute("SELECT ca_id FROM ca").fetchall() == [(CA_ID,)]


async def test_readers_cannot_write(tmp_path):
    async with open_database(tmp_path / "a.db") as database:
        with pytest.raises(UnavailableError):
            await database.read(insert(schema.fact).values(name="a", value="b"))
        assert await database.read(select(schema.fact)) == []


async def test_a_query_without_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "READ_S_MAX", 0.3)
    async with open_database(tmp_path / "a.db") as database:
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            await database.read(_SLOW)
        assert time.monotonic() - started < 5
        assert await database.read(select(schema.fact)) == []


async def test_a_cancelled_reader_does_not_harm_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "READ_S_MAX", 0.5)
    async with open_database(tmp_path / "a.db") as database:
        tasks = [asyncio.ensure_future(database.read(_SLOW)) for _ in range(6)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await database.read(select(schema.fact)) == []


async def test_the_log_is_folded_back_beside_readers(tmp_path):
    async with open_database(tmp_path / "a.db") as database:
        add = insert(schema.fact)
        for number in range(40):
            row = {"name": str(number), "value": "x" * 400_000}
            await database.writer.run(lambda tx, row=row: tx.execute(add, row))
            await database.read(select(schema.fact.c.name))
        await database.writer.run(lambda tx: tx.execute(add, {"name": "last", "value": ""}))
        assert (tmp_path / "a.db-wal").stat().st_size < 36 * 1024 * 1024
