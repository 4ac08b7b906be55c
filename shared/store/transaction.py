"""One database transaction as units see it: statements, savepoints and the door to the outbox."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from operator import attrgetter, methodcaller
from typing import Any, Protocol, TypeVar

from sqlalchemy import ClauseElement

from shared.kernel.clock import Instant
from shared.kernel.errors import StorageFullError, UnavailableError
from shared.kernel.ids import Random
from shared.store.statements import SQLITE, Dialect, Parameters, Row, compiled
from shared.sync import events
from shared.sync.events import Event

_NO_PARAMETERS: Parameters = {}
#: SQLite's primary result codes that say something about the box, not about the statement.
_TRANSIENT_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)
#: Classes of PostgreSQL's error codes that do so (its manual, appendix A): connection, rollback by
#: serialisation or deadlock, resources, locks and cancelled statements, its shutdown, input/output.
_TRANSIENT_STATES = ("08", "40", "53", "55P03", "57", "58")
_DISK_FULL_STATE = "53100"
_row_count = attrgetter("rowcount")
_first_row = methodcaller("fetchone")
_every_row = methodcaller("fetchall")


class Cursor(Protocol):
    """What a statement gives (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Give the next row or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Give the remaining rows."""
        ...


class Connection(Protocol):
    """A connection in autocommit mode, as ``sqlite3`` makes it; PostgreSQL's behaves like it."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        ...


class EventSink(Protocol):
    """Where emitted events go: an outbox, or central's own books."""

    def append(self, transaction: "Transaction", event: Event, peer: str | None, /) -> None:
        """Store the event inside the transaction."""
        ...

    def forget(self) -> None:
        """Drop what is remembered of the database: the fate of a commit is not known."""
        ...


#: Whose status changed: (CA id, serial).
Changed = Sequence[tuple[str, str]]


class StatusWatch(Protocol):
    """Who remembers statuses outside the database; both calls come from the writer's thread."""

    def before_commit(self, changed: Changed, /) -> None:
        """Forget these, and remember none of them until ``after_commit``."""
        ...

    def after_commit(self, changed: Changed, /) -> None:
        """Believe the database about these again; also called when the commit failed."""
        ...


class _TransactionLostError(BaseException):
    """The database dropped the whole transaction; no ``except Exception`` may go on after it."""


class Transaction:
    """What a unit works with. One object serves all units of a group, one after the other."""

    def __init__(
        self,
        connection: Connection,
        sink: EventSink,
        now: Instant,
        random: Random,
        dialect: Dialect = SQLITE,
    ) -> None:
        """Take the open connection, the sink of events, the group's time and randomness."""
        self.now = now
        self.random = random
        #: Whose status the group changes; one that is rolled back may stay, which is harmless.
        self.changed: list[tuple[str, str]] = []
        self._connection = connection
        self._dialect = dialect
        self._sink = sink
        self._undo: list[Callable[[], None]] = []

    def execute(self, statement: ClauseElement, parameters: Parameters = _NO_PARAMETERS) -> int:
        """Run a statement that changes rows and give their number.

        Statements that run often are module constants with ``bindparam``s: each object is
        compiled once. Raises StorageFullError, UnavailableError, the driver's IntegrityError.
        """
        prepared = compiled(statement, tuple(parameters), self._dialect)
        return self.run_sql(prepared.sql, prepared.bind(parameters), _row_count)

    def one(self, statement: ClauseElement, parameters: Parameters = _NO_PARAMETERS) -> Row | None:
        """Give the first row as a named tuple, or None. Errors as ``execute``."""
        prepared = compiled(statement, tuple(parameters), self._dialect)
        row = self.run_sql(prepared.sql, prepared.bind(parameters), _first_row)
        return None if row is None else prepared.row(*row)

    def all(self, statement: ClauseElement, parameters: Parameters = _NO_PARAMETERS) -> list[Row]:
        """Give all rows as named tuples; bound the statement. Errors as ``execute``."""
        prepared = compiled(statement, tuple(parameters), self._dialect)
        rows = self.run_sql(prepared.sql, prepared.bind(parameters), _every_row)
        return [prepared.row(*row) for row in rows]

    def emit(
        self, type_name: str, body: Mapping[str, Any], *, actor: str, peer: str | None = None
    ) -> str:
        """Tell the other side: the only door to the outbox (design.md §1). Gives the event's id.

        ``peer`` is the gateway's name at central; None there means central's own books.
        Raises BadRequestError when the body is not what the catalogue says.
        """
        event = events.create(type_name, body, actor=actor, now=self.now, random=self.random)
        self._sink.append(self, event, peer)
        return event.id

    def undo(self, callback: Callable[[], None]) -> None:
        """Call back if what this unit did is rolled back: memory follows the database."""
        self._undo.append(callback)

    @contextlib.contextmanager
    def savepoint(self) -> Generator[None]:
        """Undo the statements of the block, and what they did to memory, if it raises."""
        mark = len(self._undo)
        self.run_sql("SAVEPOINT block")
        try:
            yield
        except Exception:
            self.run_sql("ROLLBACK TO block")
            self.run_sql("RELEASE block")
            self.revert(mark)
            raise
        self.run_sql("RELEASE block")

    def start_over(self) -> None:
        """Take back all that was done, and begin again."""
        self.run_sql("ROLLBACK")
        self.revert()
        self.run_sql(self._dialect.begin)

    def revert(self, mark: int = 0) -> None:
        """Run the undo callbacks registered since ``mark``, newest first."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def run_sql(
        self, sql: str, values: Sequence[Any] = (), take: Callable[[Cursor], Any] = _row_count
    ) -> Any:
        """Run SQL text and take its result; then make sure that the transaction still exists.

        Disk full or an interrupt can drop the *whole* transaction, and the next statement would
        be committed on its own (design.md §7).
        """
        try:
            return take(self._connection.execute(sql, values))
        except Exception as error:
            if not self._connection.in_transaction:
                raise _TransactionLostError from error
            if (translated := _translated(error)) is not None:
                raise translated from error
            raise


def is_full(error: BaseException | None) -> bool:
    """Tell if the database could not grow."""
    return _primary_code(error) == sqlite3.SQLITE_FULL or _state(error) == _DISK_FULL_STATE


def storage_full() -> StorageFullError:
    """Make the one error that says that the disk is full."""
    return StorageFullError(
        "The disk is full; issuing is stopped so that nothing is lost. Revoking still works.",
        remedy="Free disk space on this box; issuing goes on by itself.",
        retry_after_s=30,
    )


def _translated(error: Exception) -> UnavailableError | None:
    if is_full(error):
        return storage_full()
    if _primary_code(error) in _TRANSIENT_CODES or _state(error).startswith(_TRANSIENT_STATES):
        return UnavailableError("The database could not be written.", retry_after_s=1)
    return None


def _primary_code(error: BaseException | None) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _state(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""


Result = TypeVar("Result")
#: A unit of work: synchronous, statements only, safe to run again.
Unit = Callable[[Transaction], Result]
