"""The second disk, where the witness lies, is full: the gateway goes on, and so does a start.

The witness follows as soon as there is room; until then it is behind the database, never ahead.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.sync.segments import Witness, reusable
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import described_fleet, enroll, gateway_ledger, rows, wait_equal
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
        gateway = fleet.prepare_gateway(_NAME)
        text = gateway.config.read_text("utf-8")
        gateway.config.write_text(f'witness = "{disk.folder / "witness"}"\n{text}', "utf-8")
        fleet.join(gateway)
        yield fleet


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
    enroll(fleet, gateway, "before")
    wait_until(lambda: _follows(gateway, witness), what="the witness follows")
    before = witness.read_bytes()
    foreign = disk.fill("foreign", leave=0)

    gateway.process.stop()
    gateway.start()
    enroll(fleet, gateway, "full")
    row = min(row for row in gateway_ledger(fleet, _NAME) if row[3] == "good" and row[5])
    gateway.command("revoke", row[1], "--reason", "key_compromise")
    wait_until(lambda: _complaints(gateway) >= 3, what="it is tried again and again")
    assert witness.read_bytes() == before
    assert not _follows(gateway, witness)
    gateway.process.stop()
    gateway.start()  # the database is two starts ahead: no old copy

    foreign.unlink()
    enroll(fleet, gateway, "after")
    wait_until(lambda: _follows(gateway, witness), what="the witness follows again")
    wait_equal(fleet)
    assert gateway.snapshot()["history"] == "continuous"
