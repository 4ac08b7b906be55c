"""Hierarchies at any depth, below foreign roots, across, over generations; OpenSSL judges."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.est import Answer, EstClient, certificates
from tests.support.fleet import Fleet
from tests.support.processes import ProcessError, program, run, wait_until
from tests.support.products import gateway_ledger, inventory, rows
from tests.support.rest import Line, connect, devices

_NAME = "gw-01"


def _ca(fleet: Fleet, *arguments: str) -> str:
    return fleet.central.command("ca", *arguments).strip()


def _listed(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(_ca(fleet, "list", "--json"))}


def _id(fleet: Fleet, name: str) -> str:
    return _listed(fleet)[name]["ca_id"]


def _enroll(fleet: Fleet, url: str, token: str, prefix: str) -> list[bytes]:
    async def enroll() -> list[bytes]:
        async with connect(url, token, fleet.central.ca_bundle) as rest:
            line = Line(rest)
            await line.enroll(devices(prefix, 2))
            return list(line.received.values())

    return asyncio.run(enroll())


def _at_central(fleet: Fleet, prefix: str) -> list[bytes]:
    return _enroll(fleet, fleet.central.web_url, fleet.central.admin_token, prefix)


def _at_gateway(fleet: Fleet, prefix: str) -> list[bytes]:
    [gateway] = fleet.gateways
    return _enroll(fleet, gateway.web_url, gateway.station_token, prefix)


def _write(path: Path, *pems: str) -> Path:
    path.write_text("".join(pems), "ascii")
    return path


def _verified(folder: Path, leaf: bytes, root: str, *between: str) -> str:
    """Verify by OpenSSL under one root; gives what it said."""
    pem = x509.load_der_x509_certificate(leaf).public_bytes(Encoding.PEM).decode()
    argv = [program("openssl"), "verify", "-x509_strict", "-no-CAfile", "-no-CApath",
            "-trusted", _write(folder / "root.pem", root),
            "-untrusted", _write(folder / "between.pem", *between),
            _write(folder / "leaf.pem", pem)]  # fmt: skip
    outcome = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "OK" if outcome.returncode == 0 else outcome.stderr


def _issuer(der: bytes) -> str:
    names = x509.load_der_x509_certificate(der).issuer.get_attributes_for_oid(
        x509.NameOID.COMMON_NAME
    )
    return str(names[0].value)


def test_a_hierarchy_of_four_tiers_issues(fleet: Fleet, tmp_path: Path):
    root = _ca(fleet, "create", "Plant Root", "--kind", "root", "--key-type", "ec-p384")
    policy = _ca(fleet, "create", "Plant Policy", "--kind", "sub", "--parent", root)
    country = _ca(fleet, "create", "Plant Country", "--kind", "sub", "--parent", policy,
                  "--key-type", "rsa-2048")  # fmt: skip
    issuing = _ca(fleet, "create", "Plant Issuing", "--parent", country, "--days", "3650")
    shown = _listed(fleet)
    assert [shown[f"Plant {name}"]["depth"] for name in ("Root", "Policy", "Country")] == [0, 1, 2]
    leaves = _at_central(fleet, "plant")
    assert {_issuer(der) for der in leaves} == {"Plant Issuing"}
    pems = [_ca(fleet, "show", ca_id) + "\n" for ca_id in (root, policy, country, issuing)]
    for der in leaves:
        assert _verified(tmp_path, der, *pems) == "OK"
    _ca(fleet, "retire", issuing)
    assert {_issuer(der) for der in _at_central(fleet, "after")} != {"Plant Issuing"}


def test_what_is_in_use_is_not_deleted_and_the_last_one_not_retired(fleet: Fleet):
    used = _id(fleet, "Plant Country")
    with pytest.raises(ProcessError, match="Plant Issuing is below it"):
        _ca(fleet, "delete", used)
    with pytest.raises(ProcessError, match="last CA of the kind fleet"):
        _ca(fleet, "retire", next(r["ca_id"] for r in _listed(fleet).values()
                                  if r["kind"] == "fleet" and r["state"] == "active"))  # fmt: skip
    spare = _ca(fleet, "create", "Spare", "--kind", "sub", "--parent", _id(fleet, "Plant Policy"))
    _ca(fleet, "delete", spare)
    assert "Spare" not in _listed(fleet)
    with pytest.raises(ProcessError, match="path length"):
        _ca(fleet, "create", "Deep", "--kind", "sub", "--parent", used, "--path-length", "9")


def test_a_ca_below_a_foreign_root(fleet: Fleet, tmp_path: Path):
    """The company's root is OpenSSL's; it must be trusted before its word counts."""
    key, root, csr, made = (tmp_path / name for name in ("r.key", "r.pem", "ca.csr", "ca.pem"))
    curve, usage = "ec_paramgen_curve:P-384", "keyUsage=critical,keyCertSign,cRLSign"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes",
         "-keyout", str(key), "-out", str(root), "-days", "3650", "-addext", usage,
         "-subj", "/O=Company/CN=Company Root"])  # fmt: skip
    csr.write_text(_ca(fleet, "request", "Below Company", "--kind", "issuing"))
    assert _listed(fleet)["Below Company"]["state"] == "waiting"
    run(["openssl", "x509", "-req", "-in", str(csr), "-CA", str(root), "-CAkey", str(key), "-days",
         "1825", "-copy_extensions", "copyall", "-out", str(made)])  # fmt: skip
    chain = _write(tmp_path / "chain.pem", made.read_text(), root.read_text())
    with pytest.raises(ProcessError, match="not trusted"):
        _ca(fleet, "install", str(chain))
    _ca(fleet, "trust", str(root), "--name", "Company")
    ca_id = _ca(fleet, "install", str(chain))
    [leaf, _] = _at_central(fleet, "company")
    assert _issuer(leaf) == "Below Company"
    assert _verified(tmp_path, leaf, root.read_text(), made.read_text()) == "OK"
    with pytest.raises(ProcessError, match="waits for a certificate"):
        _ca(fleet, "install", str(chain))
    _ca(fleet, "retire", ca_id)


def test_cross_certified_by_another_root(fleet: Fleet, tmp_path: Path):
    """Who trusts the plant's root verifies what the first hierarchy issues."""
    [leaf, _] = _at_gateway(fleet, "cross")
    plant, first = _id(fleet, "Plant Root"), _first_root(fleet)
    crossed = _ca(fleet, "cross-certify", first, "--issuer", plant) + "\n"
    between = _between(fleet)
    root = _ca(fleet, "show", plant) + "\n"
    assert "unable to get" in _verified(tmp_path, leaf, root, *between)
    assert _verified(tmp_path, leaf, root, crossed, *between) == "OK"


