"""A connection that fails on command, the way SQLite fails."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.store import writer


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"injected {code}")
    error.sqlite_errorcode = code
    return error


class FaultyConnection:
    """Passes statements on; ``plan`` may raise before one, after dropping the transaction or not.

    ``plan(sql)`` gives None, or (error, whether the whole transaction is rolled back first).
    """

    def __init__(self, path: Path, plan: Callable[[str], tuple[Exception, bool] | None]) -> None:
        self._real = writer.connect(path)
        self._plan = plan

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        fault = self._plan(sql)
        if fault is not None:
            error, drops = fault
            if drops and self._real.in_transaction:
                self._real.execute("ROLLBACK")
            raise error
        return self._real.execute(sql, parameters)

    def close(self) -> None:
        self._real.close()


class Faults:
    """Arms a fault: ``at`` is a part of the SQL text of the statements that it hits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._armed: tuple[str, Exception, bool] | None = None
        self._skip = self._times = 0
        self.statements: list[str] = []
        self.connections = 0

    def connect(self) -> FaultyConnection:
        self.connections += 1
        return FaultyConnection(self._path, self._plan)

    def arm(self, at: str, code: int, *, drops: bool, skip: int = 0, times: int = 1) -> None:
        """Let ``skip`` such statements pass, then fail ``times``."""
        self._armed = (at, sqlite_error(code), drops)
        self._skip, self._times = skip, times

    def _plan(self, sql: str) -> tuple[Exception, bool] | None:
        self.statements.append(sql)
        if self._armed is None or self._armed[0] not in sql or not self._times:
            return None
        if self._skip:
            self._skip -= 1
            return None
        self._times -= 1
        return self._armed[1:]
