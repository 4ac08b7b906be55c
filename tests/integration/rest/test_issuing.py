"""Issuing over REST, on real TLS and a real database."""

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from shared.pki import formats, keys
from tests.support.lint import assert_clean_certificate
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"
SERVER = {"profile": "tls-server", "cn": "line-7.example"}


def certificate_of(answer) -> x509.Certificate:
    assert answer.status_code == 201, answer.text
    pem = answer.json()["data"]["attributes"]["certificate"]
    return x509.load_pem_x509_certificate(pem.encode())


def public_bytes(key) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def test_the_brochure_call(server: Server):
    """The call of the brochure, to the letter: the server makes the key and gives PKCS#8."""
    body = b'{"data":{"type":"cert_server","attributes":{"cn":"Certificate","cert_days":3650}}}'
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/cert_server", content=body, headers={"Content-Type": "application/json"}
        )
    certificate = certificate_of(answer)
    data = answer.json()["data"]
    assert data["type"] == "cert_server"
    assert answer.headers["Location"] == data["links"]["self"]
    key = load_pem_private_key(data["attributes"]["private_key"].encode(), None)
    assert public_bytes(key.public_key()) == public_bytes(certificate.public_key())
    assert "BEGIN PRIVATE KEY" in data["attributes"]["private_key"]
    assert formats.certificates(data["attributes"]["chain"].encode()) == list(
        server.authority.issuer.chain
    )
    assert_clean_certificate(certificate.public_bytes(Encoding.DER))


@pytest.mark.parametrize("armour", ["pem", "der"])
async def test_a_csr_in_pem_or_in_base64(server: Server, armour: str):
    key = keys.generate()
    csr = request_pem("line-7.example", key)
    if armour == "der":
        der = x509.load_pem_x509_csr(csr.encode()).public_bytes(Encoding.DER)
        csr = base64.encodebytes(der).decode()
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/certificates", json=wish({"profile": "tls-server", "csr": csr})
        )
    certificate = certificate_of(answer)
    assert public_bytes(certificate.public_key()) == public_bytes(key.public_key())
    assert certificate.subject.rfc4514_string() == "CN=line-7.example"
    assert "private_key" not in answer.json()["data"]["attributes"]
    (event,) = server.events("certificate.issued")
    assert event["der"] == certificate.public_bytes(Encoding.DER)
    assert event["principal"] == "station:line-1"


async def test_openssl_verifies_what_the_brochure_call_gave(server: Server, tmp_path: Path):
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/cert_client", json=wish({"cn": "robot 5"}, "cert_client")
        )
    attributes = answer.json()["data"]["attributes"]
    root = tmp_path / "root.pem"
    root.write_text(formats.pem([server.hierarchy.root.issuer.chain[0]]))
    for name in ("certificate", "chain"):
        (tmp_path / name).write_text(attributes[name])
    outcome = await asyncio.to_thread(
        subprocess.run,
        ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root,
         "-untrusted", tmp_path / "chain", tmp_path / "certificate"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    ("alias", "profile"),
    [
        ("cert_server", "tls-server"),
        ("cert_client", "tls-client"),
        ("cert_tls-server", "tls-server"),
        ("cert_idevid", "idevid"),
    ],
)
async def test_each_profile_has_an_address(server: Server, alias: str, profile: str):
    subject = {"common_name": "device", "serial_number": "SN-1"}
    async with server.client() as client:
        answer = await client.post(f"{BASE}/{alias}", json=wish({"subject": subject}, alias))
        assert answer.status_code == 201, answer.text
        found = await client.get(answer.json()["data"]["links"]["self"])
    assert found.json()["data"]["attributes"]["profile"] == profile
    assert found.json()["data"]["attributes"]["device_id"] == "SN-1"


async def test_attributes_stand_for_what_the_csr_says(server: Server):
    attributes = {
        "profile": "tls-server",
        "csr": request_pem("from-csr.example"),
        "subject": {"country_name": "DE", "common_name": "given.example"},
        "alt_names": {"dns": ["given.example"], "ip": ["192.0.2.7"]},
        "device_id": "press-7",
        "cert_days": 30.0,
        "metadata": {"order": "4711"},
        "test": True,
    }
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=wish(attributes))
        found = await client.get(answer.json()["data"]["links"]["self"])
    certificate = certificate_of(answer)
    assert certificate.subject.rfc4514_string() == "CN=given.example,C=DE"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["given.example"]
    shown = found.json()["data"]["attributes"]
    assert (shown["device_id"], shown["test"], shown["metadata"]) == (
        "press-7",
        True,
        {"order": "4711"},
    )


