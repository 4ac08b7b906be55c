"""PostgreSQL in the place of SQLite, for central: the same tables, statements, writer and readers.

The writer stays as it is: in its thread, on one connection, committing in groups. That connection
runs asyncpg in an event loop of its own and behaves like one of ``sqlite3``. Who writes holds an
advisory lock until the commit, so that a command beside the server is as safe as with SQLite.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import ClauseElement, text, types
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import asyncpg as sqlalchemy_asyncpg
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler, PGTypeCompiler
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex

from shared.kernel.clock import Clock
from shared.kernel.errors import IncompatibleError, UnavailableError
from shared.kernel.ids import Random
from shared.store import database
from shared.store.database import Database
from shared.store.statements import Dialect, Parameters, Row
from shared.store.transaction import EventSink
from shared.store.upgrade import missing
from shared.store.writer import Writer

_VERSION_MIN = 14
_CONNECT_S = 10
#: Longer than any statement of a unit takes; after it the connection counts as lost.
_STATEMENT_S = 60
_LOCK_WAIT_MS = 5_000
_PREPARED_MAX = 512
#: Advisory locks belong to one database; the number is ours alone there.
_WRITER_LOCK = 0x54_4D_41
_LOCK = f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})"
_NOT_STATEMENTS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
_URL = "postgresql+tma://"  # our dialect; the address is the server's


class _Types(PGTypeCompiler):
    """Numbers are as wide as SQLite's, text is compared byte by byte as there."""

    def visit_INTEGER(self, type_: Any, **_options: Any) -> str:  # noqa: N802 - SQLAlchemy's name
        del type_
        return "BIGINT"


class _Tables(PGDDLCompiler):
    """Makes of what the tables and migrations say for SQLite what it means here."""

    def get_column_specification(self, column: Any, **options: Any) -> str:
        specification = super().get_column_specification(column, **options)
        return specification.replace(" TEXT", ' TEXT COLLATE "C"', 1)

    def visit_create_index(self, create: CreateIndex, **options: Any) -> str:
        dialects: Any = create.element.dialect_options
        dialects["postgresql"]["where"] = dialects["sqlite"]["where"]
        sqlalchemy: Any = super()
        return sqlalchemy.visit_create_index(create, **options)


class EdgeDialect(sqlalchemy_asyncpg.PGDialect_asyncpg):
    """SQLAlchemy's dialect of asyncpg with our types."""

    supports_statement_cache = True
    type_compiler_cls = _Types
    ddl_compiler = _Tables
    colspecs: ClassVar = {
        **sqlalchemy_asyncpg.PGDialect_asyncpg.colspecs,
        types.Integer: sqlalchemy_asyncpg.AsyncpgBigInteger,
    }


