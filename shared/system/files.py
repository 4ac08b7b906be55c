"""Files that hold secrets or state: private, whole, and durable before a call returns."""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StorageFullError,
)

_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file of mode 0600 that is there whole or not at all, even after a power cut.

    Raises ConflictError when it exists and ``replace`` is not set, StorageFullError when there is
    no room for it (an earlier one is as it was).
    """
    with _full_is_told(path):
        _write_private(path, data, replace=replace)


def _write_private(path: Path, data: bytes, *, replace: bool) -> None:
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)  # unlike a rename it fails when the name is taken
    except FileExistsError as error:
        raise ConflictError(f"The file {path} exists already; it is never overwritten.") from error
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def _full_is_told(path: Path) -> Generator[None]:
    """Make of a full disk or a spent quota what callers can wait out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"There is no room for the file {path}.",
            remedy=f"Free space on the disk of {path.parent}.",
            retry_after_s=30,
        ) from error


def read_private(path: Path, *, limit: int) -> bytes:
    """Read a file that nobody but this process's user (and root) can read.

    Raises NotFoundError, ForbiddenError when others could read it, BadRequestError when it is no
    regular file or longer than ``limit`` bytes.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"The file {path} does not exist.") from error
    except OSError as error:
        raise ForbiddenError(f"The file {path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode) or len(data) > limit:
        raise BadRequestError(f"{path} is not a regular file of at most {limit} bytes.")
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _FOR_OTHERS:
        raise ForbiddenError(
            f"The file {path} holds a secret, but other users can read it.",
            remedy=f"Run: chmod 600 {path} (and see that the service's user owns it).",
        )
    return data


def require_trusted(path: Path) -> None:
    """Refuse a file that someone other than root or this process's user can change."""
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITABLE_BY_OTHERS:
        raise ForbiddenError(
            f"The file {path} rules over keys, but other users can change it.",
            remedy=f"Run: chown root {path} && chmod go-w {path}.",
        )


def private_directory(path: Path) -> Path:
    """Make sure that the directory exists with mode 0700; raises ForbiddenError if it is open."""
    path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & _FOR_OTHERS:
        raise ForbiddenError(
            f"Other users can enter the directory {path}.", remedy=f"Run: chmod 700 {path}."
        )
    return path


def remove(path: Path) -> None:
    """Remove a file durably; one that is not there is as good."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names that were created in or removed from a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
