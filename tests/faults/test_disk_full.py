"""A full disk stops issuing with a clear reason; revoking goes on; it recovers by itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.issuance.crls import SignedCrl
from shared.kernel.errors import StorageFullError
from shared.store import facts
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import fact
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_disk import Disk, may_mount, mounted, pretended
from tests.support.store_intents import CA_ID, fake_der, issuing_database, make_intent

_MEBIBYTE = 1024 * 1024
_DISK = 12 * _MEBIBYTE
_FLOOR = 2 * _MEBIBYTE
_RESERVE = 2 * _MEBIBYTE


@pytest.fixture(params=[pretended, *([mounted] if may_mount() else [])])
def disk(request, tmp_path: Path) -> Iterator[Disk]:
    with request.param(tmp_path / "disk", _DISK) as made:
        yield made


@pytest.fixture
async def database(disk: Disk):
    path = disk.folder / "gateway.db"
    options = disk.options(path)
    async with issuing_database(
        path, floor_bytes=_FLOOR, reserve_bytes=_RESERVE, **options
    ) as opened:
        yield opened


async def issue(ledger: SqlLedger) -> str:
    intent = make_intent()
    await ledger.intend(intent)
    await ledger.complete(intent, fake_der(intent))
    return intent.serial


async def revoke_all(ledger: SqlLedger, serials: list[str]) -> None:
    for serial in serials:
        await ledger.revoke(CA_ID, serial, "key_compromise", "user:a")


async def rewrite(database: Database, number: int) -> None:
    """Change half a megabyte that is there already."""
    value = str(number) * (_MEBIBYTE // 2)
    await database.writer.run(lambda tx: facts.put(tx, "often", value))


async def test_issuing_stops_revoking_goes_on_and_it_recovers(disk, database):
    ledger, crls = SqlLedger(database), SqlCrls(database, None)
    serials = [await issue(ledger) for _ in range(20)]
    reserve = disk.folder / "gateway.db-reserve"
    assert reserve.stat().st_size == _RESERVE
    first = disk.fill("first", leave=_FLOOR // 2)
    with pytest.raises(StorageFullError) as refused:
        await ledger.intend(make_intent())
    assert "disk is full" in refused.value.message
    assert refused.value.remedy
    assert await ledger.open_intents() == []
    assert not reserve.exists()
    second = disk.fill("second", leave=_RESERVE)  # a foreign program takes all but the reserve
    await revoke_all(ledger, serials)
    await crls.save_crl(SignedCrl(CA_ID, 7, b"c" * 20_000, START_US, START_US))
    with pytest.raises(StorageFullError):
        await ledger.intend(make_intent())
    first.unlink()
    second.unlink()
    await issue(ledger)
    assert reserve.exists()
    rows = await Reads(database).search({"status": "revoked"}, None, 0, 100)
    assert {row.serial for row in rows} == set(serials)


async def test_not_one_byte_left_releases_the_reserve_by_itself(disk, database):
    """Nobody asked for an enrollment: the revocation itself meets the full disk."""
    ledger = SqlLedger(database)
    serials = [await issue(ledger) for _ in range(40)]
    disk.fill("foreign", leave=0)
    await revoke_all(ledger, serials)
    rows = await Reads(database).search({"status": "revoked"}, None, 0, 100)
    assert {row.serial for row in rows} == set(serials)


async def test_the_log_that_fills_the_disk_is_folded_back(disk):
    """Without a reserve: what changes often is in the log many times, and in the database once."""
    path = disk.folder / "gateway.db"
    options = {"floor_bytes": 0, "reserve_bytes": 1, **disk.options(path)}
    async with issuing_database(path, **options) as database:
        await rewrite(database, 0)
    sink = Outbox.of_gateway("gw-01", "test")
    database = await Database.open(path, sink=sink, clock=ManualClock(), **options)
    log = path.with_name("gateway.db-wal")
    try:
        for number in range(1, 9):
            await rewrite(database, number)
        assert log.stat().st_size > 4 * _MEBIBYTE
        disk.fill("foreign", leave=0)
        await rewrite(database, 9)
        assert log.stat().st_size < 2 * _MEBIBYTE
        [row] = await database.read(select(fact.c.value).where(fact.c.name == "often"))
        assert row.value.startswith("9")
    finally:
        await database.close()


async def test_what_was_answered_survives_filling_the_disk_to_the_last_byte(disk):
    """Without floor and reserve: each unit is done and told, or not done and told so."""
    path = disk.folder / "gateway.db"
    options = {"floor_bytes": 0, "reserve_bytes": 1, **disk.options(path)}
    issued: list[str] = []
    refused = 0
    async with issuing_database(path, **options) as database:
        ledger = SqlLedger(database)

        async def client() -> None:
            nonlocal refused
            for _ in range(200):
                try:
                    issued.append(await issue(ledger))
                except StorageFullError:
                    refused += 1

        foreign = disk.fill("foreign", leave=_MEBIBYTE)
        await asyncio.gather(*(client() for _ in range(8)))
    assert issued
    assert refused
    foreign.unlink()
    sink = Outbox.of_gateway("gw-01", "test")
    reopened = await Database.open(path, sink=sink, clock=ManualClock(), **options)
    reads = Reads(reopened)
    assert (await reads.counters())["issued"] == {"": len(issued)}
    assert all([await reads.certificate(CA_ID, serial) for serial in issued])
    await issue(SqlLedger(reopened))
    await reopened.close()
