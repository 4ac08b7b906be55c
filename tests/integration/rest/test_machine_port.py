"""Client certificates: who presents one, what it opens, and what ends it."""

import hashlib

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.pki import keys
from tests.support import pki_hierarchy
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"


async def device(server: Server, name: str = "robot-1", profile: str = "tls-client"):
    """Enroll a device; gives its key, its certificate and its address."""
    key = keys.generate()
    body = wish({"profile": profile, "csr": request_pem(name, key)})
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=body)
    data = answer.json()["data"]
    pem = data["attributes"]["certificate"].encode()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return key, der, data["links"]["self"]


def presenting(server: Server, key, der: bytes) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.urls["machines"], verify=server.trust_with(key, der), trust_env=False
    )


async def test_a_device_renews_its_own_certificate(server: Server):
    key, der, link = await device(server)
    successor = request_pem("robot-1", keys.generate())
    async with presenting(server, key, der) as client:
        mine = await client.get(link)
        answer = await client.post(f"{link}/renew", json=wish({"csr": successor}))
        again = await client.post(f"{link}/renew", json=wish({"csr": successor}))
    assert mine.status_code == 200
    assert answer.status_code == 201, answer.text
    assert again.content == answer.content
    renewed = server.events("certificate.issued")[-1]
    assert renewed["replaces"].replace("/", "-") == link.rpartition("/")[2]
    assert renewed["principal"].startswith("cert:")


async def test_a_device_reaches_nothing_else(server: Server):
    key, der, _link = await device(server)
    _key, _der, foreign = await device(server, "robot-2")
    renewal = wish({"csr": request_pem("robot-2")})
    enrollment = wish({"profile": "tls-client", "csr": request_pem("robot-3")})
    async with presenting(server, key, der) as client:
        answers = [
            await client.get(foreign),
            await client.post(f"{foreign}/renew", json=renewal),
            await client.post(f"{foreign}/revoke", json=wish({})),
            await client.get(f"{BASE}/certificates"),
            await client.post(f"{BASE}/certificates", json=enrollment),
            await client.post(f"{BASE}/certificates/batch", json={"data": []}),
            await client.get(f"{BASE}/status"),
        ]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 403, 403, 403, 403]


async def test_a_revoked_certificate_opens_nothing_at_once(server: Server):
    """TLS lets it in, because the chain is fine; the ledger does not."""
    key, der, link = await device(server)
    async with presenting(server, key, der) as client:
        assert (await client.get(link)).status_code == 200
        async with server.client() as admin:
            await admin.post(f"{link}/revoke", json=wish({"reason": "key_compromise"}))
        answers = [
            await client.get(link),
            await client.post(f"{link}/renew", json=wish({"csr": request_pem("robot-1")})),
        ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert len(server.events("certificate.issued")) == 1


async def test_a_station_may_be_bound_to_a_certificate(server: Server):
    key, der, _link = await device(server)
    await server.access.add_station(
        "press", role="station", profiles=["tls-client"],
        certificate_sha256=hashlib.sha256(der).hexdigest(),
    )  # fmt: skip
    async with presenting(server, key, der) as client:
        answer = await client.post(
            f"{BASE}/certificates",
            json=wish({"profile": "tls-client", "csr": request_pem("robot-9")}),
        )
    assert answer.status_code == 201, answer.text
    assert server.events("certificate.issued")[-1]["principal"] == "station:press"


async def test_a_certificate_that_the_ledger_does_not_know(server: Server):
    """Signed by the right key but never issued by this box: not good in the ledger."""
    key = keys.generate()
    now_us = server.clock.now().utc_us
    plan = pki_hierarchy.leaf_plan(
        public_key=keys.spki(key.public_key()),
        extended_key_usage=("1.3.6.1.5.5.7.3.2",),
        not_before_us=now_us - now_us % 1_000_000 - 1_000_000,
    )
    async with presenting(server, key, server.authority.issue(plan)) as client:
        answer = await client.get(f"{BASE}/status")
    assert answer.status_code == 401


async def test_a_certificate_of_another_ca_ends_the_handshake(server: Server):
    key = keys.generate()
    stranger = pki_hierarchy.root_authority("Stranger")
    der = stranger.issue(
        pki_hierarchy.leaf_plan(
            public_key=keys.spki(key.public_key()), extended_key_usage=("1.3.6.1.5.5.7.3.2",)
        )
    )
    async with presenting(server, key, der) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{BASE}/status")


async def test_without_a_certificate_a_token_works_there_too(server: Server):
    async with server.client(on="machines") as client:
        assert (await client.get(f"{BASE}/status")).status_code == 200
    async with server.client(None, on="machines") as client:
        assert (await client.get(f"{BASE}/status")).status_code == 401


async def test_the_people_port_asks_for_no_certificate(server: Server):
    key, der, link = await device(server)
    async with httpx.AsyncClient(
        base_url=server.urls["people"], verify=server.trust_with(key, der), trust_env=False
    ) as client:
        assert (await client.get(link)).status_code == 401
