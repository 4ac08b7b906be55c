"""SQLAlchemy Core statements compiled once, for the writer's plain connection.

Compiling costs far more than running: a statement that is a module constant and takes its values
as parameters is compiled once per process. Columns are INTEGER, TEXT and BLOB only, so values
pass without processors.
"""

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

#: A row: a named tuple with the statement's columns.
Row = Any
Parameters = Mapping[str, Any]

_STATEMENTS_MAX = 512


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """How a kind of database is spoken to; upserts are written with PostgreSQL's ``insert``."""

    sql: DefaultDialect
    begin: str  # begins a transaction while no other writer is in one
    on_loop: bool  # whether a quick commit may run on the event loop
    fold: str  # gives back the space of the write-ahead log, its row says 0 if it did; '': nothing


SQLITE = Dialect(
    SQLiteDialect_pysqlite(paramstyle="qmark"),
    "BEGIN IMMEDIATE",
    on_loop=True,
    fold="PRAGMA wal_checkpoint(TRUNCATE)",
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL text, the order of its parameters, the values built into it, and its rows' type."""

    sql: str
    names: tuple[str, ...]
    built_in: Mapping[str, Any]
    row: type[tuple[Any, ...]]

    def bind(self, parameters: Parameters) -> list[Any]:
        """Order the values; raises KeyError when a parameter is missing."""
        values = {**self.built_in, **parameters} if self.built_in else parameters
        return [values[name] for name in self.names]


@lru_cache(maxsize=_STATEMENTS_MAX)
def compiled(
    statement: ClauseElement, parameters: tuple[str, ...], dialect: Dialect = SQLITE
) -> Compiled:
    """Compile once per statement object, set of parameter names and dialect.

    ``in_`` of a list works in statements without parameters only: its SQL depends on its values.
    """
    result: Any = statement.compile(
        dialect=dialect.sql,
        column_keys=list(parameters) or None,
        compile_kwargs={"render_postcompile": not parameters},
    )
    columns: Mapping[str, Any] = getattr(statement, "exported_columns", {})
    values: dict[str, Any] = result.params
    return Compiled(
        sql=str(result),
        names=tuple(result.positiontup or ()),
        built_in={name: value for name, value in values.items() if name not in parameters},
        row=_row_type(tuple(columns.keys())),
    )


@lru_cache(maxsize=_STATEMENTS_MAX)
def _row_type(names: tuple[str, ...]) -> type[tuple[Any, ...]]:
    # The names come from the statement, so there is no class to write down.
    return namedtuple("Row", names, rename=True)  # noqa: PYI024  # pyright: ignore[reportUntypedNamedTuple]
