"""Single rows by their key, for those who ask often: one thread, a plain connection, no pool.

An asynchronous read through SQLAlchemy costs about fifty times what SQLite needs to find a row, and
a wake-up of a thread ten times. So rows are found on the loop while the disk is quick, as the
writer commits there; else in a thread, all questions of one turn of the loop together.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ClauseElement

from shared.kernel.errors import UnavailableError
from shared.store.statements import Parameters, Row, compiled

_LOCK_WAIT_S = 5
#: Up to this average a look-up may run on the loop.
_QUICK_S = 0.0005
_SMOOTHING = 16


class _Question(NamedTuple):
    statement: ClauseElement
    parameters: Parameters
    future: asyncio.Future[Row | None]


class Finder(Protocol):
    """Finds rows as of the last commit."""

    @property
    def quick(self) -> bool:
        """Whether ``now`` may be called."""
        ...

    def now(self, statement: ClauseElement, parameters: Parameters) -> Row | None:
        """Do what ``one`` does, at once."""
        ...

    async def one(self, statement: ClauseElement, parameters: Parameters) -> Row | None:
        """Give the first row of a look-up by an index, or None. Raises UnavailableError."""
        ...

    async def close(self) -> None:
        """Answer what waits, and end."""
        ...


class Lookups:
    """Finds rows of an SQLite file; made by ``Database.open``."""

    def __init__(self, path: Path) -> None:
        """Take the database file; the thread starts with the first question."""
        self._path = path
        self._questions: queue.SimpleQueue[list[_Question] | None] = queue.SimpleQueue()
        self._gathered: list[_Question] = []
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._here: sqlite3.Connection | None = None
        self._average_s = 2 * _QUICK_S  # a disk is slow until it proves otherwise

    @property
    def quick(self) -> bool:
        """Whether the disk was quick of late, so that ``now`` may be called."""
        return self._average_s < _QUICK_S

    def now(self, statement: ClauseElement, parameters: Parameters) -> Row | None:
        """Do what ``one`` does, at once."""
        try:
            if self._here is None:
                self._here = self._connect(lock_wait_s=0)
            return self._found(self._here, statement, parameters)
        except sqlite3.Error as error:
            raise UnavailableError("The database could not be read.", retry_after_s=1) from error

    async def one(self, statement: ClauseElement, parameters: Parameters) -> Row | None:
        """Give the first row of a look-up by an index, or None. Raises UnavailableError."""
        if self.quick:
            with suppress(UnavailableError):  # the thread can wait for a lock
                return self.now(statement, parameters)
        future: asyncio.Future[Row | None] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Question(statement, parameters, future))
        return await future

    async def close(self) -> None:
        """Answer what waits, then end the thread."""
        if self._here is not None:
            self._here.close()
            self._here = None
        if self._thread is not None:
            self._questions.put(None)
            await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lookups", daemon=True)
            self._thread.start()
        self._questions.put(gathered)

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while (questions := self._questions.get()) is not None:
            answers: list[tuple[asyncio.Future[Row | None], Any]] = []
            for question in questions:
                try:
                    connection = connection or self._connect(_LOCK_WAIT_S)
                    answer = self._found(connection, question.statement, question.parameters)
                except Exception as error:  # noqa: BLE001  # whoever waits must get an answer
                    answer = error
                answers.append((question.future, answer))
            with suppress(RuntimeError):  # the loop is gone, and so are those who asked
                self._loop.call_soon_threadsafe(_answer, answers)
        if connection is not None:
            connection.close()

    def _connect(self, lock_wait_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=lock_wait_s, isolation_level=None)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _found(
        self, connection: sqlite3.Connection, statement: ClauseElement, parameters: Parameters
    ) -> Row | None:
        prepared = compiled(statement, tuple(parameters))
        began = time.perf_counter()
        cursor = connection.execute(prepared.sql, prepared.bind(parameters))
        row = cursor.fetchone()
        cursor.close()  # an open statement would keep the write-ahead log from being folded back
        self._average_s += (time.perf_counter() - began - self._average_s) / _SMOOTHING
        return None if row is None else prepared.row(*row)


def _answer(answers: list[tuple[asyncio.Future[Row | None], Any]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, sqlite3.Error):
            error = UnavailableError("The database could not be read.", retry_after_s=1)
            error.__cause__ = answer
            future.set_exception(error)
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
