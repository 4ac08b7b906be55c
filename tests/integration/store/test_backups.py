"""Backups count once they are read back; the oldest one in rotation says what is archived."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    TmaError,
    UntrustedError,
)
from shared.pki.keywrap import recovery_text
from shared.store import backup as files
from shared.store import cursors, facts
from shared.store.backups import DAMAGED, DROPPED, HELD, MISSING, Archived, Backups, Origin, Rules
from shared.store.database import Database
from shared.store.restoring import Restoring, restore
from shared.store.schema import fact
from shared.store.vault import Vault
from shared.sync.events import Lane
from shared.sync.ports import Cursor
from tests.support.store_clock import ManualClock
from tests.support.store_databases import ListSink, open_database

SEGMENT = "ab" * 16
_WAIT_S = 30


def _damage(path: str, change: Callable[[bytes], bytes | None], *, keep: bool = False) -> Path:
    """Change a file, or (None) remove it; ``keep`` changes a copy."""
    file = Path(path)
    data = change(file.read_bytes())
    if keep:
        file = file.with_suffix(".changed")
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)
    return file


class World:
    """A database whose cursor of one gateway moves, with backups on the same disk."""

    def __init__(self, folder: Path, database: Database, vault: Vault, recovery: str) -> None:
        self.folder, self.database, self.vault, self.recovery = folder, database, vault, recovery
        self.clock = ManualClock()
        self.told: list[Archived] = []
        self.target = folder / "backups"
        self.target.mkdir()
        self.backups = self.made(Rules(None, 24, 2, same_disk_counts=True, alarm_hours=50))

    def made(self, rules: Rules) -> Backups:
        async def archived(risen: Archived) -> None:
            self.told.append(risen)

        return Backups(
            self.database,
            self.vault.keyring,
            Origin("central", "c1", "1.0", self.folder / "a.db"),
            rules,
            clock=self.clock,
            random=os.urandom,
            archived=archived,
        )

    async def applied(self, sequence: int, lane: Lane = Lane.NORMAL) -> None:
        def unit(tx) -> None:
            archived = cursors.get(tx, "gw-01", "in", SEGMENT, lane).archived
            moved = Cursor(sequence, bytes([sequence]) * 32, archived)
            cursors.put(tx, "gw-01", "in", (SEGMENT, lane), moved)

        await self.database.writer.run(unit)

    async def archived(self) -> int:
        return (
            await self.database.writer.run(
                lambda tx: cursors.get(tx, "gw-01", "in", SEGMENT, Lane.NORMAL)
            )
        ).archived

    async def backed_up(self, target: Path | None = None):
        self.clock.advance(1)
        return await self.backups.make(target or self.target)

    def restoring(self, folder: Path, *, box: Path | None = None) -> Restoring:
        folder.mkdir(exist_ok=True)
        return Restoring(
            product="central",
            database=folder / "a.db",
            box_path=box or folder / "box.key",
            clock=self.clock,
            random=os.urandom,
            sink=ListSink(),
            ask_recovery=lambda: self.recovery,
            settle=lambda tx, _header: facts.put(tx, "settled", "yes"),
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    revealed: list[str] = []
    async with open_database(tmp_path / "a.db") as database:
        vault = await Vault.create(
            database, box_path=tmp_path / "box.key", random=os.urandom, reveal=revealed.append
        )
        await vault.put("directive", b"a secret of central")
        yield World(tmp_path, database, vault, revealed[0])


async def test_archived_follows_the_oldest_retained_backup(world: World):
    seen = []
    for applied in (5, 9, 12, 20):
        await world.applied(applied)
        await world.backed_up()
        seen.append(await world.archived())
    assert seen == [5, 5, 9, 12]  # two are kept
    states = [row.state for row in (await world.backups.standing()).backups]
    assert states == [HELD, HELD, DROPPED, DROPPED]
    assert len(list(world.target.iterdir())) == 2
    assert [told["gw-01"][SEGMENT, Lane.NORMAL].archived for told in world.told] == [5, 9, 12]


async def test_a_file_of_ones_own_moves_no_watermark_and_is_never_dropped(world: World):
    await world.applied(5)
    mine = world.folder / "mine.tmabackup"
    row = await world.backed_up(mine)
    assert not row.counts
    assert await world.archived() == 0
    for _ in range(3):
        await world.backed_up()
    assert mine.exists()
    with pytest.raises(ConflictError):
        await world.backed_up(mine)


async def test_a_backup_on_the_same_disk_does_not_count_unless_told(world: World):
    await world.applied(5)
    world.backups = world.made(replace(world.backups.rules, same_disk_counts=False))
    assert not (await world.backed_up()).counts
    assert await world.archived() == 0


async def test_backups_that_are_gone_or_damaged_count_no_more(world: World):
    rows = []
    for applied in (5, 9):
        await world.applied(applied)
        rows.append(await world.backed_up())
    _damage(rows[0].path, lambda _data: None)
    await world.backups.look()
    assert await world.archived() == 9
    _damage(rows[1].path, lambda data: data[:4000] + b"x" + data[4001:])
    with pytest.raises(IntegrityError):
        await world.backups.verify(Path(rows[1].path))
    states = [row.state for row in (await world.backups.standing()).backups]
    assert states == [DAMAGED, MISSING]


async def test_nothing_counts_that_cannot_be_read_back(world: World, monkeypatch):
    """A disk that gives other bytes than it was given."""
    real = files.read_back

    def rotten(path: Path, *rest):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return real(path, *rest)

    monkeypatch.setattr(files, "read_back", rotten)
    await world.applied(5)
    with pytest.raises(IntegrityError):
        await world.backed_up()
    standing = await world.backups.standing()
    assert (standing.backups, standing.running) == ([], None)
    assert await world.archived() == 0
    assert not list(world.folder.glob(".*"))


async def test_a_backup_that_ends_while_it_is_asked_for_is_still_running_or_done(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    listed = threading.Event()
    real = world.database.read

    def hold(*_step) -> None:
        assert listed.wait(_WAIT_S)

    async def read_and_then_it_ends(*arguments):
        found = await real(*arguments)
        listed.set()
        await world.backups.end()
        return found

    world.backups.observe = hold
    backup_id = world.backups.begin(world.target)
    monkeypatch.setattr(world.database, "read", read_and_then_it_ends)
    standing = await world.backups.standing()
    assert standing.backups == []  # as it was when the rows were read
    assert standing.running is not None
    monkeypatch.undo()
    after = await world.backups.standing()
    assert ([row.backup_id for row in after.backups], after.running) == ([backup_id], None)


async def test_the_copy_is_of_one_moment_while_others_write(world: World):
    async def write() -> None:
        for number in range(200):
            await world.database.writer.run(
                lambda tx, n=number: [facts.put(tx, f"{one}/{n}", "x" * 500) for one in "ab"]
            )

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.02)
    row = await world.backed_up(world.folder / "live.tmabackup")
    await writing
    await restore(Path(row.path), world.restoring(world.folder / "there"), lambda *_: None)
    async with open_database(world.folder / "there/a.db") as restored:
        names = {one.name for one in await restored.read(select(fact.c.name))}
    pairs = {name.partition("/")[2] for name in names if "/" in name}
    assert all({f"a/{pair}", f"b/{pair}"} <= names for pair in pairs)


async def test_restoring_opens_by_the_recovery_secret_on_another_box(world: World):
    await world.applied(7)
    row = await world.backed_up()
    there = world.folder / "there"
    header, manifest = await restore(Path(row.path), world.restoring(there), lambda *_: None)
    assert (header.name, manifest.events, manifest.peers) == ("c1", 7, {"gw-01": 7})
    async with open_database(there / "a.db") as restored:
        vault = await Vault.open(restored, box_path=there / "box.key", random=os.urandom)
        assert await vault.get("directive") == b"a secret of central"
        assert await restored.writer.run(lambda tx: facts.get(tx, "settled")) == "yes"
    assert {path.name for path in there.iterdir()} >= {"a.db", "box.key"}
    with pytest.raises(ConflictError):
        await restore(Path(row.path), world.restoring(there), lambda *_: None)


async def test_restoring_asks_for_nothing_on_its_own_box(world: World):
    row = await world.backed_up()
    to = world.restoring(world.folder / "there", box=world.folder / "box.key")

    def never() -> str:
        raise AssertionError

    await restore(Path(row.path), replace(to, ask_recovery=never), lambda *_: None)


@pytest.mark.parametrize("wrong", ["", "not a secret"])
async def test_restoring_with_another_secret_leaves_nothing(world: World, wrong: str):
    row = await world.backed_up()
    world.recovery = wrong or recovery_text(bytes(32))
    there = world.folder / "there"
    with pytest.raises((UntrustedError, BadRequestError)):
        await restore(Path(row.path), world.restoring(there), lambda *_: None)
    assert [path.name for path in there.iterdir()] == ["box.key"]


async def test_a_cut_or_changed_file_is_never_put_back(world: World):
    row = await world.backed_up()
    there = world.folder / "there"
    for place in range(0, row.bytes, row.bytes // 40):
        for change in (
            lambda data, at=place: data[:at],
            lambda data, at=place: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        ):
            changed = _damage(row.path, change, keep=True)
            with pytest.raises(TmaError):
                await restore(changed, world.restoring(there), lambda *_: None)
            assert {path.name for path in there.iterdir()} <= {"box.key"}


async def test_targets_that_cannot_be(world: World):
    with pytest.raises(NotFoundError):
        await world.backed_up(world.folder / "no such/dir")
    with pytest.raises(BadRequestError):
        await world.backups.make(None)


async def test_the_schedule_makes_what_is_due_and_waits_after_a_failure(world: World):
    rules = replace(world.backups.rules, directory=world.target, every_hours=1)
    backups = world.backups = world.made(rules)
    await backups.step()
    await backups.step()
    assert len((await backups.standing()).backups) == 1
    world.clock.advance(3_601)
    await backups.step()
    assert len((await backups.standing()).backups) == 2
    assert not (await backups.standing()).overdue
    world.clock.advance(50 * 3_600)
    assert (await backups.standing()).overdue
    world.clock.advance(3_601)
    world.target.rename(world.folder / "away")
    with pytest.raises(TmaError):
        await backups.step()
    assert "does not exist" in (await backups.standing()).failure
    await backups.step()  # not again at once
