"""The mode ``forward``: a gateway takes the request, central signs when it hears of it."""

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.policy.shipped import SHIPPED
from tests.support.est import certificates
from tests.support.fleet import Fleet
from tests.support.processes import run, wait_until
from tests.support.products import put_back, rows
from tests.support.rest import Device, connect

_PROFILE = "central-signed"
_BASE = "/api/v2.0"
_MANY = 60


@pytest.fixture(scope="module")
def ready(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet whose gateway holds a profile that central signs for, and an alias of EST for it."""
    central, [gateway] = fleet.central, fleet.gateways
    document = next(one for one in SHIPPED if one.name == "tls-client").to_document()
    del document["version"]
    file = tmp_path_factory.mktemp("profile") / "profile.json"
    file.write_text(json.dumps(document | {"name": _PROFILE, "mode": "forward"}))
    central.command("profile", "draft", str(file))
    central.command("profile", "publish", _PROFILE, "--version", "1")
    grant = json.loads(central.command("grant", "list", "--json"))[0]
    names = ("tls-server", "tls-client", "idevid", _PROFILE)
    central.command("grant", "change", grant["grant_id"], *_options("--profile", names))
    central.command("alias", "put", "slow", "--profile", _PROFILE, "--accept", "password")
    held = "SELECT count(*) FROM profile WHERE name = ? AND state = 'active'"
    wait_until(lambda: rows(gateway.database, held, _PROFILE) == [(1,)], what="the profile came")
    wait_until(lambda: _heard(gateway.database), what="the grant and the alias came")
    return fleet


def _options(name: str, values: Iterable[str]) -> list[str]:
    return [text for value in values for text in (name, value)]


def _heard(database: Path) -> bool:
    [(document,)] = rows(database, "SELECT document FROM grant_use WHERE state = 'active'")
    [(access,)] = rows(database, "SELECT envelope FROM directive WHERE kind = 'access'")
    return _PROFILE.encode() in document and b"slow" in access


async def _post(fleet: Fleet, *devices: Device) -> list[httpx.Response]:
    [gateway] = fleet.gateways
    async with connect(gateway.web_url, gateway.station_token, fleet.central.ca_bundle) as rest:
        posts = (
            rest.post("/certificates", "certificate", {"profile": _PROFILE, "csr": one.csr})
            for one in devices
        )
        return list(await asyncio.gather(*posts))


def ask(fleet: Fleet, *devices: Device) -> list[httpx.Response]:
    return asyncio.run(_post(fleet, *devices))


def look(fleet: Fleet, path: str, token: str = "") -> httpx.Response:
    [gateway] = fleet.gateways
    given = token or gateway.station_token

    async def get() -> httpx.Response:
        async with connect(gateway.web_url, given, fleet.central.ca_bundle) as rest:
            return await rest._client.get(path)

    return asyncio.run(get())


def wait_answered(fleet: Fleet, location: str) -> httpx.Response:
    wait_until(lambda: look(fleet, location).status_code != 202, what="central's answer is here")
    return look(fleet, location)


def verified(fleet: Fleet, folder: Path, answer: httpx.Response) -> x509.Certificate:
    """Let OpenSSL judge the certificate of an answer by central's root."""
    attributes = answer.json()["data"]["attributes"]
    for name, text in (
        ("leaf", attributes["certificate"]),
        ("chain", attributes["chain"]),
        ("root", fleet.central.ca_bundle),
    ):
        (folder / f"{name}.pem").write_text(text)
    said = run(["openssl", "verify", "-CAfile", str(folder / "root.pem"), "-untrusted",
                str(folder / "chain.pem"), str(folder / "leaf.pem")])  # fmt: skip
    assert said.strip().endswith("OK")
    return x509.load_pem_x509_certificate(attributes["certificate"].encode())


def issued(fleet: Fleet, prefix: str) -> list[tuple[Any, ...]]:
    """Give device, CA and state of what central signed for the gateway."""
    found = "SELECT device_id, ca_id, state, principal FROM certificate WHERE origin = ?"
    wanted = f"{found} AND device_id LIKE '{prefix}%'"
    return rows(fleet.central.database, wanted, fleet.gateways[0].name)


def test_a_request_waits_for_the_link_and_becomes_one_certificate(ready: Fleet, tmp_path: Path):
    central, [gateway] = ready.central, ready.gateways
    device = Device.make("FW-0001", _PROFILE)
    central.cut_link()
    first, again = ask(ready, device)[0], ask(ready, device)[0]
    assert [first.status_code, again.status_code] == [202, 202]
    data = first.json()["data"]
    assert (data["type"], data["attributes"]["state"]) == ("enrollment", "waiting")
    assert first.headers["Location"] == again.headers["Location"] == data["links"]["self"]
    assert int(first.headers["Retry-After"]) >= 1
    assert look(ready, data["links"]["self"]).status_code == 202
    assert look(ready, f"{_BASE}/enrollments/unknown").status_code == 404
    stranger = gateway.command("station", "add", "line-2", "--profile", "tls-server").strip()
    assert look(ready, data["links"]["self"], stranger).status_code == 404
    _other_doors(ready, device)
    assert rows(gateway.database, "SELECT count(*) FROM forwarded") == [(1,)]
    assert "central to sign: 1" in gateway.command("status")
    central.restore_link()

    answer = wait_answered(ready, data["links"]["self"])
    assert answer.status_code == 200
    certificate = verified(ready, tmp_path, answer)
    assert certificate.subject.rfc4514_string() == "2.5.4.5=FW-0001,CN=FW-0001.example"
    [retried] = ask(ready, device)
    assert retried.status_code == 201
    assert retried.json()["data"]["attributes"] == answer.json()["data"]["attributes"]
    [(_, ca_id, state, principal)] = issued(ready, "FW-0001")
    assert (state, principal) == ("issued", "station:station-1")
    [(kind, owner)] = rows(central.database, "SELECT kind, gateway FROM ca WHERE ca_id = ?", ca_id)
    assert (kind, owner) == ("issuing", None)
    assert "central to sign: 0" in gateway.command("status")
    shown = look(ready, answer.json()["data"]["links"]["self"]).json()["data"]["attributes"]
    assert (shown["status"], shown["profile"]) == ("good", _PROFILE)
    _units(ready, at_central=True)


def _other_doors(fleet: Fleet, device: Device) -> None:
    """A batch says for each item that it waits; for a key of its own the gateway does not wait."""
    [gateway] = fleet.gateways
    wish = {"type": "certificate", "attributes": {"profile": _PROFILE, "csr": device.csr}}

    async def post() -> tuple[httpx.Response, httpx.Response]:
        async with connect(gateway.web_url, gateway.station_token, fleet.central.ca_bundle) as rest:
            path = f"{_BASE}/certificates/batch"
            batch = await rest._client.post(path, json={"data": [wish]})
            attributes = {"profile": _PROFILE, "cn": "made-here"}
            return batch, await rest.post("/certificates", "certificate", attributes)

    batch, made_here = asyncio.run(post())
    [item] = batch.json()["data"]
    assert (item["status"], item["data"]["type"]) == (202, "enrollment")
    assert (made_here.status_code, made_here.json()["rule"]) == (403, "key.made_here")


def _units(fleet: Fleet, *, at_central: bool) -> None:
    """Units are booked at central only."""
    used = "SELECT used FROM grant_use WHERE state = 'active'"
    [(here,)] = rows(fleet.gateways[0].database, used)
    booked = [(here + at_central,)]
    wait_until(lambda: rows(fleet.central.database, used) == booked, what="the unit is booked")


def test_est_says_pending_and_then_gives_the_certificate(ready: Fleet, tmp_path: Path):
    central, [gateway] = ready.central, ready.gateways
    password = central.command("requester", "add", "mes", "--alias", "slow").strip()
    heard = "SELECT envelope FROM directive WHERE kind = 'access'"
    wait_until(lambda: b"mes" in rows(gateway.database, heard)[0][0], what="the requester came")
    central.cut_link()
    root = tmp_path / "root.pem"
    root.write_text(central.ca_bundle)
    key, csr = tmp_path / "est.key", tmp_path / "est.csr"
    run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-subj", "/CN=est/serialNumber=FW-EST", "-outform", "DER",
         "-out", str(csr)])  # fmt: skip

    def enroll() -> tuple[int, str, bytes]:
        head, body = tmp_path / "head", tmp_path / "body"
        run(["curl", "-s", "--cacert", str(root), "-D", str(head), "-o", str(body),
             "-u", f"mes:{password}", "-H", "Content-Type: application/pkcs10",
             "--data-binary", f"@{csr}",
             f"{gateway.machine_url}/.well-known/est/slow/simpleenroll"])  # fmt: skip
        headers = head.read_text()
        return int(headers.split()[1]), headers.lower(), body.read_bytes()

    wait_until(lambda: enroll()[0] == 202, what="the alias is open")
    assert "retry-after:" in enroll()[1]
    central.restore_link()
    wait_until(lambda: enroll()[0] == 200, what="EST gives the certificate")
    [certificate] = certificates(base64.b64decode(enroll()[2]))
    assert certificate.subject.rfc4514_string() == "2.5.4.5=FW-EST,CN=est"
    assert len(issued(ready, "FW-EST")) == 1
    below = tmp_path / "cacerts.p7"
    run(["curl", "-s", "--cacert", str(root), "-o", str(below),
         f"{gateway.machine_url}/.well-known/est/slow/cacerts"])  # fmt: skip
    cas = certificates(base64.b64decode(below.read_bytes()))
    (tmp_path / "cas.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in cas))
    (tmp_path / "leaf.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    run(["openssl", "verify", "-CAfile", str(root), "-untrusted", str(tmp_path / "cas.pem"),
         str(tmp_path / "leaf.pem")])  # fmt: skip
    renewed = subprocess.run(
        ["curl", "-s", "--cacert", str(root), "--cert", str(tmp_path / "leaf.pem"), "--key",
         str(key), "-o", str(tmp_path / "renewed"), "-w", "%{http_code}", "-H",
         "Content-Type: application/pkcs10", "--data-binary", f"@{csr}",
         f"{gateway.machine_url}/.well-known/est/slow/simplereenroll"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert renewed == "202", (tmp_path / "renewed").read_bytes()
    wait_until(lambda: len(issued(ready, "FW-EST")) == 2, what="the successor is issued")


def test_central_refuses_by_its_own_rules(ready: Fleet, tmp_path: Path):
    """The rule reaches central only: the gateway is away when it is made."""
    central, [gateway] = ready.central, ready.gateways
    central.cut_link()
    device = Device.make("FW-DENY", _PROFILE)
    [waiting] = ask(ready, device)
    assert waiting.status_code == 202
    rules = tmp_path / "rules.json"
    denied = {
        "name": "not-this-one",
        "title": "Nothing is signed for a while",
        "remedy": "Wait.",
        "applies_to": {"profiles": [_PROFILE]},
        "effect": "deny",
        "when": {"stations": ["station-1"]},
    }
    rules.write_text(json.dumps({"rules": [denied]}))
    central.command("rules", "put", str(rules))
    central.restore_link()
    answer = wait_answered(ready, waiting.headers["Location"])
    assert (answer.status_code, answer.json()["rule"]) == (403, "rules.not-this-one")
    [again] = ask(ready, device)
    assert (again.status_code, again.json()["rule"]) == (403, "rules.not-this-one")
    assert issued(ready, "FW-DENY") == []
    rules.write_text(json.dumps({"rules": []}))
    central.command("rules", "put", str(rules))
    applied = "SELECT value FROM fact WHERE name = 'rules'"
    wait_until(lambda: b"deny" not in str(rows(gateway.database, applied)).encode(), what="heard")


def test_a_killed_central_answers_each_request_once(ready: Fleet):
    central, [gateway] = ready.central, ready.gateways
    central.cut_link()
    devices = [Device.make(f"FW-KILL-{number:03}", _PROFILE) for number in range(_MANY)]
    answers = ask(ready, *devices)
    assert {answer.status_code for answer in answers} == {202}
    central.restore_link()
    count = "SELECT count(*) FROM forward_request"
    wait_until(lambda: rows(central.database, count) != [(0,)], what="central has some")
    central.process.kill()
    [(left,)] = rows(central.database, count)
    central.start()
    for answer in answers:
        assert wait_answered(ready, answer.headers["Location"]).status_code == 200
    assert left, "central was killed too late to prove anything"
    found = issued(ready, "FW-KILL")
    assert len(found) == len({row[0] for row in found}) == _MANY
    assert rows(central.database, count) == [(0,)]
    assert not rows(central.database, "SELECT * FROM quarantine")
    assert not rows(gateway.database, "SELECT * FROM quarantine")


def test_a_revocation_reaches_the_other_side(ready: Fleet):
    central, [gateway] = ready.central, ready.gateways
    status = "SELECT status FROM certificate WHERE device_id = ?"
    for number, (box, token, other) in enumerate(
        (
            (central.web_url, central.admin_token, gateway.database),
            (gateway.web_url, gateway.station_token, central.database),
        )
    ):
        device = f"FW-KILL-{number:03}"
        [(ca_id, serial)] = rows(
            central.database, "SELECT ca_id, serial FROM certificate WHERE device_id = ?", device
        )

        async def revoke(
            box: str = box, token: str = token, ca_id: str = ca_id, serial: str = serial
        ) -> None:
            async with connect(box, token, central.ca_bundle) as rest:
                await rest.revoke(ca_id, serial)

        asyncio.run(revoke())
        wait_until(
            lambda other=other, device=device: rows(other, status, device) == [("revoked",)],
            what="the other side has heard of it",
        )
    assert not rows(central.database, "SELECT * FROM quarantine")


def test_a_central_put_back_from_a_backup_signs_nothing_twice(ready: Fleet):
    """What it signed after the backup it learns again from the gateway, before it signs more."""
    central = ready.central
    backup = ready.folder / "yesterday.tmabackup"
    central.command("backup", str(backup))
    later, next_one = (Device.make(f"FW-BACK-{number}", _PROFILE) for number in (1, 2))
    [waiting] = ask(ready, later)
    first = wait_answered(ready, waiting.headers["Location"]).json()["data"]["attributes"]
    put_back(ready, backup)
    assert issued(ready, "FW-BACK") == []
    [waiting] = ask(ready, next_one)
    assert waiting.status_code == 202
    central.restore_link()
    assert wait_answered(ready, waiting.headers["Location"]).status_code == 200
    assert {row[0] for row in issued(ready, "FW-BACK")} == {"FW-BACK-1", "FW-BACK-2"}
    assert len(issued(ready, "FW-BACK")) == 2
    [again] = ask(ready, later)
    assert again.json()["data"]["attributes"] == first
    serial = "SELECT serial FROM certificate WHERE device_id = 'FW-BACK-1'"
    assert rows(central.database, serial) == [(first["serial"],)]
    assert not rows(central.database, "SELECT * FROM quarantine")
    assert not rows(central.database, "SELECT * FROM conflict WHERE kind <> 'quota-overdrawn'")
