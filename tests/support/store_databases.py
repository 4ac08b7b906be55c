"""Databases for tests.

A test names its database by a path. Under ``each_database`` it runs a second time, where a path
stands for a database of that server: the same path again is the same database again.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from shared.store import postgres
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.sync.events import Event
from tests.support.postgres import PostgresServer
from tests.support.store_clock import ManualClock


class ListSink:
    """Keeps emitted events in memory; takes back those of a unit that was rolled back."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, Event]] = []
        self.forgotten = 0

    def append(self, transaction: Transaction, event: Event, peer: str | None) -> None:
        self.events.append((peer, event))
        transaction.undo(lambda: self.events.remove((peer, event)))

    def forget(self) -> None:
        self.forgotten += 1


class Kind:
    """What ``open_database`` opens: an SQLite file, or a database of ``server``."""

    server: PostgresServer | None = None
    known: ClassVar[set[str]] = set()


def place_of(path: Path) -> postgres.Server:
    """Give the PostgreSQL database that a path stands for, made at its first use."""
    assert Kind.server is not None
    name = f"t_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in Kind.known:
        Kind.server.sql(f"CREATE DATABASE {name} TEMPLATE {_template(Kind.server)}")
        Kind.known.add(name)
    return postgres.Server(Kind.server.url(name))


def _template(server: PostgresServer) -> str:
    """Migrate once: tests copy the result."""
    if "template" not in Kind.known:
        server.sql("CREATE DATABASE migrated")
        migrating = postgres.upgrade(postgres.Server(server.url("migrated")))
        asyncio.run(migrating)
        Kind.known.add("template")
    return "migrated"


@asynccontextmanager
async def open_database(path: Path, **options: Any) -> AsyncIterator[Database]:
    options = {"sink": ListSink(), "clock": ManualClock(), **options}
    if Kind.server is None:
        database = await Database.open(path, **options)
    else:
        database = await postgres.opened(await asyncio.to_thread(place_of, path), **options)
    try:
        yield database
    finally:
        await database.close()
