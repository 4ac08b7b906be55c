"""Central's disk is lost and yesterday's backup put back, while several gateways went on.

Each gateway heals for itself: what one gave back is answered although another is still away. One
that joined after the backup is a stranger to central; it loses nothing, and harms nobody.
(``tests/e2e/test_restored_central`` follows one gateway through the same.)
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.central_ocsp import ocsp_status
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import inventory, ledger, rows, running_fleet
from tests.support.rest import Line, connect, devices

_PROMPT, _LATE, _STRANGER = "gw-01", "gw-02", "gw-03"
_COUNTED = ("issued", "voided", "revoked", "held")


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("old"), _PROMPT, _LATE) as fleet:
        yield fleet


def _enroll(fleet: Fleet, gateway: Gateway, prefix: str) -> None:
    async def enroll() -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await Line(rest).enroll(devices(f"{prefix}-{gateway.name}", 4))

    asyncio.run(enroll())


def _of(gateway: Gateway, prefix: str) -> list[tuple[str, str]]:
    """Give CA and serial of devices' certificates, in a fixed order."""
    return sorted(row[:2] for row in ledger(gateway) if (row[5] or "").startswith(prefix))


def _revoke_at_central(fleet: Fleet, certificate: tuple[str, str]) -> None:
    central = fleet.central

    async def revoke() -> None:
        async with connect(central.web_url, central.admin_token, central.ca_bundle) as rest:
            await rest.revoke(*certificate)

    asyncio.run(revoke())


def _wait_equal(fleet: Fleet, gateway: Gateway) -> None:
    wait_until(
        lambda: ledger(gateway) == inventory(fleet, gateway.name),
        what=f"central knows what {gateway.name} knows",
    )


def _wait_revoked(gateway: Gateway, certificate: tuple[str, str]) -> None:
    wait_until(
        lambda: any(row[:2] == certificate and row[3] == "revoked" for row in ledger(gateway)),
        what="the gateway has revoked what central ordered",
    )


def _counts(database: Path | str, origin: str) -> dict[str, int]:
    found: dict[str, Any] = dict(rows(database, "SELECT name, value FROM counter"))
    return {name: found.get(f"{name}/{origin}", 0) for name in _COUNTED}


def _answers(fleet: Fleet, certificates: list[tuple[str, str]]) -> list[str]:
    """Ask central's OCSP, as a relying party that got the CA's certificate from the gateway."""
    issuers = {
        ca_id: x509.load_der_x509_certificate(der)
        for gateway in fleet.gateways
        for ca_id, der in rows(gateway.database, "SELECT ca_id, der FROM ca")
    }
    return [ocsp_status(fleet.central.status_url, issuers[ca], one) for ca, one in certificates]


def _put_back(fleet: Fleet, backup: Path) -> None:
    central = fleet.central
    central.cut_link()
    central.process.stop()
    for file in central.database.parent.glob("central.db*"):
        file.unlink()
    central.command("restore", str(backup))
    central.start()


def test_each_gateway_gives_back_for_itself_and_a_stranger_loses_nothing(fleet: Fleet) -> None:
    central = fleet.central
    prompt, late = fleet.gateways
    for gateway in (prompt, late):
        _enroll(fleet, gateway, "early")
        _wait_equal(fleet, gateway)
    backup = fleet.folder / "yesterday.tmabackup"
    central.command("backup", str(backup))
    stranger = fleet.add_gateway(_STRANGER)
    for gateway in fleet.gateways:
        _enroll(fleet, gateway, "later")
    by_gateway, *_ = _of(prompt, "early")
    prompt.command("revoke", by_gateway[1], "--reason", "key_compromise")
    by_central, *_ = _of(late, "later")
    for gateway in fleet.gateways:
        _wait_equal(fleet, gateway)
    _revoke_at_central(fleet, by_central)
    _wait_revoked(late, by_central)
    _wait_equal(fleet, late)
    before = {gateway.name: ledger(gateway) for gateway in fleet.gateways}

    _put_back(fleet, backup)
    asked = [by_gateway, _of(prompt, "later")[0], by_central, _of(late, "later")[1]]
    assert _answers(fleet, asked) == ["TRY_LATER"] * 4
    assert _STRANGER not in central.gateways()
    late.process.stop()
    central.restore_link()
    _wait_equal(fleet, prompt)
    wait_until(
        lambda: _answers(fleet, asked[:2]) == ["REVOKED", "GOOD"],
        what="central answers for the gateway that gave back",
    )
    assert _answers(fleet, asked[2:]) == ["TRY_LATER"] * 2
    late.start()
    _wait_equal(fleet, late)
    wait_until(
        lambda: _answers(fleet, asked) == ["REVOKED", "GOOD", "REVOKED", "GOOD"],
        what="central answers for both",
    )
    for gateway in (prompt, late):
        assert ledger(gateway) == before[gateway.name]
        assert _counts(central.database, gateway.name) == _counts(gateway.database, "")
        assert central.gateways()[gateway.name]["lacking"] == ""

    _enroll(fleet, stranger, "alone")
    assert before[_STRANGER] < ledger(stranger)
    assert not inventory(fleet, _STRANGER)
    assert set(_answers(fleet, _of(stranger, "later"))) == {"UNAUTHORIZED"}
    statement = "SELECT count(*) FROM outbox WHERE type = 'certificate.issued'"
    assert rows(stranger.database, statement) == [(len(ledger(stranger)),)]
    assert not stranger.snapshot()["link"]["online"]
    assert not rows(central.database, "SELECT * FROM conflict")
    assert not rows(central.database, "SELECT * FROM quarantine")
