"""The one writer: a plain connection that commits many units at once (design.md §7).

``synchronous=FULL`` makes each commit one fsync, the slowest thing on the box; so units that wait
share one commit. A unit's answer leaves only after the commit that holds it.

A thread runs the groups, for a disk may take seconds. But waking it and being woken by it costs
more CPU than a fast disk's fsync: while commits take a millisecond or two, a small group of brief
units is run and committed on the loop itself. One slow commit sends the next ones to the thread.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from shared.kernel.clock import Clock
from shared.kernel.errors import (
    OutcomeUnknownError,
    StorageFullError,
    TmaError,
    UnavailableError,
)
from shared.kernel.ids import Random
from shared.store.statements import SQLITE, Dialect
from shared.store.transaction import (
    Connection,
    EventSink,
    Result,
    StatusWatch,
    Transaction,
    Unit,
    is_full,
    storage_full,
)

_LOG = logging.getLogger(__name__)

GROUP_UNITS_MAX = 256
QUEUE_UNITS_MAX = 8_192
#: What the loop may do itself: this many brief units, while a commit takes no longer than this.
BRIEF_UNITS_MAX = 32
QUICK_COMMIT_S = 0.002
_SMOOTHING = 8  # commits over which their duration is averaged
_IN_A_ROW_MAX = 64  # then one goes to the thread, where the write-ahead log may be folded back
_LOCK_WAIT_S = 5
_FOLD_PAGES = 4_000  # of 4 KiB; what changes often is folded back once
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",  # savepoints copy pages: not into a file
    f"wal_autocheckpoint={_FOLD_PAGES}",
    "journal_size_limit=33554432",
)


class _Outcome(NamedTuple):
    value: Any
    error: Exception | None


@dataclass(slots=True)
class _Call:
    """Units that were given together, and who waits for all of them."""

    count: int
    done: dict[int, _Outcome] = field(default_factory=dict[int, _Outcome])
    waiter: asyncio.Future[None] | None = None

    def answer(self, place: int, outcome: _Outcome) -> None:
        """Take one outcome; the last one wakes who waits, unless its task was cancelled."""
        self.done[place] = outcome
        if len(self.done) == self.count and self.waiter and not self.waiter.done():
            self.waiter.set_result(None)


class _Job(NamedTuple):
    unit: Unit[Any]
    brief: bool
    call: _Call
    place: int


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for writing; one thread at a time may use the connection."""
    connection = sqlite3.connect(
        path,
        timeout=_LOCK_WAIT_S,
        isolation_level=None,
        cached_statements=512,
        check_same_thread=False,
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
        dialect: Dialect = SQLITE,
        sink: EventSink,
        clock: Clock,
        random: Random,
        relieve: Callable[[], bool],
    ) -> None:
        """Take the connection's maker, its dialect, the sink of events, what frees the reserve.

        ``relieve`` gives True if it freed space just now.
        """
        self._connect = connect
        self._dialect = dialect
        self._sink = sink
        self._clock = clock
        self._random = random
        self._relieve = relieve
        self._connection: Connection | None = None
        self._on_loop = False  # how the connection is set up: for the loop or for the thread
        self._commit_s = 2 * QUICK_COMMIT_S  # average; a disk is slow until it proves otherwise
        self._in_a_row = 0
        # Touched on the loop only: what waits, its number with what runs, who has the connection.
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._thread_works = self._closed = False
        self._groups: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._watches: tuple[StatusWatch, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    async def run(self, unit: Unit[Result], *, brief: bool = False) -> Result:
        """Run a unit and give its result once it is durable.

        Raises what the unit raised (nothing of it is kept), StorageFullError, UnavailableError
        (nothing happened), OutcomeUnknownError (it may have happened: ask with the same key).
        A caller that is cancelled leaves the unit to finish.

        ``brief`` says that it is a few statements on a few rows, and nothing else: such a unit may
        run on the loop. All others run in the writer's thread.
        """
        [outcome] = await self._run([unit], brief=brief)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    async def run_each(self, units: Sequence[Unit[Result]]) -> list[Result | Exception]:
        """Run brief units that came together, and give each its result or what it raised.

        If nothing else waits and the disk is quick, they are durable without a wait. Raises
        UnavailableError (nothing happened).
        """
        outcomes = await self._run(units, brief=True)
        return [outcome.error or outcome.value for outcome in outcomes]

    async def _run(self, units: Sequence[Unit[Any]], *, brief: bool) -> list[_Outcome]:
        if self._closed:
            raise UnavailableError("The database is being closed.", retry_after_s=5)
        if self._waiting >= QUEUE_UNITS_MAX:
            raise UnavailableError("Too many changes wait for the disk.", retry_after_s=1)
        call = _Call(len(units))
        free = not self._jobs and not self._thread_works
        self._waiting += len(units)
        self._jobs.extend(_Job(unit, brief, call, place) for place, unit in enumerate(units))
        if free and brief:
            self._take_turn()
        elif free:
            self._loop.call_soon(self._take_turn)  # with all that this turn of the loop asks for
        if len(call.done) < call.count:
            call.waiter = self._loop.create_future()
            await call.waiter
        return [call.done[place] for place in range(call.count)]

    def watch(self, watch: StatusWatch) -> None:
        """Tell of each change of a certificate's status, around its commit."""
        self._watches = (*self._watches, watch)

    async def close(self) -> None:
        """Finish what waits, then close the connection; SQLite checkpoints the WAL with it."""
        if not self._closed:
            self._closed = True
            while self._jobs:
                self._groups.put(self._next(GROUP_UNITS_MAX))
            self._groups.put(None)
        await asyncio.to_thread(self._thread.join)

    def _take_turn(self) -> None:
        """Run the next group here or have it run, in the order in which the units were given."""
        if not self._jobs or self._thread_works:
            return
        group = self._next(BRIEF_UNITS_MAX, brief=True) if self._may_commit_here() else []
        outcomes = self._commit_here(group) if group else None
        if outcomes is None:
            self._in_a_row = 0
            self._thread_works = True
            self._groups.put(group or self._next(GROUP_UNITS_MAX))
            return
        self._answer(group, outcomes)
        if self._jobs:
            self._loop.call_soon(self._take_turn)

    def _next(self, count_max: int, *, brief: bool = False) -> list[_Job]:
        """Take jobs from the front of the queue; with ``brief`` up to the first that is not."""
        group: list[_Job] = []
        while self._jobs and len(group) < count_max and (self._jobs[0].brief or not brief):
            group.append(self._jobs.popleft())
        return group

    def _may_commit_here(self) -> bool:
        """Tell if the disk was quick of late, and the thread had its turn to fold the log back."""
        return (
            self._dialect.on_loop
            and self._connection is not None
            and self._commit_s < QUICK_COMMIT_S
            and self._in_a_row < _IN_A_ROW_MAX
        )

    def _commit_here(self, group: list[_Job]) -> list[_Outcome] | None:
        """Run a group on the loop; None if the thread must: it can wait, and make room."""
        try:
            transaction = self._begin(on_loop=True)
        except Exception:  # noqa: BLE001 - the thread will meet it again, and answer
            return None
        self._in_a_row += 1
        try:
            return self._attempt(group, transaction)
        except StorageFullError:
            return None

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            outcomes = self._commit(group)
            self._loop.call_soon_threadsafe(self._go_on, group, outcomes)
        self._disconnect()

    def _go_on(self, group: list[_Job], outcomes: list[_Outcome]) -> None:
        """Answer what the thread did, and give it or the loop the next group."""
        self._thread_works = False
        self._answer(group, outcomes)
        self._take_turn()

    def _answer(self, group: list[_Job], outcomes: list[_Outcome]) -> None:
        self._waiting -= len(group)
        for job, outcome in zip(group, outcomes, strict=True):
            job.call.answer(job.place, outcome)

    def _commit(self, group: list[_Job]) -> list[_Outcome]:
        """Run the group in one transaction; on a full disk a second time, if room can be made."""
        try:
            try:
                return self._attempt(group)
            except StorageFullError:
                if not self._make_room():
                    raise
            return self._attempt(group)
        except StorageFullError as error:
            _LOG.warning("A group of %d changes failed: the disk is full.", len(group))
            return [_Outcome(None, error)] * len(group)

    def _attempt(self, group: list[_Job], transaction: Transaction | None = None) -> list[_Outcome]:
        """Run the group once; if its transaction is lost, no unit of it is answered as done.

        Raises StorageFullError (nothing of the group is kept).
        """
        try:
            transaction = transaction or self._begin(on_loop=False)
            outcomes = self._run_all(transaction, group)
            began = time.perf_counter()
            self._commit_watched(transaction)
            self._commit_s += (time.perf_counter() - began - self._commit_s) / _SMOOTHING
        except BaseException as error:  # noqa: BLE001 - whoever waits must get an answer
            cause = error.__cause__ or error
            self._start_over(transaction)
            if is_full(cause):
                # The commit record is the last thing that is written: nothing was committed.
                raise storage_full() from cause
            failure = _failure(began=transaction is not None)
            _LOG.warning("A group of %d changes failed: %r", len(group), cause)
            return [_Outcome(None, failure)] * len(group)
        return outcomes

    def _make_room(self) -> bool:
        """Give up the reserve and fold the write-ahead log back; tell if there may be room now.

        The log's megabytes may be what fills a small disk. The reserve goes first: pages that are
        new to the database need room in it before the log can let go of them.
        """
        freed = self._relieve()
        return self._fold() or freed

    def _fold(self) -> bool:
        if not self._dialect.fold:
            return False
        try:
            blocked, *_ = self._connected().execute(self._dialect.fold).fetchone()
        except Exception as error:  # noqa: BLE001 - then there is no more room than before
            _LOG.warning("The write-ahead log could not be folded back: %r", error)
            self._disconnect()
            return False
        return not blocked

    def _commit_watched(self, transaction: Transaction) -> None:
        """Commit; from before it until after it nobody may remember a status that changes."""
        changed = transaction.changed
        if not changed:
            transaction.run_sql("COMMIT")
            return
        watches = self._watches
        for watch in watches:
            watch.before_commit(changed)
        try:
            transaction.run_sql("COMMIT")
        finally:
            for watch in watches:
                watch.after_commit(changed)

    def _begin(self, *, on_loop: bool) -> Transaction:
        connection = self._connected()
        if self._on_loop is not on_loop:
            wait_ms = int(_LOCK_WAIT_S * 1_000)
            # The loop waits for no lock and copies no pages back from the write-ahead log.
            connection.execute(f"PRAGMA busy_timeout={0 if on_loop else wait_ms}")
            connection.execute(f"PRAGMA wal_autocheckpoint={0 if on_loop else _FOLD_PAGES}")
            self._on_loop = on_loop
        connection.execute(self._dialect.begin)
        return Transaction(connection, self._sink, self._clock.now(), self._random, self._dialect)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._on_loop = False
        return self._connection

    def _run_all(self, transaction: Transaction, group: list[_Job]) -> list[_Outcome]:
        """Run the units bare; if one raises, take all back and give each its own savepoint.

        A savepoint copies each page that is touched under it, which costs a quarter of an issue's
        CPU. Units are safe to run again, and few of them raise.
        """
        try:
            return [_Outcome(job.unit(transaction), None) for job in group]
        except Exception:  # noqa: BLE001 - it will be raised again, to its own caller
            transaction.start_over()
        return [self._outcome(transaction, job) for job in group]

    def _outcome(self, transaction: Transaction, job: _Job) -> _Outcome:
        try:
            with transaction.savepoint():
                value = job.unit(transaction)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller of this unit
            return _Outcome(None, error)
        return _Outcome(value, None)

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


def _failure(*, began: bool) -> TmaError:
    """Say what the units of a lost group may believe: a failed fsync or lock leaves it open."""
    if not began:
        return UnavailableError("The database cannot be opened for writing.", retry_after_s=1)
    return OutcomeUnknownError(
        "Whether the change was stored is not known.",
        remedy="Send the same request again with the same key.",
        retry_after_s=1,
    )
