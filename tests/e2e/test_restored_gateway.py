"""A gateway's disk is lost, and its backup of yesterday is put back by the commands.

It issues nothing until central has given back what it forgot; then the line goes on.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet, Gateway
from tests.support.processes import ProcessError, wait_until
from tests.support.products import (
    enroll,
    gateway_ledger,
    inventory,
    rows,
    running_fleet,
    wait_equal,
)
from tests.support.rest import Device, connect

_NAME = "gw-01"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A gateway is replaced here: the test has its own fleet."""
    with running_fleet(tmp_path_factory.mktemp("restored-gateway"), _NAME) as fleet:
        yield fleet


def _answer(fleet: Fleet) -> int:
    [gateway] = fleet.gateways

    async def ask() -> int:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            wish = Device.make("SN-late", "tls-client")
            answer = await rest.post("/cert_tls-client", "cert_tls-client", {"csr": wish.csr})
            return answer.status_code

    return asyncio.run(ask())


def _lose_the_disk(gateway: Gateway) -> None:
    gateway.process.kill()
    for file in (*gateway.database.parent.glob("gateway.db*"), *gateway.folder.glob("**/witness*")):
        file.unlink()


def test_a_gateway_is_put_back_and_forgets_nothing(fleet: Fleet) -> None:
    [gateway] = fleet.gateways
    backup = fleet.folder / "gateway.tmabackup"
    received = enroll(fleet, fleet.gateways[0], "early")
    gateway.command("backup", str(backup))
    received |= enroll(fleet, fleet.gateways[0], "later")
    wait_equal(fleet)
    revoked = min(row for row in gateway_ledger(fleet, _NAME) if (row[5] or "").startswith("early"))
    gateway.command("revoke", revoked[1], "--reason", "key_compromise")
    wait_equal(fleet)

    with pytest.raises(ProcessError):  # a living database is never overwritten
        gateway.command("restore", str(backup))
    fleet.central.cut_link()
    _lose_the_disk(gateway)
    assert "restored copy" in gateway.command("restore", str(backup))
    gateway.start()
    assert _answer(fleet) >= 400
    assert len(gateway_ledger(fleet, _NAME)) < len(inventory(fleet, _NAME))

    fleet.central.restore_link()
    wait_until(lambda: _answer(fleet) == 201, what="the line goes on")
    received |= enroll(fleet, fleet.gateways[0], "after")
    wait_equal(fleet)
    known = {row[4]: row for row in inventory(fleet, _NAME)}
    assert received.keys() <= known.keys()
    statuses = {row[1]: row[3] for row in known.values()}
    assert statuses[revoked[1]] == "revoked"
    assert not rows(fleet.central.database, "SELECT * FROM quarantine")
    assert fleet.central.gateways()[_NAME]["state"] == "active"
