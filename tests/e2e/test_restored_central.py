"""Central's disk is lost; yesterday's backup is put back, and the gateway gives back the rest."""

import asyncio
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.support.central_ocsp import ocsp_status
from tests.support.fleet import Fleet
from tests.support.processes import wait_until
from tests.support.products import gateway_ledger, inventory, rows, running_fleet
from tests.support.rest import Line, connect, devices

_NAME = "gw-01"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Central is replaced here: the test has its own fleet."""
    with running_fleet(tmp_path_factory.mktemp("restored"), _NAME) as fleet:
        yield fleet


def _enroll(fleet: Fleet, prefix: str) -> None:
    [gateway] = fleet.gateways

    async def enroll() -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await Line(rest).enroll(devices(prefix, 4))

    asyncio.run(enroll())


def _revoke_at_central(fleet: Fleet, ca_id: str, serial: str) -> None:
    central = fleet.central

    async def revoke() -> None:
        async with connect(central.web_url, central.admin_token, central.ca_bundle) as rest:
            await rest.revoke(ca_id, serial)

    asyncio.run(revoke())


def _wait_equal(fleet: Fleet) -> None:
    wait_until(
        lambda: gateway_ledger(fleet, _NAME) == inventory(fleet, _NAME),
        what="central knows what the gateway knows",
    )


def _wait_revoked(fleet: Fleet, serial: str) -> None:
    def revoked() -> bool:
        return any(row[1] == serial and row[3] == "revoked" for row in gateway_ledger(fleet, _NAME))

    wait_until(revoked, what="the gateway has revoked what central ordered")


def _serial(fleet: Fleet, prefix: str) -> tuple[str, str]:
    """Give CA and serial of a device's certificate."""
    found = [row[:2] for row in gateway_ledger(fleet, _NAME) if (row[5] or "").startswith(prefix)]
    return min(found)


def test_what_was_ordered_and_reported_after_the_backup_is_known_again(fleet: Fleet):
    central = fleet.central
    _enroll(fleet, "early")
    _wait_equal(fleet)
    backup = fleet.folder / "yesterday.tmabackup"
    central.command("backup", str(backup))
    _enroll(fleet, "later")
    ca_id, lost = _serial(fleet, "early")
    _revoke_at_central(fleet, ca_id, lost)
    _wait_revoked(fleet, lost)
    _wait_equal(fleet)
    [(issuer,)] = rows(central.database, "SELECT der FROM ca WHERE ca_id = ?", ca_id)
    [(ordered,)] = rows(central.database, "SELECT max(number) FROM directive")

    central.cut_link()
    central.process.stop()
    for file in central.database.parent.glob("central.db*"):
        file.unlink()
    central.command("restore", str(backup))
    central.start()
    ca = x509.load_der_x509_certificate(issuer)
    assert ocsp_status(central.status_url, ca, lost) == "TRY_LATER"
    assert central.gateways()[_NAME]["lacking"] == "directives"

    central.restore_link()
    _wait_equal(fleet)
    wait_until(
        lambda: ocsp_status(central.status_url, ca, lost) == "REVOKED",
        what="central answers again",
    )
    _, next_one = _serial(fleet, "later")
    assert ocsp_status(central.status_url, ca, next_one) == "GOOD"
    assert central.gateways()[_NAME]["lacking"] == ""
    _revoke_at_central(fleet, ca_id, next_one)
    _wait_revoked(fleet, next_one)
    _wait_equal(fleet)
    [(newest,)] = rows(central.database, "SELECT max(number) FROM directive")
    assert newest > ordered
    assert not rows(central.database, "SELECT * FROM conflict")
    assert not rows(central.database, "SELECT * FROM quarantine")
