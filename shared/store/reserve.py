"""The disk reserve: when issuing must stop for want of space, revoking must not (design.md §5)."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shared.store.transaction import storage_full

_MEBIBYTE = 1024 * 1024
FLOOR_BYTES = 64 * _MEBIBYTE
RESERVE_BYTES = 16 * _MEBIBYTE


class Reserve(Protocol):
    """What stops issuing before the disk is full."""

    def require_room(self) -> None:
        """Let issuing pass, or raise StorageFullError."""
        ...

    def release(self) -> bool:
        """Give space back to who must go on; True if that freed something."""
        ...


class StorageReserve:
    """A preallocated file beside the database, given up when space runs out.

    While less than ``floor`` bytes are free, issuing is refused and the file's space belongs to
    what must go on: revocations, voids, CRLs. Once there is room again, the file comes back.
    """

    def __init__(
        self,
        path: Path,
        *,
        free_bytes: Callable[[], int],
        floor: int = FLOOR_BYTES,
        size: int = RESERVE_BYTES,
    ) -> None:
        """Take the file's place, what measures free space, the floor and the file's size."""
        self._path = path
        self._free_bytes = free_bytes
        self._floor = floor
        self._size = size
        self._lock = threading.Lock()  # the writer's thread releases, the loop asks
        self._held = path.exists() and path.stat().st_size == size

    def require_room(self) -> None:
        """Let issuing pass, or raise StorageFullError and give up the reserve."""
        with self._lock:
            missing = 0 if self._held else self._size
            if self._free_bytes() - missing >= self._floor and (self._held or self._reserve()):
                return
        self.release()
        raise storage_full()

    def release(self) -> bool:
        """Give the space back to the file system; True if that freed something."""
        with self._lock:
            freed, self._held = self._held, False
            self._path.unlink(missing_ok=True)
            return freed

    def _reserve(self) -> bool:
        with contextlib.suppress(OSError):
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
            self._held = True
        return self._held


def free_bytes_beside(path: Path) -> int:
    """Measure what an unprivileged process may still write to the file system of ``path``."""
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize
