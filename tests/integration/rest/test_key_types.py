"""Keys of all types over REST: in CSRs, made by the server, long ones in the background."""

import asyncio
import base64
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from shared.enroll import key_maker
from shared.pki import formats, keys
from shared.pki.keys import KeyType
from tests.support import pki_keys, rest_server
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"
PATH = f"{BASE}/certificates"
WISH = {"profile": "tls-server", "cn": "line-7.example"}


@pytest.fixture(autouse=True)
def open_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped profiles, for all key types."""
    wide = [one.model_copy(update={"key_types": tuple(KeyType)}) for one in rest_server.SHIPPED]
    monkeypatch.setattr(rest_server, "SHIPPED", tuple(wide))


def attributes_of(answer) -> dict:
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["attributes"]


def key_type_of(pem: str) -> KeyType | None:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return keys.key_type(keys.spki(certificate.public_key()))


@pytest.mark.parametrize("kind", pki_keys.SIGNING)
async def test_a_csr_of_each_key_type(server: Server, kind: KeyType):
    csr = request_pem("line-7.example", pki_keys.private_key(kind))
    async with server.client() as client:
        answer = await client.post(PATH, json=wish({"profile": "tls-server", "csr": csr}))
    assert key_type_of(attributes_of(answer)["certificate"]) is kind


@pytest.mark.parametrize("kind", pki_keys.SIGNING)
async def test_the_server_makes_a_key_of_each_type_once(server: Server, kind: KeyType):
    body = wish(WISH | {"key_type": kind.value})
    async with server.client() as client:
        first, second = [attributes_of(await client.post(PATH, json=body)) for _ in range(2)]
    assert key_type_of(first["certificate"]) is kind
    key = load_pem_private_key(first["private_key"].encode(), None)
    assert keys.key_type(keys.spki(key.public_key())) is kind
    assert second["private_key"] == first["private_key"]
    assert second["serial"] == first["serial"]


async def test_another_key_type_is_another_request(server: Server):
    async with server.client() as client:
        first = attributes_of(await client.post(PATH, json=wish(WISH)))
        second = attributes_of(await client.post(PATH, json=wish(WISH | {"key_type": "ec-p384"})))
    assert first["serial"] != second["serial"]


async def test_a_long_key_is_fetched_later_and_stalls_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(key_maker, "_WAIT_S", 0.05)
    body = wish(WISH | {"key_type": "rsa-4096"})
    stalls: list[float] = []

    async def watch() -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0.01)
            stalls.append(time.monotonic() - begin)

    watching = asyncio.create_task(watch())
    try:
        async with server.client() as client, asyncio.timeout(120):
            answer = await client.post(PATH, json=body)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            while answer.status_code == 503:
                await asyncio.sleep(0.2)
                answer = await client.post(PATH, json=body)
            again = await client.post(PATH, json=body)
    finally:
        watching.cancel()
    assert key_type_of(attributes_of(answer)["certificate"]) is KeyType.RSA_4096
    assert attributes_of(again)["serial"] == attributes_of(answer)["serial"]
    assert len(stalls) > 10  # the loop went on; how fast, the benchmark says


async def test_too_many_long_keys_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_maker, "_WAITING_MAX", 0)
    async with server.client() as client:
        answer = await client.post(PATH, json=wish(WISH | {"key_type": "rsa-3072"}))
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


async def test_what_a_profile_forbids_is_refused_before_a_long_key_is_made(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    narrow = [
        one.model_copy(update={"key_types": (KeyType.EC_P256,)}) for one in rest_server.SHIPPED
    ]
    monkeypatch.setattr(rest_server, "SHIPPED", tuple(narrow))
    async with server.client() as client, asyncio.timeout(3):
        answer = await client.post(PATH, json=wish(WISH | {"key_type": "rsa-8192"}))
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/data/attributes/key_type"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"key_type": "rsa-other"}, ""),
        ({"key_type": "rsa-1024"}, "/data/attributes/key_type"),
        (
            {"key_type": "ec-p256", "csr": request_pem("a", keys.generate())},
            "/data/attributes/key_type",
        ),
        ({"key_type": "ml-dsa-44", "format": "pkcs12", "password": "12345678"}, ""),
    ],
)
async def test_what_cannot_be_made_is_said(server: Server, changes: dict, pointer: str):
    async with server.client() as client:
        answer = await client.post(PATH, json=wish(WISH | changes))
    assert answer.status_code == 400, answer.text
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_formats_of_the_answer(server: Server):
    csr = request_pem("line-7.example", keys.generate())
    chain = server.authority.issuer.chain
    async with server.client() as client:
        for packing in ("der", "pkcs7"):
            body = wish({"profile": "tls-server", "csr": csr, "format": packing})
            attributes = attributes_of(await client.post(PATH, json=body))
            (der,) = formats.certificates(attributes["certificate"].encode())
            packed = base64.b64decode(attributes[packing])
            if packing == "der":
                assert packed == der
            else:
                held = {
                    one.public_bytes(Encoding.DER) for one in load_der_pkcs7_certificates(packed)
                }
                assert held == {der, *chain}


async def test_certificates_and_cas_are_fetched_as_files(server: Server):
    async with server.client() as client:
        made = (await client.post(PATH, json=wish(WISH))).json()["data"]
        link = made["links"]["self"]
        der = await client.get(link, params={"format": "der"})
        assert der.headers["Content-Type"] == "application/pkix-cert"
        assert formats.certificates(der.content) == formats.certificates(
            made["attributes"]["certificate"].encode()
        )
        packed = await client.get(link, headers={"Accept": "application/pkcs7-mime"})
        assert len(load_der_pkcs7_certificates(packed.content)) == 1 + len(
            server.authority.issuer.chain
        )
        store = await client.get(f"{BASE}/cas", params={"format": "truststore"})
        anchors = pkcs12.load_pkcs12(store.content, b"changeit").additional_certs
        assert anchors
        assert all(one.certificate.issuer == one.certificate.subject for one in anchors)
        wrong = await client.get(link, params={"format": "doc"})
        assert wrong.status_code == 400
        assert "pkcs7" in wrong.json()["remedy"]
