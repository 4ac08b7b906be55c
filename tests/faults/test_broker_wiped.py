"""The broker's machine is lost with all that is on it, and a new one takes its place.

Meanwhile gateways have events that nobody took, and central has orders that nobody got.
"""

import shutil
from collections.abc import Iterator

import pytest

from shared.sync import events
from tests.support.fault_rounds import Load, require_all_known
from tests.support.fleet import Fleet
from tests.support.processes import wait_until
from tests.support.products import (
    counts,
    gateway_ledger,
    inventory,
    revoke_at_central,
    rows,
    running_fleet,
)

_NAMES = ("gw-01", "gw-02")
_BURST = 12
_ROUNDS = 2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("wiped"), *_NAMES) as fleet:
        yield fleet


def _more(loads: list[Load], what: str) -> None:
    """Wait until each line received some more certificates."""
    wanted = [len(load.received) + _BURST for load in loads]
    wait_until(
        lambda: all(len(load.received) >= n for load, n in zip(loads, wanted, strict=True)),
        what=what,
    )


def _revoke_at_central(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Revoke one certificate of each gateway; gives their CAs and serials."""
    chosen = {
        name: min(row for row in inventory(fleet, name) if row[3] == "good" and row[5])[:2]
        for name in _NAMES
    }
    revoke_at_central(fleet, *chosen.values())
    return chosen


def _status(fleet: Fleet, name: str, certificate: tuple[str, str]) -> str:
    [status] = [row[3] for row in gateway_ledger(fleet, name) if row[:2] == certificate]
    return status


def _wipe_broker(fleet: Fleet) -> None:
    """Leave nothing of it, not even what central wrote for it; then do what the manual says."""
    folder = fleet.central.broker_config.parent
    shutil.rmtree(folder)
    fleet.central.command("broker", "config", str(folder))


def _reported(fleet: Fleet, name: str) -> list[tuple[str, str]]:
    """Give what came of each revocation, with its subject, as often as the gateway told it."""
    statement = "SELECT event FROM inbox_event WHERE peer = ? AND type = 'directive.applied'"
    told = [events.decode(event).body for (event,) in rows(fleet.central.database, statement, name)]
    return sorted((body["subject"], body["result"]) for body in told if body["kind"] == "revoke")


def test_a_broker_that_lost_everything_loses_and_doubles_nothing(fleet: Fleet) -> None:
    central = fleet.central
    loads = [Load(fleet, f"wiped-{name}", name) for name in _NAMES]
    ordered: dict[str, list[tuple[str, str]]] = {name: [] for name in _NAMES}
    for load in loads:
        load.start()
    try:
        for _ in range(_ROUNDS):
            for name in _NAMES:
                fleet.wait_online(name)
            _more(loads, "the lines run")  # so the broker holds what is under way, or a backlog
            central.broker.kill()
            _more(loads, "the lines go on")
            for name, certificate in _revoke_at_central(fleet).items():
                ordered[name].append(certificate)
                assert _status(fleet, name, certificate) == "good"
                assert gateway_ledger(fleet, name) - inventory(fleet, name)
            _wipe_broker(fleet)
            central.start_broker()
    finally:
        for load in loads:
            load.finish()
    for load in loads:
        assert len(load.received) == load.asked
        fleet.wait_online(load.name)
        wait_until(
            lambda load=load: all(
                _status(fleet, load.name, one) == "revoked" for one in ordered[load.name]
            ),
            what="what central ordered meanwhile reached the gateway",
        )
        wait_until(
            lambda load=load: len(_reported(fleet, load.name)) >= _ROUNDS,
            what="the gateway told that it did",
        )
        require_all_known(fleet, load)
        assert _reported(fleet, load.name) == sorted(
            ("/".join(one), "applied") for one in ordered[load.name]
        )
    for gateway in fleet.gateways:
        counted = counts(gateway.database, "")
        assert counted == counts(central.database, gateway.name)
        assert counted["revoked"] == _ROUNDS
    assert not rows(central.database, "SELECT * FROM conflict")
