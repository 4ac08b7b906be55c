"""The second disk, where the witness lies, is full: the gateway goes on, and so does a start.

The witness follows as soon as there is room; until then it is behind the database, never ahead.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.sync.segments import Witness, reusable
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import described_fleet, gateway_ledger, inventory, rows
from tests.support.rest import Line, connect, devices
from tests.support.store_disk import Disk, may_mount, mounted

_NAME = "gw-01"
_DISK = 256 * 1024

pytestmark = pytest.mark.skipif(not may_mount(), reason="no file system may be mounted here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "second", _DISK) as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path, disk: Disk) -> Iterator[Fleet]:
    """Its gateway keeps its witness on the small disk."""
    with described_fleet(tmp_path) as fleet:
        fleet.start()
        gateway = Gateway(_NAME, fleet.folder / _NAME, fleet.ports.of_gateway(0))
        fleet.gateways.append(gateway)
        gateway.prepare()
        text = gateway.config.read_text("utf-8")
        gateway.config.write_text(f'witness = "{disk.folder / "witness"}"\n{text}', "utf-8")
        gateway.join(fleet.central.command("gateway", "invite", _NAME))
        fleet.wait_online(_NAME)
        yield fleet


def _enroll(fleet: Fleet, prefix: str) -> None:
    [gateway] = fleet.gateways

    async def enroll() -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await Line(rest).enroll(devices(prefix, 4))

    asyncio.run(enroll())


def _follows(gateway: Gateway, witness: Path) -> bool:
    """Tell if the witness holds the open segment, and that something was written to it."""
    seen = Witness.decode(witness.read_bytes())
    [(newest,)] = rows(gateway.database, "SELECT max(start_counter) FROM segment")
    return seen.start_counter == newest and not reusable(seen.heads)


def _complaints(gateway: Gateway) -> int:
    return gateway.process.log.read_text("utf-8").count("There is no room for the file")


def test_a_full_disk_of_the_witness_ends_nothing_and_it_follows_later(
    fleet: Fleet, disk: Disk
) -> None:
    [gateway] = fleet.gateways
    witness = disk.folder / "witness"
    _enroll(fleet, "before")
    wait_until(lambda: _follows(gateway, witness), what="the witness follows")
    before = witness.read_bytes()
    foreign = disk.fill("foreign", leave=0)

    gateway.process.stop()
    gateway.start()
    _enroll(fleet, "full")
    row = min(row for row in gateway_ledger(fleet, _NAME) if row[3] == "good" and row[5])
    gateway.command("revoke", row[1], "--reason", "key_compromise")
    wait_until(lambda: _complaints(gateway) >= 3, what="it is tried again and again")
    assert witness.read_bytes() == before
    assert not _follows(gateway, witness)
    gateway.process.stop()
    gateway.start()  # the database is two starts ahead: no old copy

    foreign.unlink()
    _enroll(fleet, "after")
    wait_until(lambda: _follows(gateway, witness), what="the witness follows again")
    wait_until(
        lambda: gateway_ledger(fleet, _NAME) == inventory(fleet, _NAME),
        what="central knows what the gateway knows",
    )
    assert gateway.snapshot()["history"] == "continuous"
