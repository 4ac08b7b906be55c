"""The journey of the demo with central on PostgreSQL: enroll, cut, enroll on, heal, all agree."""

from pathlib import Path

from rich.console import Console

from tests.demo.journey import Journey
from tests.support.postgres import postgres
from tests.support.products import described_fleet, gateway_ledger, inventory

_DEVICES = 12


def test_all_counts_agree(tmp_path: Path):
    with (
        postgres() as server,
        described_fleet(tmp_path, {"database": server.new()}) as fleet,
        (tmp_path / "story.txt").open("w") as story,
    ):
        assert Journey(fleet, tmp_path / "results", Console(file=story)).run(_DEVICES)
        ledger = gateway_ledger(fleet, fleet.gateways[0].name)
        assert len(ledger) >= _DEVICES
        assert inventory(fleet, fleet.gateways[0].name) == ledger
        assert not (fleet.central.folder / "state" / "central.db").exists()
