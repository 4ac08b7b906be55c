"""A gateway on a disk of 8 MB that the line fills: a real process, a real file system.

Issuing ends with a reason, revoking goes on, and with room again so does the line; central has
every certificate that anybody received, once. (``test_disk_full`` looks into the storage alone.)
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_rounds import FAULTY, Load, require_nothing_lost
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import described_fleet, gateway_ledger
from tests.support.store_disk import Disk, may_mount, mounted

_DISK = 8 * 1024 * 1024
_LEFT = 256 * 1024

pytestmark = pytest.mark.skipif(not may_mount(), reason="no file system may be mounted here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", _DISK) as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path, disk: Disk) -> Iterator[Fleet]:
    """Its gateway keeps its state on the small disk."""
    with described_fleet(tmp_path) as fleet:
        fleet.start()
        folder = fleet.folder / FAULTY
        folder.mkdir()
        (folder / "state").symlink_to(disk.folder)
        gateway = fleet.prepare_gateway(FAULTY)
        text = gateway.config.read_text("utf-8")
        text = text.replace("warning_mb = 16", "warning_mb = 2").replace(
            "reserve_mb = 8", "reserve_mb = 1"
        )
        gateway.config.write_text(text, "utf-8")
        fleet.join(gateway)
        yield fleet


def _refusal(gateway: Gateway) -> str:
    return str(gateway.snapshot()["verdict"])


def _revoke_one(fleet: Fleet) -> None:
    [gateway] = fleet.gateways
    row = min(row for row in gateway_ledger(fleet, FAULTY) if row[3] == "good" and row[5])
    gateway.command("revoke", row[1], "--reason", "key_compromise")


def test_a_full_disk_stops_issuing_only_and_nothing_is_lost(
    fleet: Fleet, disk: Disk, tmp_path: Path
) -> None:
    [gateway] = fleet.gateways
    load = Load(fleet, "small")
    load.start()
    try:
        wait_until(lambda: len(load.received) > 20, what="the line runs")
        foreign = disk.fill("foreign", leave=_LEFT)
        wait_until(lambda: "disk" in _refusal(gateway).lower(), what="the page says why")
        stopped_at = len(load.received)
        _revoke_one(fleet)
        assert len(load.received) <= stopped_at + 8  # what was under way
        foreign.unlink()
        wait_until(lambda: len(load.received) > stopped_at + 20, what="the line goes on by itself")
    finally:
        load.finish()
    assert len(load.received) == load.asked
    fleet.wait_online(FAULTY)
    require_nothing_lost(fleet, load, tmp_path)