def test_the_next_fleet_ca_takes_the_gateways_along(fleet: Fleet, tmp_path: Path):
    """The gateway's CA keeps its key and gets another parent; nobody visits the line."""
    [gateway] = fleet.gateways
    former = next(r for r in _listed(fleet).values() if r["kind"] == "fleet")
    new_id = _ca(fleet, "roll-over", former["ca_id"])
    statement = "SELECT parent_id FROM ca WHERE gateway = ? AND state = 'active'"
    wait_until(
        lambda: rows(gateway.database, statement, _NAME) == [(new_id,)],
        what="the gateway's CA is below the new fleet CA",
    )
    assert rows(fleet.central.database, statement, _NAME) == [(new_id,)]
    [leaf, _] = _at_gateway(fleet, "rolled")
    wait_until(
        lambda: gateway_ledger(fleet, _NAME) == inventory(fleet, _NAME),
        what="central knows what the gateway knows",
    )
    shown = _listed(fleet)
    own = next(r for r in shown.values() if r["kind"] == "gateway")["ca_id"]
    pems = [_ca(fleet, "show", ca_id) + "\n" for ca_id in (_first_root(fleet), new_id, own)]
    assert _verified(tmp_path, leaf, *pems) == "OK"
    assert next(r for r in shown.values() if r["ca_id"] == former["ca_id"])["state"] == "retired"


def test_the_next_root_and_the_former_one_vouch_for_each_other(fleet: Fleet, tmp_path: Path):
    [leaf, _] = _at_gateway(fleet, "root")
    former = _first_root(fleet)
    new_pem, *_ = _split(_ca(fleet, "show", _ca(fleet, "roll-over", former)))
    former_pem, *crossed = _split(_ca(fleet, "show", former))
    links = [pem for pem in crossed if _is_self_issued(pem)]  # not the one by the plant's root
    assert _verified(tmp_path, leaf, former_pem, *_between(fleet)) == "OK"
    between = _between(fleet)
    assert _verified(tmp_path, leaf, new_pem, *links, *between) == "OK"


