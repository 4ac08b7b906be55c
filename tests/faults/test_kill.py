"""kill -9 of any party at any moment under load: nothing is lost, nothing happens twice."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_rounds import FAULTY, Load, require_nothing_lost, seeded
from tests.support.fleet import Fleet
from tests.support.products import running_fleet

_ROUNDS, _ROUNDS_SOAK = 20, 200
_LOAD_S = (0.2, 1.5)
_DOWN_S = (0.0, 0.5)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("kill"), FAULTY) as fleet:
        yield fleet


def _strike(fleet: Fleet, chance: random.Random) -> None:
    """Let the line run for a while, kill one party, and start it again after a while."""
    [gateway] = fleet.gateways
    central = fleet.central
    victims = {
        "gateway": (gateway.process, gateway.start),
        "hsmd": (gateway.hsmd, gateway.start_hsmd),
        "central": (central.process, central.start),
        "broker": (central.broker, central.start_broker),
    }
    time.sleep(chance.uniform(*_LOAD_S))
    process, start = victims[chance.choice(list(victims))]
    process.kill()
    time.sleep(chance.uniform(*_DOWN_S))
    start()


@pytest.mark.timeout(20 * _ROUNDS_SOAK)
@pytest.mark.parametrize("rounds", [_ROUNDS, pytest.param(_ROUNDS_SOAK, marks=pytest.mark.soak)])
def test_no_kill_loses_or_doubles_anything(fleet: Fleet, tmp_path: Path, rounds: int):
    chance, load = seeded(), Load(fleet, f"kill-{rounds}")
    load.start()
    try:
        for _ in range(rounds):
            _strike(fleet, chance)
    finally:
        load.finish()
    assert len(load.received) == load.asked > rounds
    require_nothing_lost(fleet, load, tmp_path)
