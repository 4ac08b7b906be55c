"""A gateway changes its keys while it works: those of the link, and the issuing CA's."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.fleet import Fleet, Gateway
from tests.support.openssl import Verdict, Verifier, fetch
from tests.support.processes import ProcessError, wait_until
from tests.support.products import enroll, rows, wait_equal

_NAME = "gw-01"


def _verify(fleet: Fleet, folder: Path, ders: list[bytes]) -> list[Verdict]:
    """Check by OpenSSL, with every CA that central serves."""
    known = rows(fleet.central.database, "SELECT der FROM ca WHERE kind IN ('fleet', 'gateway')")
    issuers = "".join(
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for (der,) in known
    )
    return Verifier(folder, fleet.central.ca_bundle, issuers).check(ders)


def _registry(fleet: Fleet) -> dict[str, Any]:
    columns = ("event_key", "exchange_key", "transport_serial", "next_event_key")
    statement = f"SELECT {', '.join(columns)} FROM gateway WHERE name = ?"
    [row] = rows(fleet.central.database, statement, _NAME)
    return dict(zip(columns, row, strict=True))


def _authorities(database: Path) -> dict[str, str]:
    return dict(rows(database, "SELECT ca_id, state FROM ca WHERE gateway = ?", _NAME))


def _command(fleet: Fleet, command: str) -> str:
    return fleet.central.command("gateway", "command", _NAME, command).strip()


def test_the_links_keys_change_and_the_old_certificate_is_revoked(fleet: Fleet):
    [gateway] = fleet.gateways
    before = _registry(fleet)
    command_id = _command(fleet, "renew-identity")
    wait_until(
        lambda: _registry(fleet)["transport_serial"] != before["transport_serial"],
        what="central has the new identity in force",
    )
    after = _registry(fleet)
    assert after["next_event_key"] is None
    assert not set(after.values()) & {before["event_key"], before["exchange_key"]}
    old = before["transport_serial"]
    statement = "SELECT status, reason FROM certificate WHERE serial = ?"
    assert rows(fleet.central.database, statement, old) == [("revoked", "superseded")]
    wait_until(
        lambda: int(old, 16) in _broker_crl(fleet), what="the broker's CRL lists the old one"
    )
    fleet.wait_online(_NAME)
    enroll(fleet, gateway, "renewed")
    wait_equal(fleet)
    audit = "SELECT detail FROM audit WHERE action = 'directive.applied'"
    wait_until(
        lambda: any(command_id in detail for (detail,) in rows(fleet.central.database, audit)),
        what="the audit log has the answer",
    )


def test_the_new_identity_outlives_restarts_of_both_sides(fleet: Fleet):
    [gateway] = fleet.gateways
    gateway.process.stop()
    fleet.central.process.stop()
    fleet.central.start()
    gateway.start()
    fleet.wait_online(_NAME)
    enroll(fleet, gateway, "restarted")
    wait_equal(fleet)


def test_the_next_authority_issues_and_the_old_one_keeps_its_status(fleet: Fleet, tmp_path: Path):
    [gateway] = fleet.gateways
    [former] = _authorities(fleet.central.database)
    early = [*enroll(fleet, gateway, "early").values()]
    _command(fleet, "renew-authority")
    wait_until(
        lambda: sorted(_authorities(fleet.central.database).values()) == ["active", "retired"],
        what="central knows that the next CA is in force",
    )
    assert _authorities(gateway.database) == _authorities(fleet.central.database)
    assert _authorities(gateway.database)[former] == "retired"
    late = [*enroll(fleet, gateway, "late").values()]
    wait_equal(fleet)
    issuers = {
        x509.load_der_x509_certificate(der).issuer.rfc4514_string() for der in (*early, *late)
    }
    assert sorted(issuer.split(",")[0] for issuer in issuers) == [
        "CN=Gateway CA gw-01",
        "CN=Gateway CA gw-01 G2",
    ]
    statement = "SELECT name FROM fact WHERE name LIKE 'responder/%'"
    wait_until(
        lambda: len(rows(fleet.central.database, statement)) == 2,
        what="central's responder for the next CA is certified",
    )
    verdicts = _verify(fleet, tmp_path, [*early, *late])
    assert [verdict for verdict in verdicts if verdict.problems] == []
    gateway.command("revoke", f"{x509.load_der_x509_certificate(early[0]).serial_number:x}")
    serial = x509.load_der_x509_certificate(early[0]).serial_number
    wait_until(lambda: serial in _crl(gateway, former), what="the old CA's CRL lists it")


def test_an_unknown_command_is_not_sent(fleet: Fleet):
    with pytest.raises(ProcessError, match="command"):
        fleet.central.command("gateway", "command", _NAME, "format-disk")
    shown = json.loads(fleet.central.command("gateway", "list", "--json"))
    assert [row["state"] for row in shown] == ["active"]


def _crl(gateway: Gateway, ca_id: str) -> set[int]:
    der = fetch(f"{gateway.status_url}/crl/{ca_id}.crl")
    return {entry.serial_number for entry in x509.load_der_x509_crl(der)}


def _broker_crl(fleet: Fleet) -> set[int]:
    pem = (fleet.central.broker_config.parent / "transport-crl.pem").read_bytes()
    return {entry.serial_number for entry in x509.load_pem_x509_crl(pem)}