registry.register("postgresql.tma", __name__, EdgeDialect.__name__)
POSTGRESQL = Dialect(EdgeDialect(), f"BEGIN; {_LOCK}", on_loop=False, fold="")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the database is, and how to log in."""

    url: str
    #: Asked at each connection; None: a socket's peer, ``~/.pgpass`` or a client certificate.
    password: Callable[[], str] | None = field(default=None, repr=False)

    async def connect(self, **settings: str) -> Any:
        """Connect with settings of the session. Raises UnavailableError."""
        try:
            driver: Any = asyncpg  # it says nothing of its types
            connection = await driver.connect(
                self.url,
                password=self.password,
                timeout=_CONNECT_S,
                command_timeout=_STATEMENT_S,
                server_settings={"application_name": "tma-central", **settings},
            )
            # All columns are whole numbers, and so are their sums, which are *numeric* here.
            await connection.set_type_codec(
                "numeric", schema="pg_catalog", encoder=str, decoder=int, format="text"
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise UnavailableError(
                f"PostgreSQL cannot be reached: {str(error) or type(error).__name__}.",
                remedy="Check that it runs, and `database.url` and the password.",
                retry_after_s=5,
            ) from error
        return connection


async def opened(
    server: Server, *, sink: EventSink, clock: Clock, random: Random = os.urandom
) -> Database:
    """Migrate if needed and start the writer; an empty database becomes a new one.

    Raises IncompatibleError (written by a newer version, or a server that is too old),
    UnavailableError (not reached, or the login is refused).
    """
    await upgrade(server)
    writer = Writer(
        lambda: _Connection(server),
        dialect=POSTGRESQL,
        sink=sink,
        clock=clock,
        random=random,
        relieve=lambda: False,
    )
    readers = create_async_engine(
        _URL,
        async_creator=lambda: server.connect(
            default_transaction_read_only="on",
            statement_timeout=str(int(database.READ_S_MAX * 1_000)),
        ),
        isolation_level="AUTOCOMMIT",
        **database.POOL,
    )
    return Database(writer, readers, _Lookups(readers), _ServerSpace(), _leave_to_server)


class _Connection:
    """What the writer's thread works with: asyncpg behind the calls of ``sqlite3``."""

    def __init__(self, server: Server) -> None:
        self._loop = asyncio.new_event_loop()
        self._prepared: dict[str, Any] = {}
        try:
            self._real = self._run(self._connected(server))
        except BaseException:
            self._loop.close()
            raise

    @property
    def in_transaction(self) -> bool:
        return not self._real.is_closed() and self._real.is_in_transaction()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> "_Cursor":
        try:
            if sql.startswith(_NOT_STATEMENTS):
                return self._control(sql)
            return self._run(self._fetch(sql, parameters))
        except (asyncpg.PostgresError, asyncpg.DataError):
            raise
        except Exception:
            self._real.terminate()  # what the server still does is not known
            raise

    def close(self) -> None:
        with suppress(Exception):
            self._run(self._real.close(timeout=_CONNECT_S))
        self._loop.close()

    async def _connected(self, server: Server) -> Any:
        real = await server.connect(lock_timeout=str(_LOCK_WAIT_MS))
        if await real.fetchval("SHOW synchronous_commit") == "off":
            await real.execute("SET synchronous_commit = on")
        return real

    def _control(self, sql: str) -> "_Cursor":
        status: str = self._run(self._real.execute(sql))
        if sql == "COMMIT" and status != sql:
            # It rolls back, and calls that a success, if a statement failed before.
            raise ConnectionError("The transaction was rolled back.")
        return _Cursor([], 0)

    async def _fetch(self, sql: str, parameters: Sequence[Any]) -> "_Cursor":
        statement = self._prepared.get(sql)
        if statement is None:
            if len(self._prepared) >= _PREPARED_MAX:
                self._prepared.clear()
            statement = self._prepared[sql] = await self._real.prepare(sql)
        rows = await statement.fetch(*parameters)
        count = statement.get_statusmsg().rpartition(" ")[2]
        return _Cursor(rows, int(count) if count.isdigit() else 0)

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)


class _Cursor:
    def __init__(self, rows: list[Any], count: int) -> None:
        self.rowcount = count
        self._rows = rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        return self._rows


class _Lookups:
    """Finds single rows by the readers' pool: the server is another process, never *at once*."""

    quick = False

    def __init__(self, readers: AsyncEngine) -> None:
        self._readers = readers

    def now(self, statement: ClauseElement, parameters: Parameters) -> Row | None:
        del statement, parameters
        raise UnavailableError("The database cannot be read at once.", retry_after_s=1)

    async def one(self, statement: Any, parameters: Parameters) -> Row | None:
        rows = await database.rows_of(self._readers, _leave_to_server, statement, parameters)
        return next(iter(rows), None)

    async def close(self) -> None:
        """Nothing to end: the pool is the database's."""


class _ServerSpace:
    """The server's disk is watched by who runs it; central hears of it when a write fails."""

    def require_room(self) -> None:
        """Let issuing pass."""

    def release(self) -> bool:
        return False


@asynccontextmanager
async def _leave_to_server(_connection: AsyncConnection) -> AsyncGenerator[None]:
    """Leave it to ``statement_timeout``."""
    yield


async def upgrade(server: Server) -> None:
    """Do what ``shared.store.upgrade.upgrade`` does to a file."""
    engine = create_async_engine(_URL, async_creator=server.connect, poolclass=NullPool)
    async with engine.begin() as connection:
        version: Any = connection.dialect.server_version_info
        if version[0] < _VERSION_MIN:
            raise IncompatibleError(
                f"The server is PostgreSQL {version[0]}; {_VERSION_MIN} or newer is needed.",
                remedy="Upgrade the server.",
            )
        await connection.execute(text(_LOCK))
        migrate = missing(await _revision(connection))
        if migrate is not None:
            await connection.run_sync(migrate)
    await engine.dispose()


async def _revision(connection: AsyncConnection) -> str | None:
    found = await connection.execute(text("SELECT to_regclass('alembic_version')"))
    if found.scalar() is None:
        return None
    return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
