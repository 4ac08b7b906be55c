"""The same request again, at once or later: one certificate, equal answers."""

import asyncio
import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import select

from shared.store.schema import key_envelope
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"
MINUTE_S = 60


def attributes_of(kind: str) -> dict:
    csr = {"csr": request_pem("line-7.example")}
    made_here = {"cn": "line-7.example"}
    password = {"password": "correct horse"}
    return {"profile": "tls-server"} | {
        "csr": csr,
        "server-key": made_here,
        "pkcs12": made_here | {"format": "pkcs12"} | password,
        "pkcs8": made_here | {"format": "pkcs8"} | password,
    }[kind]


@pytest.mark.parametrize("keyed", [False, True], ids=["no-key", "key"])
@pytest.mark.parametrize("kind", ["csr", "server-key", "pkcs12"])
async def test_parallel_equal_requests_get_one_certificate(server: Server, kind: str, keyed: bool):
    headers = {"Idempotency-Key": "order-4711"} if keyed else {}
    body = wish(attributes_of(kind))
    async with server.client() as client:
        answers = await asyncio.gather(
            *(client.post(f"{BASE}/certificates", json=body, headers=headers) for _ in range(64))
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(server.events("certificate.issued")) == 1


@pytest.mark.parametrize("kind", ["csr", "server-key", "pkcs12", "pkcs8"])
async def test_another_content_under_the_same_key_is_refused(server: Server, kind: str):
    attributes = attributes_of(kind)
    key = {"Idempotency-Key": "order-4711"}
    async with server.client() as client:
        first = await client.post(f"{BASE}/certificates", json=wish(attributes), headers=key)
        other = await client.post(
            f"{BASE}/certificates", json=wish(attributes | {"cert_days": 5}), headers=key
        )
        elsewhere = await client.post(
            f"{BASE}/cert_server", json=wish(attributes, "cert_server"), headers=key
        )
        again = await client.post(f"{BASE}/certificates", json=wish(attributes), headers=key)
    assert (first.status_code, other.status_code) == (201, 422)
    assert other.json()["code"] == "idempotency-key-reused"
    assert elsewhere.status_code == 201  # a key belongs to one route
    assert again.content == first.content


async def test_keys_belong_to_one_principal(server: Server):
    other = await server.station("line-2", "*")
    body = wish(attributes_of("csr"))
    key = {"Idempotency-Key": "order-4711"}
    async with server.client() as one, server.client(other) as two:
        first = await one.post(f"{BASE}/certificates", json=body, headers=key)
        second = await two.post(f"{BASE}/certificates", json=body, headers=key)
    assert first.json()["data"]["id"] != second.json()["data"]["id"]


@pytest.mark.parametrize("keyed", [False, True], ids=["no-key", "key"])
async def test_a_server_made_key_is_given_again_for_15_minutes(server: Server, keyed: bool):
    headers = {"Idempotency-Key": "order-4711"} if keyed else {}
    body = wish(attributes_of("server-key"))

    async def ask():
        async with server.client() as client:
            answer = await client.post(f"{BASE}/certificates", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]

    first = await ask()
    server.clock.advance(14 * MINUTE_S)
    assert await ask() == first
    server.clock.advance(2 * MINUTE_S)
    await server.kept.purge()
    second = await ask()
    assert second["id"] != first["id"]
    assert second["attributes"]["private_key"] != first["attributes"]["private_key"]
    assert await ask() == second
    (revoked,) = server.events("certificate.revoked")
    assert revoked["serial"] == first["attributes"]["serial"]
    assert revoked["reason"] == "superseded"


async def test_a_key_is_wrapped_at_rest_and_gone_after_its_time(server: Server):
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=wish(attributes_of("server-key")))
    pem = answer.json()["data"]["attributes"]["private_key"]
    secret = load_pem_private_key(pem.encode(), None).private_numbers().private_value
    needles = [secret.to_bytes(32, "big"), base64.b64encode(secret.to_bytes(32, "big"))]
    files = [path.read_bytes() for path in server.folder.iterdir() if path.is_file()]
    assert not [needle for needle in needles for content in files if needle in content]
    server.clock.advance(16 * MINUTE_S)
    await server.kept.purge()
    rows = await server.rows(select(key_envelope))
    assert [row.envelope for row in rows] == [b""]


async def test_a_day_later_an_equal_request_is_a_new_one(server: Server):
    """Without a key of the client's nobody can tell a late retry from a second wish."""
    body = wish(attributes_of("server-key"))
    async with server.client() as client:
        first = await client.post(f"{BASE}/certificates", json=body)
        server.clock.advance(25 * 3600)
        second = await client.post(f"{BASE}/certificates", json=body)
    assert first.json()["data"]["id"] != second.json()["data"]["id"]
    assert not server.events("certificate.revoked")


async def test_a_retried_batch_with_keys_gives_the_same_results(server: Server):
    items = [wish(attributes_of(kind))["data"] for kind in ("csr", "server-key")]
    key = {"Idempotency-Key": "shift-12"}
    async with server.client() as client:
        first = await client.post(f"{BASE}/certificates/batch", json={"data": items}, headers=key)
        again = await client.post(f"{BASE}/certificates/batch", json={"data": items}, headers=key)
        swapped = await client.post(
            f"{BASE}/certificates/batch", json={"data": items[::-1]}, headers=key
        )
    assert first.content == again.content
    assert {result["status"] for result in swapped.json()["data"]} == {422}
    assert len(server.events("certificate.issued")) == 2


@pytest.mark.parametrize("kind", ["csr", "server-key", "pkcs12"])
async def test_a_revoked_certificate_is_not_given_again(server: Server, kind: str):
    """Nor is its key, if it was made here: it may be compromised."""
    body = wish(attributes_of(kind))
    async with server.client() as client:
        first = await client.post(f"{BASE}/certificates", json=body)
        link = first.json()["data"]["links"]["self"]
        await client.post(f"{link}/revoke", json=wish({"reason": "key_compromise"}))
        second = await client.post(f"{BASE}/certificates", json=body)
        again = await client.post(f"{BASE}/certificates", json=body)
    assert second.status_code == 201
    assert second.content == again.content
    one, two = (answer.json()["data"]["attributes"] for answer in (first, second))
    assert one["serial"] != two["serial"]
    spkis = [x509.load_pem_x509_certificate(each["certificate"].encode()) for each in (one, two)]
    assert (spkis[0].public_key() == spkis[1].public_key()) is (kind == "csr")
    assert len(server.events("certificate.revoked")) == 1


@pytest.mark.parametrize("key", ["", "x" * 129, "ä", "a b"])
async def test_a_malformed_key_is_refused(server: Server, key: str):
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/certificates",
            json=wish(attributes_of("csr")),
            headers={"Idempotency-Key": key.encode()},
        )
    assert answer.status_code == 400
    assert not server.events("certificate.issued")


def test_the_csrs_differ():
    """Each CSR above has a key of its own, or the tests would prove nothing."""
    pems = [attributes_of("csr")["csr"] for _ in range(2)]
    one, two = (x509.load_pem_x509_csr(pem.encode()).public_key() for pem in pems)
    assert one != two
