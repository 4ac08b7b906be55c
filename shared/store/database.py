"""One database: the one writer, the readers and the disk reserve. SQLite's are made here."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Executable, Row, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from shared.kernel.clock import Clock
from shared.kernel.errors import UnavailableError
from shared.kernel.ids import Random
from shared.store import writer
from shared.store.lookups import Finder, Lookups
from shared.store.reserve import (
    FLOOR_BYTES,
    RESERVE_BYTES,
    Reserve,
    StorageReserve,
    free_bytes_beside,
)
from shared.store.transaction import Connection, EventSink
from shared.store.upgrade import upgrade
from shared.store.writer import Writer

READ_S_MAX = 5.0
#: What all pools of readers are made with.
POOL: Mapping[str, Any] = {
    "poolclass": AsyncAdaptedQueuePool,
    "pool_size": 4,
    "max_overflow": 0,
    "pool_timeout": READ_S_MAX,
}

#: Wraps the use of a reader's connection.
Deadline = Callable[[AsyncConnection], AbstractAsyncContextManager[None]]


class Database:
    """The doors to one database; open it with ``open`` or ``postgres.opened``, and close it."""

    def __init__(
        self,
        writer: Writer,
        readers: AsyncEngine,
        lookups: Finder,
        reserve: Reserve,
        deadline: Deadline,
    ) -> None:
        """Take the parts; ``deadline`` ends what a reader runs for longer than it may."""
        self.writer = writer
        self.reserve = reserve
        self._readers = readers
        self._deadline = deadline
        self.lookups = lookups  # rows by their key, for those who ask often

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        sink: EventSink,
        clock: Clock,
        random: Random = os.urandom,
        free_bytes: Callable[[], int] | None = None,
        floor_bytes: int = FLOOR_BYTES,
        reserve_bytes: int | None = None,
        connect: Callable[[], Connection] | None = None,
    ) -> Self:
        """Open an SQLite file: migrate if needed, start the writer; a missing file is made.

        ``free_bytes`` measures the file system, ``connect`` makes the writer's connection; tests
        replace both. Raises IncompatibleError (written by a newer version: nothing is touched).
        """
        await asyncio.to_thread(upgrade, path)
        reserve = StorageReserve(
            path.with_name(f"{path.name}-reserve"),
            free_bytes=free_bytes or (lambda: free_bytes_beside(path)),
            floor=floor_bytes,
            size=min(RESERVE_BYTES, floor_bytes // 2) if reserve_bytes is None else reserve_bytes,
        )
        starting = Writer(
            connect or (lambda: writer.connect(path)),
            sink=sink,
            clock=clock,
            random=random,
            relieve=reserve.release,
        )
        return cls(starting, _readers_of(path), Lookups(path), reserve, _bounded)

    async def read(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Give all rows of a bounded query, as of the last commit.

        Raises UnavailableError when the query would take longer than 5 s: readers must end, or
        SQLite's write-ahead log cannot be folded back and fills the disk.
        """
        return await rows_of(self._readers, self._deadline, statement, parameters)

    async def close(self) -> None:
        """End the readers, let the writer finish, and fold the write-ahead log back."""
        await self.lookups.close()
        await self._readers.dispose()
        await self.writer.close()


async def rows_of(
    readers: AsyncEngine,
    deadline: Deadline,
    statement: Executable,
    parameters: Mapping[str, Any] | None,
) -> Sequence[Row[Any]]:
    """Do what ``Database.read`` does."""
    try:
        async with readers.connect() as connection, deadline(connection):
            result = await connection.execute(statement, parameters)
            return result.all()
    except (DBAPIError, PoolTimeoutError) as error:
        raise UnavailableError("The database could not be read.", retry_after_s=1) from error


def _readers_of(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        isolation_level="AUTOCOMMIT",
        **POOL,
    )

    def read_only(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(engine.sync_engine, "connect", read_only)
    return engine


@asynccontextmanager
async def _bounded(connection: AsyncConnection) -> AsyncGenerator[None]:
    """Interrupt what still runs after ``READ_S_MAX``; cancelling would leave it running."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    loop = asyncio.get_running_loop()
    timer = loop.call_later(READ_S_MAX, lambda: loop.create_task(driver.interrupt()))
    try:
        yield
    finally:
        timer.cancel()
