"""What happens after issuing: fetch, search, renew, revoke, hold, release; and who may."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.pki import formats, keys
from shared.policy.shipped import SHIPPED
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"


async def enroll(server: Server, name: str, profile: str = "tls-client", **attributes) -> dict:
    body = wish({"profile": profile, "csr": request_pem(name), **attributes})
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


async def test_fetch_in_each_form(server: Server):
    data = await enroll(server, "robot-1", device_id="R-1")
    link = data["links"]["self"]
    async with server.client() as client:
        as_json = await client.get(link)
        der = await client.get(link, headers={"Accept": "application/pkix-cert"})
        pem = await client.get(link, headers={"Accept": "application/x-pem-file"})
    assert der.headers["Content-Type"] == "application/pkix-cert"
    assert x509.load_der_x509_certificate(der.content).serial_number == int(
        data["attributes"]["serial"], 16
    )
    chain = [der.content, *server.authority.issuer.chain]
    assert formats.certificates(pem.content) == chain
    attributes = as_json.json()["data"]["attributes"]
    assert attributes["certificate"] == data["attributes"]["certificate"]
    assert (attributes["status"], attributes["device_id"]) == ("good", "R-1")


@pytest.mark.parametrize("identifier", ["x", "0" * 40 + "-" + "0" * 32, "%00", "a" * 5000])
async def test_what_is_not_there(server: Server, identifier: str):
    async with server.client() as client:
        answer = await client.get(f"{BASE}/certificates/{identifier}?x=1")
    assert answer.status_code in {400, 404}
    assert "Traceback" not in answer.text


async def test_search_pages_through_everything_once(server: Server):
    for number in range(7):
        await enroll(server, f"robot-{number}")
    found: list[str] = []
    async with server.client() as client:
        link = f"{BASE}/certificates?page[size]=3"
        while link:
            page = (await client.get(link)).json()
            found += [item["attributes"]["cn"] for item in page["data"]]
            link = page["links"].get("next")
    assert found == [f"robot-{number}" for number in reversed(range(7))]


async def test_search_by_filters(server: Server):
    await enroll(server, "robot-1", device_id="R-1")
    await enroll(server, "robot-2", profile="tls-server")
    revoked = await enroll(server, "robot-3")

    async def names(query: str) -> list[str]:
        answer = await client.get(f"{BASE}/certificates?{query}")
        assert answer.status_code == 200, answer.text
        return [item["attributes"]["cn"] for item in answer.json()["data"]]

    async with server.client() as client:
        await client.post(f"{revoked['links']['self']}/revoke", json=wish({}))
        assert await names("filter[device_id]=R-1") == ["robot-1"]
        assert await names("filter[profile]=tls-server") == ["robot-2"]
        assert await names("filter[status]=revoked") == ["robot-3"]
        assert await names(f"filter[serial]={revoked['attributes']['serial']}") == ["robot-3"]
        assert await names("filter[cn]=robot-1&filter[status]=revoked") == []
        assert await names("filter[cn]=' OR 1=1 --") == []
        for wrong in ("filter[nonsense]=1", "page[size]=x", "page[after]=-1", "sort=cn"):
            assert (await client.get(f"{BASE}/certificates?{wrong}")).status_code == 400


async def test_revoke_is_for_good_and_idempotent(server: Server):
    data = await enroll(server, "robot-1")
    link = data["links"]["self"]
    key = {"Idempotency-Key": "r-1"}
    body = wish({"reason": "key_compromise"}, "revocation")
    async with server.client() as client:
        first = await client.post(f"{link}/revoke", json=body, headers=key)
        again = await client.post(f"{link}/revoke", json=body, headers=key)
        plain = await client.post(f"{link}/revoke", json=wish({"reason": "superseded"}))
        other = await client.post(f"{link}/revoke", json=wish({}), headers=key)
        release = await client.post(f"{link}/release", json=wish({"hold_id": "h"}))
        shown = await client.get(link)
    assert first.status_code == 200, first.text
    assert first.json()["data"]["attributes"]["status"] == "revoked"
    assert again.content == first.content == plain.content
    assert other.status_code == 422
    assert release.json()["data"]["attributes"]["status"] == "revoked"
    assert shown.json()["data"]["attributes"]["reason"] == "key_compromise"
    assert len(server.events("certificate.revoked")) == 1


async def test_holds_are_a_set(server: Server):
    data = await enroll(server, "robot-1")
    link = data["links"]["self"]

    async def change(action: str, hold_id: str) -> str:
        answer = await client.post(f"{link}/{action}", json=wish({"hold_id": hold_id}))
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["attributes"]["status"]

    async with server.client() as client:
        assert await change("hold", "audit-1") == "hold"
        assert await change("hold", "audit-2") == "hold"
        assert await change("release", "audit-1") == "hold"
        assert await change("release", "audit-2") == "good"
        assert await change("hold", "audit-1") == "good"  # a replayed hold never holds again


@pytest.mark.parametrize("reason", ["certificate_hold", "nonsense", 7])
async def test_only_known_reasons(server: Server, reason: object):
    data = await enroll(server, "robot-1")
    async with server.client() as client:
        answer = await client.post(f"{data['links']['self']}/revoke", json=wish({"reason": reason}))
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/data/attributes/reason"


async def test_renew_by_token_keeps_what_the_certificate_says(server: Server):
    data = await enroll(
        server,
        "robot-1",
        profile="tls-server",
        device_id="R-1",
        alt_names={"dns": ["robot-1.example"], "ip": ["192.0.2.1"]},
    )
    key = keys.generate()
    csr = request_pem("somebody else", key)
    async with server.client() as client:
        answer = await client.post(
            f"{data['links']['self']}/renew", json=wish({"csr": csr, "cert_days": 30})
        )
        assert answer.status_code == 201, answer.text
        shown = await client.get(answer.json()["data"]["links"]["self"])
    old, new = (
        x509.load_pem_x509_certificate(item["attributes"]["certificate"].encode())
        for item in (data, answer.json()["data"])
    )
    kind = x509.SubjectAlternativeName
    assert new.subject == old.subject
    assert (
        new.extensions.get_extension_for_class(kind).value
        == old.extensions.get_extension_for_class(kind).value
    )
    assert new.public_key() == key.public_key()
    attributes = shown.json()["data"]["attributes"]
    assert attributes["replaces"] == data["id"]
    assert attributes["device_id"] == "R-1"


async def test_a_revoked_certificate_is_not_renewed(server: Server):
    data = await enroll(server, "robot-1")
    async with server.client() as client:
        await client.post(f"{data['links']['self']}/revoke", json=wish({}))
        answer = await client.post(
            f"{data['links']['self']}/renew", json=wish({"csr": request_pem("robot-1")})
        )
    assert answer.status_code == 409


async def test_a_station_sees_and_uses_its_profiles_only(server: Server):
    client_certificate = await enroll(server, "robot-1")
    server_certificate = await enroll(server, "line-1", profile="tls-server")
    token = await server.station("servers", "tls-server")
    foreign = client_certificate["links"]["self"]
    async with server.client(token) as client:
        mine = await client.get(server_certificate["links"]["self"])
        answers = [
            await client.get(foreign),
            await client.post(f"{foreign}/revoke", json=wish({})),
            await client.post(f"{foreign}/renew", json=wish({"csr": request_pem("robot-1")})),
        ]
        denied = await client.post(
            f"{BASE}/cert_client", json=wish({"csr": request_pem("x")}, "cert_client")
        )
        listed = (await client.get(f"{BASE}/certificates")).json()["data"]
        profiles = (await client.get(f"{BASE}/profiles")).json()["data"]
    assert mine.status_code == 200
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert denied.status_code == 403
    assert [item["attributes"]["profile"] for item in listed] == ["tls-server"]
    assert [profile["id"] for profile in profiles] == ["tls-server"]


async def test_an_auditor_reads_everything_and_changes_nothing(server: Server):
    data = await enroll(server, "robot-1")
    link = data["links"]["self"]
    token = await server.station("audit", "*", role="auditor")
    async with server.client(token) as client:
        reads = [await client.get(path) for path in (link, f"{BASE}/certificates", f"{BASE}/cas")]
        changes = [
            await client.post(f"{BASE}/certificates", json=wish({"profile": "tls-client"})),
            await client.post(f"{BASE}/certificates/batch", json={"data": []}),
            await client.post(f"{link}/renew", json=wish({"csr": request_pem("x")})),
            await client.post(f"{link}/revoke", json=wish({})),
            await client.post(f"{link}/hold", json=wish({"hold_id": "h"})),
        ]
    assert {answer.status_code for answer in reads} == {200}
    assert {answer.status_code for answer in changes} == {403}
    assert len(server.events("enrollment.refused")) == 5


async def test_catalogue(server: Server):
    async with server.client() as client:
        profiles = (await client.get(f"{BASE}/profiles")).json()["data"]
        authorities = (await client.get(f"{BASE}/cas")).json()["data"]
        status = (await client.get(f"{BASE}/status")).json()["data"]
    assert {profile["id"] for profile in profiles} == {profile.name for profile in SHIPPED}
    assert status["attributes"] == {"line": "possible"}
    by_kind = {item["attributes"]["kind"]: item for item in authorities}
    gateway = by_kind["gateway"]
    assert gateway["id"] == server.authority.issuer.ca_id
    certificate = x509.load_pem_x509_certificate(gateway["attributes"]["certificate"].encode())
    assert certificate.public_bytes(Encoding.DER) == server.authority.issuer.chain[0]
