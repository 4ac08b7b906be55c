"""A recording SQLite VFS: what was written and synced when, and what a power cut would leave.

SIGKILL keeps the page cache and so cannot prove ``synchronous=FULL``. Here each write, truncation
and sync of the writer's connection is recorded; a power cut at any moment keeps what was synced
before it, and of the rest nothing, everything or any part.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import apsw

from shared.store import writer

_SECTOR = 512


class Operation(NamedTuple):
    """One thing that happened; ``kind``: write, truncate, delete, sync, or answer."""

    kind: str
    file: str = ""
    offset: int = 0
    data: bytes = b""
    answer: Any = None


class Recorder(apsw.VFS):
    """The machine's VFS, with a log. One recorder per test."""

    def __init__(self, name: str) -> None:
        self.log: list[Operation] = []
        self.vfs_name = name
        super().__init__(name, "")

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's names
        return _File(self.vfs_name, name, flags, self.log)

    def xDelete(self, filename, syncdir):  # noqa: N802
        self.log.append(Operation("delete", Path(filename).name))
        super().xDelete(filename, syncdir)

    def answered(self, answer: Any) -> None:
        """Note that a client has an answer."""
        self.log.append(Operation("answer", answer=answer))


class _File(apsw.VFSFile):
    def __init__(self, vfs: str, name: Any, flags: list[int], log: list[Operation]) -> None:
        self._log = log
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        self._log.append(Operation("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize):  # noqa: N802
        self._log.append(Operation("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags):  # noqa: N802
        super().xSync(flags)
        self._log.append(Operation("sync", self._name))


class RecordedConnection:
    """apsw behind the writer's ``Connection`` port, with stdlib's errors."""

    def __init__(self, path: Path, vfs: str, pragmas: Sequence[str]) -> None:
        self._real = apsw.Connection(str(path), vfs=vfs)
        # A VFS in Python has no shared memory; an exclusive connection needs none for WAL.
        self._real.execute("PRAGMA locking_mode=EXCLUSIVE")
        writer.configure(self)
        for pragma in pragmas:
            self._real.execute(f"PRAGMA {pragma}")

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> "_Cursor":
        try:
            return _Cursor(self._real, self._real.execute(sql, parameters))
        except apsw.Error as error:
            translated = sqlite3.OperationalError(str(error))
            translated.sqlite_errorcode = error.extendedresult
            raise translated from error

    def close(self) -> None:
        self._real.close()


class _Cursor:
    def __init__(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self.rowcount = connection.changes()

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()


class Remains(NamedTuple):
    """What one power cut leaves: the files, and what clients had been told by then."""

    at: int
    files: dict[str, bytes]
    answers: list[Any]


def power_cuts(
    before: dict[str, bytes], log: Sequence[Operation], random: Random
) -> Iterator[Remains]:
    """Cut the power at each sync and each answer, three times: see the module's docstring."""
    synced: dict[str, bytearray] = {name: bytearray(data) for name, data in before.items()}
    loose: list[Operation] = []
    answers: list[Any] = []
    for at, operation in enumerate(log):
        if operation.kind in ("sync", "answer"):
            for kept in (lambda _: False, lambda _: True, lambda _: random.random() < 0.5):
                yield Remains(at, _settled(synced, loose, kept, random), list(answers))
        if operation.kind == "answer":
            answers.append(operation.answer)
            yield Remains(at, _settled(synced, loose, lambda _: False, random), list(answers))
        elif operation.kind == "sync":
            for write in loose:
                if write.file == operation.file:
                    _apply(synced, write)
            loose = [write for write in loose if write.file != operation.file]
        else:
            loose.append(operation)


def _settled(synced, loose: Sequence[Operation], kept, random: Random) -> dict[str, bytes]:
    files = {name: bytearray(data) for name, data in synced.items()}
    for write in loose:
        if kept(write):
            _apply(files, write)
        elif write.kind == "write" and random.random() < 0.2:  # torn: some sectors made it
            length = random.randrange(0, len(write.data) + 1, _SECTOR)
            _apply(files, write._replace(data=write.data[:length]))
    return {name: bytes(data) for name, data in files.items()}


def _apply(files: dict[str, bytearray], operation: Operation) -> None:
    content = files.setdefault(operation.file, bytearray())
    match operation.kind:
        case "write":
            end = operation.offset + len(operation.data)
            content.extend(bytes(max(0, end - len(content))))
            content[operation.offset : end] = operation.data
        case "truncate":
            del content[operation.offset :]
        case "delete":
            del files[operation.file]
