"""Making, keeping and rotating backups of a running database, and what the peers may rely on.

A backup counts only after it was read back. Those in rotation are retained by number; the oldest
of them says how far each lane is *archived*: whichever retained backup is put back, what it lacks
is still at the gateways (design.md §5).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError, TmaError
from shared.kernel.ids import Random, uuid7
from shared.pki.keywrap import Keyring
from shared.store import backup as files
from shared.store import cursors
from shared.store.backup import Covered, Header, Manifest, Progress
from shared.store.database import Database
from shared.store.schema import backup, backup_cursor, cursor
from shared.store.transaction import Transaction
from shared.sync.events import Lane
from shared.sync.ports import Cursor
from shared.system.settings import BackupSettings

HELD, MISSING, DAMAGED, DROPPED = "held", "missing", "damaged", "dropped"
_LISTED_MAX = 100
_LOOK_S = 60
_AGAIN_S = 900
_HOUR_US = 3600 * US_PER_SECOND

#: Marks that rose, by peer.
Archived = dict[str, dict[tuple[str, Lane], Cursor]]

_INSERT = insert(backup)
_COVER = insert(backup_cursor)
_IN_ROTATION = (
    select(backup.c.backup_id, backup.c.path, backup.c.bytes)
    .where(backup.c.state == HELD, backup.c.counts == 1)
    .order_by(backup.c.created_at.desc(), backup.c.backup_id.desc())
)
_SET_STATE = (
    update(backup)
    .where(backup.c.backup_id == bindparam("id"))
    .values(state=bindparam("new_state"), verified_at=bindparam("now"))
)
_UNCOVER = delete(backup_cursor).where(backup_cursor.c.backup_id == bindparam("id"))
_RISEN = (
    select(
        backup_cursor.c.peer,
        backup_cursor.c.segment,
        backup_cursor.c.lane,
        backup_cursor.c.applied.label("archived"),
        cursor.c.applied,
        cursor.c.hash,
    )
    .join(
        cursor,
        (cursor.c.peer == backup_cursor.c.peer)
        & (cursor.c.segment == backup_cursor.c.segment)
        & (cursor.c.lane == backup_cursor.c.lane),
    )
    .where(
        backup_cursor.c.backup_id == bindparam("id"),
        cursor.c.direction == "in",
        backup_cursor.c.applied > cursor.c.archived,
        backup_cursor.c.applied <= cursor.c.applied,
    )
)
_LISTED = select(backup).order_by(backup.c.created_at.desc()).limit(_LISTED_MAX)


@dataclass(frozen=True, slots=True)
class BackupRow:
    """One backup; times are UTC µs. ``events`` of ``lanes`` lanes of the peers are in it.

    ``counts``: it takes part in rotation and moves the archived watermark.
    """

    backup_id: str
    path: str
    state: str
    counts: bool
    bytes: int
    events: int
    lanes: int
    created_at_us: int
    verified_at_us: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a backup under way is doing: ``done`` of ``total`` bytes."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How backups are: the newest first, what runs, and why the last try failed ('' if not).

    ``overdue``: no held backup that counts is younger than the age that raises an alarm.
    """

    backups: list[BackupRow]
    running: Step | None
    failure: str
    overdue: bool

    def newest(self) -> BackupRow | None:
        """Give the newest one that counts and is held."""
        return next((row for row in self.backups if row.state == HELD and row.counts), None)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an administrator decides. ``directory`` None: only by hand."""

    directory: Path | None
    every_hours: int
    keep: int
    same_disk_counts: bool
    alarm_hours: int

    @classmethod
    def of(cls, settings: BackupSettings) -> "Rules":
        """Take what the configuration says."""
        return cls(
            settings.directory,
            settings.hours,
            settings.keep,
            settings.same_disk_counts,
            settings.alarm_hours,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose database it is, as the header of each backup says."""

    product: str
    name: str
    software: str
    database: Path | None  # None: it is no file


