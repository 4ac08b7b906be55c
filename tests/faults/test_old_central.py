"""Central's disk is lost and yesterday's backup put back, while several gateways went on.

Each gateway heals for itself: what one gave back is answered although another is still away. One
that joined after the backup is a stranger to central; it loses nothing, and harms nobody.
(``tests/e2e/test_restored_central`` follows one gateway through the same.)
"""

from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.support.central_ocsp import ocsp_status
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import (
    counts,
    enroll,
    inventory,
    ledger,
    put_back,
    revoke_at_central,
    rows,
    running_fleet,
    wait_equal,
    wait_revoked,
)

_PROMPT, _LATE, _STRANGER = "gw-01", "gw-02", "gw-03"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("old"), _PROMPT, _LATE) as fleet:
        yield fleet


def _of(gateway: Gateway, prefix: str) -> list[tuple[str, str]]:
    """Give CA and serial of devices' certificates, in a fixed order."""
    return sorted(row[:2] for row in ledger(gateway) if (row[5] or "").startswith(prefix))


def _answers(fleet: Fleet, certificates: list[tuple[str, str]]) -> list[str]:
    """Ask central's OCSP, as a relying party that got the CA's certificate from the gateway."""
    issuers = {
        ca_id: x509.load_der_x509_certificate(der)
        for gateway in fleet.gateways
        for ca_id, der in rows(gateway.database, "SELECT ca_id, der FROM ca")
    }
    return [ocsp_status(fleet.central.status_url, issuers[ca], one) for ca, one in certificates]


def test_each_gateway_gives_back_for_itself_and_a_stranger_loses_nothing(fleet: Fleet) -> None:
    central = fleet.central
    prompt, late = fleet.gateways
    for gateway in (prompt, late):
        enroll(fleet, gateway, f"early-{gateway.name}")
        wait_equal(fleet, gateway)
    backup = fleet.folder / "yesterday.tmabackup"
    central.command("backup", str(backup))
    stranger = fleet.add_gateway(_STRANGER)
    for gateway in fleet.gateways:
        enroll(fleet, gateway, f"later-{gateway.name}")
    by_gateway, *_ = _of(prompt, "early")
    prompt.command("revoke", by_gateway[1], "--reason", "key_compromise")
    by_central, *_ = _of(late, "later")
    for gateway in fleet.gateways:
        wait_equal(fleet, gateway)
    revoke_at_central(fleet, by_central)
    wait_revoked(late, by_central)
    wait_equal(fleet, late)
    before = {gateway.name: ledger(gateway) for gateway in fleet.gateways}

    put_back(fleet, backup)
    asked = [by_gateway, _of(prompt, "later")[0], by_central, _of(late, "later")[1]]
    assert _answers(fleet, asked) == ["TRY_LATER"] * 4
    assert _STRANGER not in central.gateways()
    late.process.stop()
    central.restore_link()
    wait_equal(fleet, prompt)
    wait_until(
        lambda: _answers(fleet, asked[:2]) == ["REVOKED", "GOOD"],
        what="central answers for the gateway that gave back",
    )
    assert _answers(fleet, asked[2:]) == ["TRY_LATER"] * 2
    late.start()
    wait_equal(fleet, late)
    wait_until(
        lambda: _answers(fleet, asked) == ["REVOKED", "GOOD", "REVOKED", "GOOD"],
        what="central answers for both",
    )
    for gateway in (prompt, late):
        assert ledger(gateway) == before[gateway.name]
        assert counts(central.database, gateway.name) == counts(gateway.database, "")
        assert central.gateways()[gateway.name]["lacking"] == ""

    enroll(fleet, stranger, f"alone-{stranger.name}")
    assert before[_STRANGER] < ledger(stranger)
    assert not inventory(fleet, _STRANGER)
    assert set(_answers(fleet, _of(stranger, "later"))) == {"UNAUTHORIZED"}
    statement = "SELECT count(*) FROM outbox WHERE type = 'certificate.issued'"
    assert rows(stranger.database, statement) == [(len(ledger(stranger)),)]
    assert not stranger.snapshot()["link"]["online"]
    assert not rows(central.database, "SELECT * FROM conflict")
    assert not rows(central.database, "SELECT * FROM quarantine")
