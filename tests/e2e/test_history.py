"""An old copy of a gateway, and two of one: both are noticed, and nothing is issued meanwhile."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import (
    enroll,
    gateway_ledger,
    inventory,
    ledger,
    running_fleet,
    wait_equal,
)
from tests.support.rest import Device, connect

_NAME = "gw-01"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """History cannot be mended here: each test has its own fleet."""
    with running_fleet(tmp_path_factory.mktemp("history"), _NAME) as fleet:
        yield fleet


def _refused(fleet: Fleet, gateway: Gateway) -> httpx.Response:
    async def ask() -> httpx.Response:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            csr = Device.make("late", "tls-client").csr
            return await rest.post("/cert_tls-client", "cert_tls-client", {"csr": csr})

    return asyncio.run(ask())


def _backup(gateway: Gateway, copy: Path) -> None:
    """Copy the database as an administrator would, while it runs."""
    with closing(sqlite3.connect(gateway.database)) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)


def _put_back(gateway: Gateway, copy: Path) -> None:
    for file in gateway.database.parent.glob("gateway.db*"):
        file.unlink()
    shutil.copy2(copy, gateway.database)


def _require_stopped(fleet: Fleet, gateway: Gateway, history: str) -> None:
    wait_until(lambda: gateway.snapshot()["history"] == history, what=f"the gateway says {history}")
    assert "issu" in gateway.command("status").lower()
    answer = _refused(fleet, gateway)
    assert answer.status_code in {409, 503}, answer.text


def _require_healed(fleet: Fleet, gateway: Gateway, known: set[object]) -> None:
    """All that central knew is back on the box, the line issues, and central hears of it."""
    wait_until(
        lambda: gateway.snapshot()["history"] == "continuous",
        what="the gateway has taken back what it forgot",
    )
    wait_until(
        lambda: fleet.central.gateways()[_NAME]["state"] == "active", what="central says so too"
    )
    assert known <= ledger(gateway)
    enroll(fleet, gateway, "after", 6)
    wait_until(
        lambda: ledger(gateway) <= inventory(fleet, _NAME), what="central knows what it issued"
    )


def test_an_old_database_is_noticed_without_a_link_and_heals_with_it(fleet: Fleet, tmp_path: Path):
    """The witness has seen a later start than the copy; the operator lets two more be issued."""
    [gateway] = fleet.gateways
    enroll(fleet, gateway, "early", 6)
    _backup(gateway, tmp_path / "copy.db")
    gateway.process.stop()
    gateway.start()
    enroll(fleet, gateway, "forgotten", 6)
    wait_equal(fleet)
    known = inventory(fleet, _NAME)
    fleet.central.cut_link()
    gateway.process.stop()
    _put_back(gateway, tmp_path / "copy.db")
    gateway.start()
    _require_stopped(fleet, gateway, "restored")
    gateway.command("history", "continue", "--reason", "production must go on", "--remaining", "2")
    enroll(fleet, gateway, "offline", 2)
    assert _refused(fleet, gateway).status_code in {403, 409}
    offline = gateway_ledger(fleet, _NAME)
    fleet.central.restore_link()
    wait_until(
        lambda: known | offline <= inventory(fleet, _NAME), what="central knows both histories"
    )
    _require_healed(fleet, gateway, known | offline)


def test_an_old_copy_within_one_start_heals_by_itself(fleet: Fleet, tmp_path: Path):
    """The witness cannot tell, but central holds more than the gateway knows."""
    [gateway] = fleet.gateways
    enroll(fleet, gateway, "early", 6)
    _backup(gateway, tmp_path / "copy.db")
    enroll(fleet, gateway, "forgotten", 6)
    wait_equal(fleet)
    known = inventory(fleet, _NAME)
    gateway.process.stop()
    _put_back(gateway, tmp_path / "copy.db")
    gateway.start()
    _require_healed(fleet, gateway, known)
    wait_until(
        lambda: fleet.central.gateways()[_NAME]["behind"] == 0, what="the gateway has sent all"
    )
    assert "Nothing differs." in fleet.central.command("gateway", "compare", _NAME)


def test_two_of_one_are_noticed_and_the_chosen_one_goes_on(fleet: Fleet):
    """Both issue without a link. What both issued is known in the end, whoever goes on."""
    [gateway] = fleet.gateways
    enroll(fleet, gateway, "before", 6)
    wait_equal(fleet)
    gateway.process.stop()
    gateway.hsmd.stop()
    clone = gateway.copy_to(fleet.folder / "clone", fleet.ports.of_gateway(1))
    fleet.gateways.append(clone)
    fleet.central.cut_link()
    for one in (gateway, clone):
        one.start_hsmd()
        one.start()
    enroll(fleet, gateway, "first", 3)
    enroll(fleet, clone, "second", 4)
    both = ledger(gateway) | ledger(clone)
    fleet.central.restore_link()
    wait_until(
        lambda: fleet.central.gateways()[_NAME]["state"] == "cloned",
        what="central says that there are two",
    )
    wait_until(lambda: bool(_claims(fleet)), what="all of the other box is kept at central")
    [claim] = _claims(fleet)
    for one in (gateway, clone):
        _require_stopped(fleet, one, "cloned")
    chosen, other = (clone, gateway) if claim["issued"] == 4 else (gateway, clone)
    fleet.central.command(
        "gateway", "decide", _NAME, "--keep", claim["id"], "--reason", "It stands at the line"
    )
    _require_healed(fleet, chosen, inventory(fleet, _NAME))
    wait_until(lambda: both <= inventory(fleet, _NAME), what="central knows what both issued")
    _require_stopped(fleet, other, "cloned")
    assert fleet.central.gateways()[_NAME]["state"] == "active"


def _claims(fleet: Fleet) -> list[dict[str, Any]]:
    """The histories that wait for a decision and are fetched whole."""
    told = json.loads(fleet.central.command("gateway", "histories", _NAME, "--json"))
    return [one for one in told if one["state"] == "open" and one["complete"] and one["issued"]]