async def test_a_key_under_a_password(server: Server):
    attributes = SERVER | {"password": "correct horse"}
    async with server.client() as client:
        as_file = await client.post(
            f"{BASE}/certificates", json=wish(attributes | {"format": "pkcs12"})
        )
        as_pem = await client.post(
            f"{BASE}/certificates", json=wish(attributes | {"format": "pkcs8"})
        )
    file = base64.b64decode(as_file.json()["data"]["attributes"]["pkcs12"])
    key, certificate, chain = pkcs12.load_key_and_certificates(file, b"correct horse")
    assert public_bytes(key.public_key()) == public_bytes(certificate.public_key())
    assert len(chain) == 3
    assert "private_key" not in as_file.json()["data"]["attributes"]
    pem = as_pem.json()["data"]["attributes"]["private_key"]
    assert "BEGIN ENCRYPTED PRIVATE KEY" in pem
    load_pem_private_key(pem.encode(), b"correct horse")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"format": "pkcs12"}, "password"),
        ({"format": "pkcs8"}, "password"),
        ({"password": "correct horse"}, "password"),
        ({"csr": request_pem("a.example"), "format": "pkcs12", "password": "12345678"}, "format"),
        ({"csr": "no csr at all"}, "csr"),
        ({"csr": "AAAA"}, "csr"),
        ({"subject": {"common_name": "b.example"}}, "cn"),
        ({"profile": "no-such-profile"}, "profile"),
        ({"cert_days": 0}, "cert_days"),
        ({"cert_days": "ten"}, "cert_days"),
        ({"unknown": 1}, "unknown"),
        ({"metadata": {"": "x"}}, "metadata//[key]"),
        ({"alt_names": {"dns": [""]}}, "alt_names/dns/0"),
    ],
)
async def test_a_wrong_field_is_pointed_at(server: Server, changes: dict, pointer: str):
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=wish(SERVER | changes))
    assert answer.status_code == 400, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json()
    assert [field["pointer"] for field in problem["errors"]] == [f"/data/attributes/{pointer}"]
    assert not server.events("certificate.issued")
    (refused,) = server.events("enrollment.refused")
    assert refused["principal"] == "station:line-1"


async def test_a_rule_of_the_profile_says_no(server: Server):
    """The core refuses, in words, and its refusal is one event."""
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/cert_idevid", json=wish({"cn": "no serial"}, "cert_idevid")
        )
    assert answer.status_code == 403
    assert answer.json()["code"] == "refused"
    assert answer.json()["rule"]
    (refused,) = server.events("enrollment.refused")
    assert refused["rule"] == answer.json()["rule"]


async def test_a_wrong_type_is_told_in_words(server: Server):
    async with server.client() as client:
        answer = await client.post(f"{BASE}/cert_server", json=wish(SERVER, "certificate"))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The type here is “cert_server”."


async def test_batch_gives_each_its_own_result(server: Server):
    attributes = [
        {"profile": "tls-server", "csr": request_pem("a.example")},
        {"profile": "tls-server", "csr": "rubbish"},
        {"profile": "tls-server", "cn": "b.example"},
        {"profile": "tls-server", "cert_days": -1},
        {"profile": "idevid", "cn": "no serial"},
        {"cn": "no profile"},
    ]
    body = {"data": [{"type": "certificate", "attributes": each} for each in attributes]}
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates/batch", json=body)
        again = await client.post(f"{BASE}/certificates/batch", json=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["data"]
    assert [result["status"] for result in results] == [201, 400, 201, 400, 403, 400]
    pointers = [
        result["problem"].get("errors", [{}])[0].get("pointer")
        for result in results
        if "problem" in result
    ]
    assert pointers == [
        "/data/1/attributes/csr",
        "/data/3/attributes/cert_days",
        None,
        "/data/5/attributes/profile",
    ]
    assert [result.get("data") for result in again.json()["data"]] == [
        result.get("data") for result in results
    ]
    assert len(server.events("certificate.issued")) == 2


async def test_a_batch_of_a_thousand(server: Server):
    key = keys.generate()
    items = [
        {
            "type": "certificate",
            "attributes": {"profile": "tls-server", "csr": request_pem(f"d{number}", key)},
        }
        for number in range(1_000)
    ]
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates/batch", json={"data": items})
        too_many = await client.post(
            f"{BASE}/certificates/batch", json={"data": [*items, items[0]]}
        )
    results = answer.json()["data"]
    assert [result["status"] for result in results] == [201] * 1_000
    assert len({result["data"]["id"] for result in results}) == 1_000
    assert too_many.status_code == 400
    assert too_many.json()["errors"][0]["pointer"] == "/data"
    assert len(server.events("certificate.issued")) == 1_000
