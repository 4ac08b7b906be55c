"""Central's directive key gets a successor while the line runs; then the former one is retired."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fleet import Fleet
from tests.support.processes import ProcessError, wait_until
from tests.support.products import described_fleet, enroll, rows, wait_equal

_NEAR, _FAR = "gw-01", "gw-02"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("succession")
    with described_fleet(folder, settings={"backup": {"same_disk_counts": True}}) as fleet:
        fleet.start()
        for name in (_NEAR, _FAR):
            fleet.add_gateway(name)
        yield fleet


def _keys(fleet: Fleet, act: str = "list", *options: str) -> list[dict[str, Any]]:
    return json.loads(fleet.central.command("directive-key", act, *options, "--json"))


def _trusted(fleet: Fleet, index: int) -> int:
    database = fleet.gateways[index].database
    found = rows(database, "SELECT value FROM fact WHERE name = 'directive_keys'")
    return len(json.loads(found[0][0])) if found else 1


def _heard_by_both(fleet: Fleet) -> None:
    wait_until(lambda: _keys(fleet)[0]["not_confirmed_by"] == [], what="both trust the present key")


def test_a_successor_reaches_who_was_away_and_the_former_is_retired(fleet: Fleet):
    central = fleet.central
    checkpoint = fleet.folder / "checkpoint"
    checkpoint.write_text(central.command("audit", "checkpoint"))
    far = fleet.gateways[1]
    far.process.stop()
    [_new, former] = _keys(fleet, "rotate")
    assert former["state"] == "former"
    wait_until(lambda: _keys(fleet)[0]["not_confirmed_by"] == [_FAR], what="the near one heard it")
    with pytest.raises(ProcessError, match=_FAR):
        _keys(fleet, "retire")
    with pytest.raises(ProcessError, match="not ended"):
        _keys(fleet, "rotate")
    central.process.stop()  # what follows does not hang on this process's memory
    central.start()
    far.start()
    _heard_by_both(fleet)
    for gateway in fleet.gateways:
        enroll(fleet, gateway, f"both-{gateway.name}", 2)
    wait_equal(fleet)

    with pytest.raises(ProcessError, match="Back up first"):
        _keys(fleet, "retire")
    central.command("backup", str(fleet.folder))
    assert [one["state"] for one in _keys(fleet, "retire")] == ["current", "retired"]
    _heard_by_both(fleet)
    assert (_trusted(fleet, 0), _trusted(fleet, 1)) == (1, 1)
    kept = rows(central.database, "SELECT name FROM key_envelope WHERE name LIKE 'directive%'")
    assert kept == [("directive-2",)]

    for gateway in fleet.gateways:  # the envelopes of their join are signed by the former key
        gateway.process.stop()
        gateway.start()
    for gateway in fleet.gateways:
        enroll(fleet, gateway, f"later-{gateway.name}", 2)
    wait_equal(fleet)
    assert "as they were written" in central.command(
        "audit", "verify", "--checkpoint", str(checkpoint)
    )