class Backups:
    """Backups of one database, one at a time."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        origin: Origin,
        rules: Rules,
        *,
        clock: Clock,
        random: Random,
        archived: Callable[[Archived], Awaitable[None]] | None = None,
    ) -> None:
        """Take what is backed up, and who is told which watermarks rose (None: nobody waits)."""
        self._database = database
        self._keyring = keyring
        self._origin = origin
        self.rules = rules
        self._clock = clock
        self._random = random
        self._archived = archived
        #: Called on the working thread with how far it is.
        self.observe: Progress = _silently
        self._running: Step | None = None
        self._failure = ""
        self._retry_at_ns = 0
        self._tasks: set[asyncio.Task[BackupRow]] = set()

    async def standing(self) -> Standing:
        """Tell how backups are."""
        running = self._running  # before the rows: one that ends meanwhile is in one or the other
        rows = [_row(one) for one in await self._database.read(_LISTED)]
        oldest_us = self._clock.now().utc_us - self.rules.alarm_hours * _HOUR_US
        young = any(
            row.created_at_us > oldest_us for row in rows if row.state == HELD and row.counts
        )
        return Standing(rows, running, self._failure, not young)

    def begin(self, target: Path | None) -> str:
        """Start a backup in the background; gives its id. Watch it by ``standing``.

        ``target`` None is the configured directory. Raises as ``make`` does for the target.
        """
        backup_id = self._prepare(target)
        task = asyncio.create_task(self._make(backup_id, self._place(target, backup_id)))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return backup_id

    async def make(self, target: Path | None) -> BackupRow:
        """Make a backup, read it back, and let it count; gives it once that is durable.

        A directory is given a new file, which takes part in rotation; a file stays outside.
        Raises BadRequestError (no target), NotFoundError (no such directory), ConflictError (a
        backup runs, or the file exists), UnavailableError (no room), IntegrityError (not read
        back as it was written: a failing disk).
        """
        backup_id = self._prepare(target)
        return await self._make(backup_id, self._place(target, backup_id))

    async def step(self) -> float:
        """Make the backup that is due; gives the seconds until the next look."""
        await self.look()
        if self.rules.directory is None or self._running is not None:
            return _LOOK_S
        now = self._clock.now()
        newest = (await self.standing()).newest()
        due_us = newest.created_at_us + self.rules.every_hours * _HOUR_US if newest else 0
        if now.utc_us < due_us or now.mono_ns < self._retry_at_ns:
            return _LOOK_S
        try:
            await self.make(None)
        except TmaError as error:
            self._failure = error.message
            self._retry_at_ns = now.mono_ns + _AGAIN_S * 10**9
            raise
        return _LOOK_S

    async def look(self) -> None:
        """Note which retained backups are gone: they can be put back no more, so count no more."""
        rows = await self._database.read(_IN_ROTATION)
        gone = await asyncio.to_thread(lambda: [row for row in rows if not _is_there(row)])
        for row in gone:
            await self._set_state(row.backup_id, MISSING)
        if gone:
            await self._tell(await self._database.writer.run(_archive))

    async def verify(self, path: Path) -> Manifest:
        """Read a backup back as a whole; one of ours that is damaged counts no more.

        Raises NotFoundError, BadRequestError (of another keyring or version), IntegrityError.
        """
        copy = self._copy(".verify")
        known = next((r for r in (await self.standing()).backups if r.path == str(path)), None)
        try:
            header = await asyncio.to_thread(files.header_of, path)
            key = files.data_key(header, self._keyring)
            manifest = await asyncio.to_thread(files.read_back, path, key, copy, _silently)
        except (TmaError, OSError) as error:
            if known is not None and known.state == HELD:
                lost = MISSING if isinstance(error, NotFoundError) else DAMAGED
                await self._set_state(known.backup_id, lost)
            raise
        finally:
            copy.unlink(missing_ok=True)
        if known is not None and known.state == HELD:
            await self._set_state(known.backup_id, HELD)
        return manifest

    async def end(self) -> None:
        """Wait for what runs: a thread cannot be cancelled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _prepare(self, target: Path | None) -> str:
        self._file()
        if self._running is not None:
            raise ConflictError("A backup is being made already.", remedy="Wait for it to end.")
        wanted = target or self.rules.directory
        if wanted is None:
            raise BadRequestError(
                "No directory for backups is configured.",
                remedy="Name a directory or a file, or set `backup.directory`.",
            )
        folder = wanted if target is None or wanted.is_dir() else wanted.parent
        if not folder.is_dir():
            raise NotFoundError(
                f"The directory {folder} does not exist.",
                remedy="Create it, or mount the disk that belongs there.",
            )
        self._running, self._failure = Step("copied", 0, 0), ""
        return uuid7(self._clock.now(), self._random)

    def _place(self, target: Path | None, backup_id: str) -> tuple[Path, bool]:
        """Name the file, and tell if it takes part in rotation and moves watermarks."""
        wanted = (target or self.rules.directory or Path()).absolute()
        if not wanted.is_dir():
            return wanted, False
        moment = self._clock.now().datetime.strftime("%Y%m%dT%H%M%SZ")
        name = f"{self._origin.product}-{self._origin.name}-{moment}-{backup_id[-6:]}"
        elsewhere = wanted.stat().st_dev != self._file().stat().st_dev
        return wanted / f"{name}{files.SUFFIX}", elsewhere or self.rules.same_disk_counts

    async def _make(self, backup_id: str, place: tuple[Path, bool]) -> BackupRow:
        path, counts = place
        created_at_us = self._clock.now().utc_us
        key, wrapped = files.new_key(self._keyring, backup_id, self._random)
        header = files.make_header(
            backup_id=backup_id,
            product=self._origin.product,
            name=self._origin.name,
            software=self._origin.software,
            created_at_us=created_at_us,
            keyring=self._keyring.document(),
            key=wrapped,
        )
        try:
            write = partial(self._write, path, header, key)
            manifest, size, covered = await asyncio.to_thread(write)
            row = {
                "backup_id": backup_id,
                "path": str(path),
                "state": HELD,
                "counts": int(counts),
                "bytes": size,
                "events": manifest.events,
                "lanes": manifest.lanes,
                "created_at": created_at_us,
                "verified_at": self._clock.now().utc_us,
            }
            await self._keep(row, covered if counts else [])
        finally:
            self._running = None
        return _row(list(row.values()))

    def _write(self, path: Path, header: Header, key: bytes) -> tuple[Manifest, int, list[Covered]]:
        """Copy, seal, and read back what was sealed (blocks)."""
        copy = self._copy(".copy")
        try:
            manifest = files.snapshot(self._file(), copy, self._note)
            size = files.write(path, header, manifest, copy, key=key, progress=self._note)
            copy.unlink()
            files.read_back(path, key, copy, self._note)
            return manifest, size, [one for one in files.vector(copy) if one.applied > one.archived]
        finally:
            copy.unlink(missing_ok=True)

    async def _keep(self, row: Mapping[str, Any], covered: list[Covered]) -> None:
        """Let a proven backup count, drop what rotation ends, and move the watermarks: one commit.

        The files of dropped ones go afterwards: a crash between leaves a file, never a promise.
        """

        def unit(tx: Transaction) -> tuple[list[str], Archived]:
            tx.execute(_INSERT, row)
            for one in covered:
                place = {"peer": one.peer, "segment": one.segment, "lane": one.lane}
                tx.execute(_COVER, {"backup_id": row["backup_id"], **place, "applied": one.applied})
            dropped = tx.all(_IN_ROTATION)[self.rules.keep :]
            for old in dropped:
                _put_state(tx, old.backup_id, DROPPED)
            return [old.path for old in dropped], _archive(tx)

        paths, risen = await self._database.writer.run(unit)
        for path in paths:
            await asyncio.to_thread(Path(path).unlink, missing_ok=True)
        await self._tell(risen)

    async def _set_state(self, backup_id: str, state: str) -> None:
        await self._database.writer.run(lambda tx: _put_state(tx, backup_id, state))

    async def _tell(self, risen: Archived) -> None:
        if risen and self._archived is not None:
            await self._archived(risen)

    def _note(self, name: str, done: int, total: int) -> None:
        self._running = Step(name, done, total)  # from the thread: one reference, whole
        self.observe(name, done, total)

    def _ended(self, task: "asyncio.Task[BackupRow]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error.message if isinstance(error, TmaError) else repr(error)

    def _copy(self, suffix: str) -> Path:
        database = self._file()
        return database.with_name(f".{database.name}{suffix}")

    def _file(self) -> Path:
        if self._origin.database is None:
            raise ConflictError(
                "The database is PostgreSQL; it is backed up by its own tools.",
                remedy="Use pg_dump or continuous archiving, and keep `box.key` of the state "
                "directory or the recovery secret with it.",
            )
        return self._origin.database


def _archive(tx: Transaction) -> Archived:
    """Let *archived* follow the oldest retained backup; gives the marks that rose."""
    retained = tx.all(_IN_ROTATION)
    risen: Archived = {}
    for row in tx.all(_RISEN, {"id": retained[-1].backup_id}) if retained else []:
        moved = Cursor(row.applied, row.hash, row.archived)
        place = row.segment, Lane(row.lane)
        cursors.put(tx, row.peer, "in", place, moved)
        risen.setdefault(row.peer, {})[place] = moved
    return risen


def _put_state(tx: Transaction, backup_id: str, state: str) -> None:
    tx.execute(_SET_STATE, {"id": backup_id, "new_state": state, "now": tx.now.utc_us})
    if state != HELD:
        tx.execute(_UNCOVER, {"id": backup_id})


def _is_there(row: Any) -> bool:
    try:
        return Path(row.path).stat().st_size == row.bytes
    except OSError:
        return False


def _row(values: Sequence[Any]) -> BackupRow:
    """Make a row of the table's columns, in their order."""
    backup_id, path, state, counts, *numbers = values
    return BackupRow(backup_id, path, state, bool(counts), *numbers)


def _silently(_name: str, _done: int, _total: int) -> None:
    """Show nobody how far it is."""
