"""The one writer: a thread with a plain connection that commits many units at once (design.md §7).

``synchronous=FULL`` makes each commit one fsync, the slowest thing on the box; so units that wait
share one commit. A unit's answer leaves only after the commit that holds it.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from shared.kernel.clock import Clock
from shared.kernel.errors import OutcomeUnknownError, TmaError, UnavailableError
from shared.kernel.ids import Random
from shared.store.transaction import (
    Connection,
    EventSink,
    Result,
    Transaction,
    Unit,
    is_full,
    storage_full,
)

_LOG = logging.getLogger(__name__)

GROUP_UNITS_MAX = 256
QUEUE_UNITS_MAX = 8_192
_LOCK_WAIT_S = 5
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",  # savepoints copy pages: not into a file
    "wal_autocheckpoint=4000",  # pages of 4 KiB; what changes often is folded back once
    "journal_size_limit=33554432",
)


class _Job(NamedTuple):
    unit: Unit[Any]
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    value: Any
    error: BaseException | None


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for writing."""
    connection = sqlite3.connect(
        path, timeout=_LOCK_WAIT_S, isolation_level=None, cached_statements=512
    )
    configure(connection)
    return connection


def configure(connection: Connection) -> None:
    """Set what durability rests on: each commit is on disk before it is answered."""
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


class Writer:
    """Runs units in the order in which they were given; made by ``Database.open``."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        sink: EventSink,
        clock: Clock,
        random: Random,
        relieve: Callable[[], bool],
    ) -> None:
        """Take the connection's maker, the sink of events, and what frees the disk reserve.

        ``relieve`` gives True if it freed space just now: the group is then tried again.
        """
        self._connect = connect
        self._sink = sink
        self._clock = clock
        self._random = random
        self._relieve = relieve
        self._connection: Connection | None = None
        self._jobs: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._gathered: list[_Job] = []
        self._waiting = 0  # touched on the loop only
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    async def run(self, unit: Unit[Result]) -> Result:
        """Run a unit and give its result once it is durable.

        Raises what the unit raised (nothing of it is kept), StorageFullError, UnavailableError
        (nothing happened), OutcomeUnknownError (it may have happened: ask with the same key).
        A caller that is cancelled leaves the unit to finish.
        """
        if self._closed:
            raise UnavailableError("The database is being closed.", retry_after_s=5)
        if self._waiting >= QUEUE_UNITS_MAX:
            raise UnavailableError("Too many changes wait for the disk.", retry_after_s=1)
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting += 1
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Job(unit, future))
        return await future

    async def close(self) -> None:
        """Finish what waits, then close the connection; SQLite checkpoints the WAL with it."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (group := self._next_group()) is not None:
            outcomes = self._commit(group)
            self._loop.call_soon_threadsafe(self._answer, outcomes)
        self._disconnect()

    def _hand_over(self) -> None:
        """Give the thread all that one turn of the loop asked for.

        Woken for each single unit, it would fight the loop for the interpreter lock: a fifth of
        the CPU of an issue, and smaller groups.
        """
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), GROUP_UNITS_MAX):
            self._jobs.put(gathered[start : start + GROUP_UNITS_MAX])

    def _next_group(self) -> list[_Job] | None:
        """Wait for jobs and take along those that came meanwhile; None at the end."""
        group: list[_Job] = []
        while not group or (len(group) < GROUP_UNITS_MAX and not self._jobs.empty()):
            jobs = self._jobs.get()
            if jobs is None:
                if not group:
                    return None
                self._jobs.put(None)
                break
            group += jobs
        return group

    def _answer(self, outcomes: list[_Outcome]) -> None:
        self._waiting -= len(outcomes)
        for future, value, error in outcomes:
            if future.done():  # its caller was cancelled
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _commit(self, group: list[_Job]) -> list[_Outcome]:
        """Run the group in one transaction; if that is lost, no unit of it is answered as done."""
        transaction = None
        try:
            transaction = self._begin()
            outcomes = self._run_all(transaction, group)
            transaction.run_sql("COMMIT")
        except BaseException as error:  # noqa: BLE001 - whoever waits must get an answer
            cause = error.__cause__ or error
            self._start_over(transaction)
            if is_full(cause) and self._relieve():
                return self._commit(group)
            failure = _failure(cause, began=transaction is not None)
            _LOG.warning("A group of %d changes failed: %r", len(group), cause)
            return [_Outcome(job.future, None, failure) for job in group]
        return outcomes

    def _begin(self) -> Transaction:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("BEGIN IMMEDIATE")
        return Transaction(self._connection, self._sink, self._clock.now(), self._random)

    def _run_all(self, transaction: Transaction, group: list[_Job]) -> list[_Outcome]:
        """Run the units bare; if one raises, take all back and give each its own savepoint.

        A savepoint copies each page that is touched under it, which costs a quarter of an issue's
        CPU. Units are safe to run again, and few of them raise.
        """
        try:
            return [_Outcome(job.future, job.unit(transaction), None) for job in group]
        except Exception:  # noqa: BLE001 - it will be raised again, to its own caller
            transaction.start_over()
        return [self._outcome(transaction, job) for job in group]

    def _outcome(self, transaction: Transaction, job: _Job) -> _Outcome:
        try:
            with transaction.savepoint():
                value = job.unit(transaction)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller of this unit
            return _Outcome(job.future, None, error)
        return _Outcome(job.future, value, None)

    def _start_over(self, transaction: Transaction | None) -> None:
        """Nothing in memory may outlive a transaction whose fate is not known."""
        if transaction is not None:
            transaction.revert()
        self._sink.forget()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None


def _failure(cause: BaseException, *, began: bool) -> TmaError:
    """Say what the units of a lost group may believe.

    A full disk fails a *write*, and the commit record is the last one: nothing was committed.
    A failed fsync or lock leaves that open.
    """
    if is_full(cause):
        return storage_full()
    if not began:
        return UnavailableError("The database cannot be opened for writing.", retry_after_s=1)
    return OutcomeUnknownError(
        "Whether the change was stored is not known.",
        remedy="Send the same request again with the same key.",
        retry_after_s=1,
    )