def test_est_gives_what_leads_from_either_generation_of_the_root_to_the_other(
    fleet: Fleet, tmp_path: Path
):
    """Nothing but what cacerts gave, and one of the two roots, verifies what EST issues."""
    new, former = (_pems_of(fleet, row["ca_id"]) for row in _first_roots(fleet))
    links = [pem for pem in (*new[1:], *former[1:]) if _is_self_issued(pem)]
    client = EstClient(
        tmp_path, f"{fleet.central.machine_url}/.well-known/est/tls-client",
        _write(tmp_path / "trusted.pem", fleet.central.ca_bundle),
    )  # fmt: skip
    given = _est(asyncio.run(client.curl("cacerts")))
    assert len(links) == 2
    assert {new[0], former[0], *links} <= set(given)
    plant = _pems_of(fleet, _id(fleet, "Plant Root"))[0]
    assert not {_name(pem, "issuer") for pem in given} & {_name(plant, "subject")}
    csr = client.request("est-1", "/CN=est-1")
    answer = asyncio.run(client.post("simpleenroll", csr, "-u", f"a:{fleet.central.admin_token}"))
    [pem] = _est(answer)
    leaf = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    for root in (new[0], former[0]):
        between = [one for one in given if one not in {new[0], former[0]}]
        assert _verified(tmp_path, leaf, root, *between) == "OK"


def test_the_line_goes_below_the_next_root_and_reaches_the_former_one(fleet: Fleet, tmp_path: Path):
    """The next fleet CA is below the next root; the gateway's EST gives both, and their links."""
    [gateway] = fleet.gateways
    new, former = (_pems_of(fleet, row["ca_id"]) for row in _first_roots(fleet))
    active = next(
        row
        for row in _listed(fleet).values()
        if row["kind"] == "fleet" and row["state"] == "active"
    )
    fleet_id = _ca(fleet, "roll-over", active["ca_id"])
    statement = "SELECT parent_id FROM ca WHERE gateway = ? AND state = 'active'"
    wait_until(
        lambda: rows(gateway.database, statement, _NAME) == [(fleet_id,)],
        what="the gateway's CA is below the fleet CA of the next root",
    )
    client = EstClient(
        tmp_path, f"{gateway.machine_url}/.well-known/est/tls-client",
        _write(tmp_path / "trusted.pem", fleet.central.ca_bundle),
    )  # fmt: skip
    given = _est(asyncio.run(client.curl("cacerts")))
    assert {new[0], former[0], *filter(_is_self_issued, (*new[1:], *former[1:]))} <= set(given)
    [leaf, _] = _at_gateway(fleet, "next-root")
    for root in (new[0], former[0]):
        between = [one for one in given if one not in {new[0], former[0]}]
        assert _verified(tmp_path, leaf, root, *between) == "OK"


def test_it_all_outlives_a_restart(fleet: Fleet):
    before = _listed(fleet)
    fleet.central.process.stop()
    fleet.central.start()
    assert _listed(fleet) == before
    _at_central(fleet, "restarted")


def _is_self_issued(pem: str) -> bool:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.subject == certificate.issuer


def _est(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    found = certificates(base64.b64decode(answer.body))
    return [one.public_bytes(Encoding.PEM).decode() for one in found]


def _pems_of(fleet: Fleet, ca_id: str) -> list[str]:
    """A CA's certificate, then those that others made of its key."""
    return _split(_ca(fleet, "show", ca_id))


def _name(pem: str, part: str) -> str:
    return getattr(x509.load_pem_x509_certificate(pem.encode()), part).rfc4514_string()


def _first_roots(fleet: Fleet) -> list[dict[str, Any]]:
    """Both generations of the first root, the active one first."""
    found = [row for row in _listed(fleet).values() if row["kind"] == "root"]
    return sorted(
        (row for row in found if row["name"] != "Plant Root"), key=lambda row: row["state"]
    )


def _first_root(fleet: Fleet) -> str:
    found = (row for row in _listed(fleet).values() if row["kind"] == "root")
    return next(row["ca_id"] for row in found if row["name"] != "Plant Root")


def _between(fleet: Fleet) -> list[str]:
    statement = "SELECT der FROM ca WHERE kind IN ('fleet', 'gateway')"
    return [_pem(der) for (der,) in rows(fleet.central.database, statement)]


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def _split(pems: str) -> list[str]:
    found = x509.load_pem_x509_certificates(pems.encode())
    return [one.public_bytes(Encoding.PEM).decode() for one in found]
