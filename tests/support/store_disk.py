"""Small disks: a real one where we may mount, and one that only behaves so where we may not."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.store_faults import FaultyConnection, sqlite_error

_COMMIT_BYTES_MAX = 256 * 1024


class Disk:
    """A folder with a file system of ``size`` bytes of its own."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def options(self, path: Path) -> dict[str, Any]:
        """Give what a database on this disk is opened with."""
        del path
        return {}

    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def fill(self, name: str, leave: int) -> Path:
        """Write a foreign file that leaves so many bytes free."""
        foreign = self.folder / name
        with foreign.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - leave)
        return foreign


class PretendedDisk(Disk):
    """Counts what is in the folder, and lets a commit fail that would not fit."""

    def free(self) -> int:
        free = self.size
        for file in self.folder.iterdir():
            with suppress(FileNotFoundError):  # SQLite removes some while we look
                free -= file.stat().st_size
        return free

    def options(self, path: Path) -> dict[str, Any]:
        return {"free_bytes": self.free, "connect": lambda: FaultyConnection(path, self._plan)}

    def _plan(self, sql: str) -> tuple[Exception, bool] | None:
        full = sql == "COMMIT" and self.free() < _COMMIT_BYTES_MAX
        return (sqlite_error(sqlite3.SQLITE_FULL), True) if full else None


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Disk]:
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        check=True,
        capture_output=True,
    )
    try:
        yield Disk(folder, size)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def pretended(folder: Path, size: int) -> Iterator[Disk]:
    folder.mkdir()
    yield PretendedDisk(folder, size)


def may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
