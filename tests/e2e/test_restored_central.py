"""Central's disk is lost; yesterday's backup is put back, and the gateway gives back the rest."""

from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.support.central_ocsp import ocsp_status
from tests.support.fleet import Fleet
from tests.support.processes import wait_until
from tests.support.products import (
    enroll,
    gateway_ledger,
    put_back,
    revoke_at_central,
    rows,
    running_fleet,
    wait_equal,
    wait_revoked,
)

_NAME = "gw-01"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Central is replaced here: the test has its own fleet."""
    with running_fleet(tmp_path_factory.mktemp("restored"), _NAME) as fleet:
        yield fleet


def _serial(fleet: Fleet, prefix: str) -> tuple[str, str]:
    """Give CA and serial of a device's certificate."""
    found = [row[:2] for row in gateway_ledger(fleet, _NAME) if (row[5] or "").startswith(prefix)]
    return min(found)


def test_what_was_ordered_and_reported_after_the_backup_is_known_again(fleet: Fleet):
    central = fleet.central
    enroll(fleet, fleet.gateways[0], "early")
    wait_equal(fleet)
    backup = fleet.folder / "yesterday.tmabackup"
    central.command("backup", str(backup))
    enroll(fleet, fleet.gateways[0], "later")
    ca_id, lost = _serial(fleet, "early")
    revoke_at_central(fleet, (ca_id, lost))
    wait_revoked(fleet.gateways[0], (ca_id, lost))
    wait_equal(fleet)
    [(issuer,)] = rows(central.database, "SELECT der FROM ca WHERE ca_id = ?", ca_id)
    [(ordered,)] = rows(central.database, "SELECT max(number) FROM directive")

    put_back(fleet, backup)
    ca = x509.load_der_x509_certificate(issuer)
    assert ocsp_status(central.status_url, ca, lost) == "TRY_LATER"
    assert central.gateways()[_NAME]["lacking"] == "directives"

    central.restore_link()
    wait_equal(fleet)
    wait_until(
        lambda: ocsp_status(central.status_url, ca, lost) == "REVOKED",
        what="central answers again",
    )
    _, next_one = _serial(fleet, "later")
    assert ocsp_status(central.status_url, ca, next_one) == "GOOD"
    assert central.gateways()[_NAME]["lacking"] == ""
    revoke_at_central(fleet, (ca_id, next_one))
    wait_revoked(fleet.gateways[0], (ca_id, next_one))
    wait_equal(fleet)
    [(newest,)] = rows(central.database, "SELECT max(number) FROM directive")
    assert newest > ordered
    assert not rows(central.database, "SELECT * FROM conflict")
    assert not rows(central.database, "SELECT * FROM quarantine")
