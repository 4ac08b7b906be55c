"""A gateway whose battery died: its clock stands ten years off, before and behind.

Real processes under libfaketime; the monotonic clock is right, as it is on a real box.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from shared.system.clock import SystemClock
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import ManagedProcess, listening, wait_until
from tests.support.products import (
    enroll,
    gateway_ledger,
    inventory,
    rows,
    running_fleet,
    wait_equal,
)
from tests.support.rest import Device

_NAME = "gw-01"
_DAYS = 3650


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("clock"), _NAME) as fleet:
        yield fleet


@contextmanager
def _astray(gateway: Gateway, days: int) -> Iterator[None]:
    """Run the agent with its clock so many days off; afterwards it is right again."""
    gateway.process.stop()
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")  # `faketime` would fork
    environ = {"LD_PRELOAD": str(library), "FAKETIME": f"{days:+}d", "DONT_FAKE_MONOTONIC": "1"}
    wrong = ManagedProcess(
        "gateway-astray",
        ["tma-gateway", "-c", str(gateway.config), "run"],
        gateway.folder / "astray.log",
        extra_environ=gateway.environ | environ,
    )
    wrong.start()
    try:
        wrong.wait_ready(lambda: listening(gateway.port) and listening(gateway.port + 2))
        yield
    finally:
        wrong.stop()
        gateway.start()


def _refused(gateway: Gateway) -> str:
    """Ask for one certificate as a line would whose own clock is right; gives why it got none.

    The page's certificate is judged by nobody here: nothing is trusted but the refusal.
    """
    wish = Device.make("SN-astray", "tls-client")
    body = {"data": {"type": "cert_tls-client", "attributes": {"csr": wish.csr}}}
    with httpx.Client(verify=False) as client:
        answer = client.post(
            f"{gateway.web_url}/api/v2.0/cert_tls-client",
            json=body,
            headers={"Authorization": f"Bearer {gateway.station_token}"},
        )
    assert answer.status_code in {401, 403, 409, 422}, answer.text
    return answer.json()["detail"]


def _crl(gateway: Gateway) -> x509.CertificateRevocationList:
    [(ca_id,)] = rows(
        gateway.database, "SELECT ca_id FROM ca WHERE kind = 'gateway' ORDER BY created_at LIMIT 1"
    )
    answer = httpx.get(f"{gateway.status_url}/crl/{ca_id}.crl")
    return x509.load_der_x509_crl(answer.content)


def _is_valid(crl: x509.CertificateRevocationList) -> bool:
    assert crl.next_update_utc is not None
    return crl.last_update_utc <= SystemClock().now().datetime < crl.next_update_utc


def _heals(fleet: Fleet, before: dict[str, bytes]) -> None:
    """Everything goes on, and nothing of what happened meanwhile is lost or absurd."""
    [gateway] = fleet.gateways
    fleet.wait_online(_NAME)
    wait_until(lambda: _is_valid(_crl(gateway)), what="the CRL is valid today")
    received = before | enroll(fleet, gateway, "after")
    wait_equal(fleet)
    assert {row[4] for row in inventory(fleet, _NAME) if row[5]} == received.keys()
    assert not rows(fleet.central.database, "SELECT * FROM quarantine")


def test_ten_years_ahead_nothing_is_issued_and_it_heals(fleet: Fleet) -> None:
    [gateway] = fleet.gateways
    before = enroll(fleet, gateway, "before")
    with _astray(gateway, _DAYS):
        assert "issuing period" in gateway.command("status")
        assert "expired" in _refused(gateway)  # the station's token is, by that clock
    _heals(fleet, before)


def test_ten_years_behind_nothing_is_issued_no_crl_is_outdated_and_it_heals(fleet: Fleet) -> None:
    [gateway] = fleet.gateways
    before = enroll(fleet, gateway, "before")
    victim = min(row for row in gateway_ledger(fleet, _NAME) if row[5])[1]
    with _astray(gateway, -_DAYS):
        assert "clock" in gateway.command("status")
        assert "grant" in _refused(gateway)
        gateway.command("revoke", victim, "--reason", "key_compromise")
        wait_until(
            lambda: _crl(gateway).get_revoked_certificate_by_serial_number(int(victim, 16)),
            what="the CRL lists it",
        )
        assert _is_valid(_crl(gateway))
    _heals(fleet, before)
