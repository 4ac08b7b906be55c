"""Hundreds of bad days, each from one seed. ``SIM_SEEDS=n`` runs more, ``SIM_SEED=k`` just one."""

import os

import pytest

from tests.support.sim_load import survives

_SEEDS = int(os.environ.get("SIM_SEEDS", "240"))
_CHUNK = 20
_ONE = os.environ.get("SIM_SEED")


@pytest.mark.parametrize("first", range(0, _SEEDS, _CHUNK))
def test_nothing_is_lost_and_nothing_happens_twice(first: int) -> None:
    for seed in [int(_ONE)] if _ONE else range(first, min(first + _CHUNK, _SEEDS)):
        survives(seed)


def test_a_seed_reproduces_exactly() -> None:
    assert survives(3) == survives(3)
    assert survives(3) != survives(4)
