"""What keeps processes apart and lets them find each other: locks, sockets, peers."""

import fcntl
import os
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shared.kernel.errors import ConflictError

_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_OWNER_ONLY = 0o177
_LONGEST_ADDRESS = 107  # bytes of sun_path before its closing zero, unix(7)


def hold_lock(path: Path) -> int:
    """Lock a file until this process ends, also by SIGKILL; gives the descriptor to keep.

    Raises ConflictError when another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"Another process already holds {path}.",
            remedy="Stop the other process, or give this one a directory of its own.",
        ) from error
    return descriptor


def listen_private(path: Path, *, owner_uid: int) -> socket.socket:
    """Listen on a unix socket of mode 0600, replacing what a dead process left.

    The caller holds a lock that makes it the only server. ``owner_uid`` is the user that can
    connect beside root; another than the process's own takes root.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    previous = os.umask(_OWNER_ONLY)
    try:
        with address_of(path) as address:
            listener.bind(address)
    finally:
        os.umask(previous)
    os.chown(path, owner_uid, -1)
    listener.listen(128)
    listener.settimeout(0)
    return listener


@contextmanager
def address_of(path: Path) -> Generator[str]:
    """Give the address to bind or connect a unix socket at ``path``, however deep that lies.

    The kernel takes 107 bytes; a longer path is reached through its open directory, so that the
    address is good only while the context is open. Raises OSError when there is no directory.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def peer_uid(connection: socket.socket) -> int:
    """Ask the kernel which user is at the other end of a unix socket (SO_PEERCRED)."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size
    )
    return _PEER_CREDENTIALS.unpack(credentials)[1]
