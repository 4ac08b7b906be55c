"""Databases for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.sync.events import Event
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


@asynccontextmanager
async def open_database(path: Path, **options: Any) -> AsyncIterator[Database]:
    options = {"sink": ListSink(), "clock": ManualClock(), **options}
    database = await Database.open(path, **options)
    try:
        yield database
    finally:
        await database.close()
