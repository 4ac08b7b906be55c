"""A backup file: one consistent copy of the database, sealed, and read back before it counts.

The copy is made online by SQLite itself. Its data key is wrapped by the keyring, and the keyring's
document travels in the header: the box slot opens it here, the recovery secret anywhere
(design.md §7). The first chunk is the manifest, which names the events that the copy covers; the
cursors themselves are in the copy. All functions block: run them in a thread.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shared.kernel import cbor
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from shared.kernel.ids import Random
from shared.pki import sealed
from shared.pki.keywrap import SECRET_BYTES, Keyring
from shared.store.migrations import HEAD
from shared.store.reserve import free_bytes_beside
from shared.system.files import sync_directory

SUFFIX = ".tmabackup"
_FORMAT = 1
_WRAPPED_AS = "backup"
_PRIVATE = 0o600
_PAGES_PER_STEP = 256
_MANIFEST_BYTES_MAX = sealed.CHUNK_BYTES
_GATEWAYS_NAMED_MAX = 4_000
_ROOM_BYTES = 64 * 1024 * 1024
_VECTOR = (
    "SELECT peer, segment, lane, applied, archived, hash FROM cursor WHERE direction = 'in' "
    "ORDER BY peer, segment, lane"
)

#: Takes the name of the step, and how many bytes of how many are done.
Progress = Callable[[str, int, int], None]


class Covered(NamedTuple):
    """Up to where the events of one lane are in the copy."""

    peer: str
    segment: str
    lane: int
    applied: int
    archived: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What stands on a backup in clear. ``key`` is the data key, wrapped by ``keyring``."""

    backup_id: str
    product: str  # central, gateway
    name: str
    software: str
    schema: str
    created_at_us: int
    keyring: bytes
    key: bytes

    def encode(self) -> bytes:
        """Write it for the file."""
        return cbor.encode({"format": _FORMAT, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """Read what ``encode`` wrote; raises BadRequestError."""
        value = cbor.decode(data, limit=sealed.HEADER_BYTES_MAX)
        try:
            if value.pop("format") != _FORMAT:
                raise BadRequestError(
                    "The backup was written by a newer version.",
                    remedy="Install that version, then restore.",
                )
            return cls(**value)
        except (AttributeError, KeyError, TypeError) as error:
            raise BadRequestError("The header of the backup cannot be read.") from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which events a copy covers: how many of how many lanes, per peer, and the vector's hash."""

    events: int
    lanes: int
    peers: dict[str, int]  # events of each; bounded, ``vector`` binds all
    vector: bytes  # SHA-256 over all (peer, segment, lane, applied, archived, hash)
    database_bytes: int

    @classmethod
    def of(cls, database: Path) -> "Manifest":
        """Read it from a copy."""
        digest = hashlib.sha256()
        peers: dict[str, int] = {}
        lanes = 0
        for covered in vector(database):
            digest.update(cbor.encode(list(covered)))
            peers[covered.peer] = peers.get(covered.peer, 0) + covered.applied
            lanes += 1
        named = dict(list(peers.items())[:_GATEWAYS_NAMED_MAX])
        size = database.stat().st_size
        return cls(sum(peers.values()), lanes, named, digest.digest(), size)

    def encode(self) -> bytes:
        """Write it as the first chunk."""
        return cbor.encode(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Read the first chunk; raises IntegrityError."""
        try:
            return cls(**cbor.decode(data, limit=_MANIFEST_BYTES_MAX))
        except (BadRequestError, TypeError) as error:
            raise IntegrityError("The manifest of the backup cannot be read.") from error


def vector(database: Path) -> Iterator[Covered]:
    """Give the cursors of a copy: which events of which lanes it contains."""
    with closing(_read_only(database, immutable=True)) as connection:
        yield from map(Covered._make, connection.execute(_VECTOR))


def snapshot(source: Path, copy: Path, progress: Progress) -> Manifest:
    """Copy the database as of one moment while others write on; gives what it covers.

    The copy holds one read transaction from first to last page, so it never starts over.
    Raises UnavailableError when there is no room for it.
    """
    _require_room(copy, source.stat().st_size)
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
    with closing(_read_only(source)) as reader, closing(sqlite3.connect(copy)) as writer:
        [page_bytes] = reader.execute("PRAGMA page_size").fetchone()
        reader.execute("BEGIN")
        reader.execute("SELECT name FROM fact LIMIT 1").fetchone()

        def step(_status: int, remaining: int, total: int) -> None:
            progress("copied", (total - remaining) * page_bytes, total * page_bytes)

        reader.backup(writer, pages=_PAGES_PER_STEP, progress=step)
    return Manifest.of(copy)


def write(
    target: Path,
    header: Header,
    manifest: Manifest,
    copy: Path,
    *,
    key: bytes,
    progress: Progress,
) -> int:
    """Seal a copy into a file that is there whole and durable, or not at all; gives its size.

    Raises ConflictError when the file exists, UnavailableError when there is no room.
    """
    if target.exists():
        raise ConflictError(f"The file {target} exists already; it is never overwritten.")
    draft = target.with_name(f".{target.name}.part")
    try:
        _require_room(target, manifest.database_bytes)
        chunks = _chunks(manifest, copy, progress)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            for piece in sealed.seal(header.encode(), chunks, key):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise UnavailableError(
            f"The backup could not be written to {target.parent}: {error.strerror}.",
            remedy="Check that the directory exists, can be written and has room.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return target.stat().st_size


def header_of(path: Path) -> Header:
    """Read what stands on a backup. Raises NotFoundError, BadRequestError, IntegrityError."""
    try:
        with path.open("rb") as file:
            return Header.decode(sealed.read_header(file.read))
    except OSError as error:
        raise NotFoundError(f"The backup {path} cannot be read: {error.strerror}.") from error


def data_key(header: Header, keyring: Keyring) -> bytes:
    """Unwrap the data key. Raises IntegrityError."""
    return keyring.unwrap(header.key, _WRAPPED_AS, header.backup_id, 1)


def new_key(keyring: Keyring, backup_id: str, random: Random) -> tuple[bytes, bytes]:
    """Make the data key of one backup; gives it and its wrapped form."""
    key = random(SECRET_BYTES)
    return key, keyring.wrap(key, _WRAPPED_AS, backup_id, 1)


def read_back(path: Path, key: bytes, copy: Path, progress: Progress) -> Manifest:
    """Decrypt a backup into ``copy`` and prove it: whole, intact, covering what it says.

    Raises IntegrityError when it is not, NotFoundError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            chunks = sealed.unseal(file.read, sealed.read_header(file.read), key)
            manifest = Manifest.decode(next(chunks))
            _require_room(copy, manifest.database_bytes)
            _put(copy, chunks, manifest.database_bytes, progress)
    except OSError as error:
        raise NotFoundError(f"The backup {path} cannot be read: {error.strerror}.") from error
    try:
        if Manifest.of(copy) != manifest or not _intact(copy):
            raise IntegrityError("The backup does not contain what it says.")
    except sqlite3.Error as error:
        raise IntegrityError("The backup does not contain a whole database.") from error
    return manifest


def make_header(
    *, backup_id: str, product: str, name: str, software: str, created_at_us: int, **keys: Any
) -> Header:
    """Describe a new backup of this version's schema; ``keys`` are ``keyring`` and ``key``."""
    return Header(backup_id, product, name, software, HEAD, created_at_us, **keys)


def _chunks(manifest: Manifest, copy: Path, progress: Progress) -> Iterator[bytes]:
    yield manifest.encode()
    done = 0
    with copy.open("rb") as file:
        while chunk := file.read(sealed.CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            progress("sealed", done, manifest.database_bytes)


def _put(copy: Path, chunks: Iterable[bytes], total: int, progress: Progress) -> None:
    copy.unlink(missing_ok=True)
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    done = 0
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            progress("read back", done, total)
        file.flush()
        os.fsync(file.fileno())


def _intact(copy: Path) -> bool:
    with closing(_read_only(copy, immutable=True)) as connection:
        return connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]


def _read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open; a copy is immutable, and SQLite leaves no files of its own beside it."""
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)


def _require_room(path: Path, size: int) -> None:
    if free_bytes_beside(path) < size + _ROOM_BYTES:
        raise UnavailableError(
            f"There is no room for {size // 1_000_000 + 1} MB in {path.parent}.",
            remedy="Free disk space, or name another directory for backups.",
        )
