"""A bad network between gateway, broker and central: what is delayed, cut short or gone halfway
changes nothing of what arrives in the end."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_rounds import FAULTY, Load, require_nothing_lost, seeded
from tests.support.fleet import Fleet
from tests.support.products import running_fleet

_ROUNDS, _ROUNDS_SOAK = 4, 200
_TROUBLE_S = (1.0, 5.0)
_CALM_S = (0.0, 1.0)
#: Few chunks pass in a stretch, above all while the gateway waits before it tries again.
_HARM_TIMEOUT_S, _LOOK_S = 120.0, 0.2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("trouble"), FAULTY) as fleet:
        yield fleet


def _strike(fleet: Fleet, chance: random.Random) -> None:
    """A stretch of trouble that met something, or a pulled cable, and then a while of peace."""
    central = fleet.central
    if chance.random() < 0.25:
        central.cut_link()
        time.sleep(chance.uniform(*_TROUBLE_S))
    else:
        before = central.troubles()
        central.trouble_link(chance.randrange(1 << 32))
        time.sleep(chance.uniform(*_TROUBLE_S))
        deadline = time.monotonic() + _HARM_TIMEOUT_S
        while central.troubles() == before:
            assert time.monotonic() < deadline, "The relay did no harm."
            time.sleep(_LOOK_S)
    central.restore_link()
    time.sleep(chance.uniform(*_CALM_S))


@pytest.mark.timeout(30 * _ROUNDS_SOAK)
@pytest.mark.parametrize("rounds", [_ROUNDS, pytest.param(_ROUNDS_SOAK, marks=pytest.mark.soak)])
def test_no_trouble_on_the_wire_loses_or_doubles_anything(
    fleet: Fleet, tmp_path: Path, rounds: int
) -> None:
    chance, load = seeded(), Load(fleet, f"trouble-{rounds}")
    load.start()
    try:
        for _ in range(rounds):
            _strike(fleet, chance)
    finally:
        load.finish()
    assert len(load.received) == load.asked > rounds
    fleet.wait_online(FAULTY)
    require_nothing_lost(fleet, load, tmp_path)
