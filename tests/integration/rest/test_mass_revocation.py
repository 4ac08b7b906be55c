"""Revocation by query: by REST, resumable, each certificate once, within one's rights."""

import asyncio
import contextlib
from collections import Counter

import pytest

from shared.issuance import mass_revocation
from shared.issuance.mass_revocation import MassRevocation
from shared.store.operations import SqlOperations
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"
_FAR = "2150-01-01T00:00:00Z"


def _order(reason="superseded", *, dry_run=False, **criteria) -> dict:
    attributes = {"filter": criteria, "reason": reason, "dry_run": dry_run}
    return wish(attributes, "revocation")


@pytest.fixture(autouse=True)
async def working(server: Server, monkeypatch):
    """Carry orders out in the background, in small steps."""
    monkeypatch.setattr(mass_revocation, "BATCH", 3)

    async def work() -> None:
        while True:
            await server.ports.mass_revocation.step()

    task = asyncio.create_task(work())
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _enroll(server: Server, count: int, profile="tls-client", **attributes) -> list[str]:
    data = [
        {
            "type": "certificate",
            "attributes": {
                "profile": profile,
                "csr": request_pem(f"host-{number}.example"),
                "device_id": f"SN-{number}",
                **attributes,
            },
        }
        for number in range(count)
    ]
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates/batch", json={"data": data})
    results = answer.json()["data"]
    assert {result["status"] for result in results} == {201}, results
    return [result["data"]["attributes"]["serial"] for result in results]


async def _done(client, location: str) -> dict:
    async with asyncio.timeout(30):
        while True:
            attributes = (await client.get(location)).json()["data"]["attributes"]
            if attributes["state"] != "running":
                return attributes
            await asyncio.sleep(0.02)


def _revoked(server: Server) -> Counter:
    return Counter(body["serial"] for body in server.events("certificate.revoked"))


async def test_estimate_then_revoke(server: Server):
    clients = await _enroll(server, 10)
    await _enroll(server, 2, "tls-server")
    async with server.client() as client:
        body = _order(profile="tls-client", dry_run=True)
        [estimate] = (await client.post(f"{BASE}/revocations", json=body)).json()["data"]
        assert estimate["id"] == server.authority.issuer.ca_id
        assert estimate["attributes"]["certificates"] == 10
        assert 300 < estimate["attributes"]["crl_bytes"] < 600
        assert not _revoked(server)
        answer = await client.post(f"{BASE}/revocations", json=_order(profile="tls-client"))
        assert answer.status_code == 202, answer.text
        done = await _done(client, answer.headers["Location"])
        assert (done["state"], done["found"], done["revoked"]) == ("done", 10, 10)
        rows = (await client.get(f"{BASE}/certificates?filter[status]=revoked")).json()["data"]
    assert _revoked(server) == Counter(clients)
    assert {row["attributes"]["reason"] for row in rows} == {"superseded"}


async def test_what_comes_later_is_not_meant_and_a_retry_is_the_same_operation(server: Server):
    await _enroll(server, 4)
    headers = {"Idempotency-Key": "recall-7"}
    async with server.client() as client:
        body = _order(expires_before=_FAR)
        first = await client.post(f"{BASE}/revocations", json=body, headers=headers)
        await _done(client, first.headers["Location"])
        await _enroll(server, 2, "tls-server")
        again = await client.post(f"{BASE}/revocations", json=body, headers=headers)
        assert again.headers["Location"] == first.headers["Location"]
        assert (await _done(client, again.headers["Location"]))["revoked"] == 4
        other = _order(expires_before=_FAR, reason="key_compromise")
        answer = await client.post(f"{BASE}/revocations", json=other, headers=headers)
        assert answer.status_code == 422
    assert len(_revoked(server)) == 4


@pytest.mark.parametrize(
    ("criteria", "meant"),
    [
        ({"device_ids": ["SN-1", "SN-3"]}, 2),
        ({"metadata": {"line": "7"}}, 5),
        ({"metadata": {"line": "7", "shift": 'a "late" one'}}, 5),
        ({"metadata": {"Line": "7"}}, 0),
        ({"metadata": {"late": "7"}}, 0),
        ({"metadata": {"note": "7"}}, 0),
        ({"issued_before": "2001-01-01T00:00:00Z"}, 0),
        ({"issued_from": "2001-01-01T00:00:00Z", "profile": "tls-client"}, 5),
        ({"expires_from": _FAR}, 0),
        ({"origin": "gw-9"}, 0),
        ({"ca_id": "ab" * 20}, 0),
    ],
)
async def test_each_criterion(server: Server, criteria, meant):
    metadata = {"line": "7", "shift": 'a "late" one', "say": '", "note": "7'}
    await _enroll(server, 5, metadata=metadata)
    async with server.client() as client:
        body = _order(dry_run=True, **criteria)
        data = (await client.post(f"{BASE}/revocations", json=body)).json()["data"]
    assert sum(one["attributes"]["certificates"] for one in data) == meant


async def test_serials_as_people_write_them(server: Server):
    serials = await _enroll(server, 3)
    typed = [serials[0].upper(), "0x" + serials[1].lstrip("0")]
    async with server.client() as client:
        answer = await client.post(f"{BASE}/revocations", json=_order(serials=typed))
        await _done(client, answer.headers["Location"])
    assert _revoked(server) == Counter(serials[:2])


async def test_orders_that_mean_everything_or_nothing_sensible_are_refused(server: Server):
    async with server.client() as client:
        for body in (
            _order(),
            _order(profile=""),
            _order(metadata={}),
            _order(wrong="x"),
            _order(profile="tls-client", reason="certificate_hold"),
            _order(serials=["1"] * 1001),
        ):
            answer = await client.post(f"{BASE}/revocations", json=body)
            assert answer.status_code == 400, answer.text
        assert (await client.get(f"{BASE}/operations/{'0' * 32}")).status_code == 404


async def test_rights_limit_what_is_meant_and_what_is_seen(server: Server):
    await _enroll(server, 3)
    servers = await _enroll(server, 2, "tls-server")
    narrow = await server.station("servers-only", "tls-server")
    auditor = await server.station("looks-only", "*", role="auditor")
    async with server.client(narrow) as client:
        answer = await client.post(f"{BASE}/revocations", json=_order(expires_before=_FAR))
        done = await _done(client, answer.headers["Location"])
        assert (done["found"], done["revoked"]) == (2, 2)
    assert _revoked(server) == Counter(servers)
    async with server.client(auditor) as client:
        assert (await client.get(answer.headers["Location"])).status_code == 403
        refused = await client.post(f"{BASE}/revocations", json=_order(profile="tls-client"))
        assert refused.status_code == 403
    other = await server.station("clients-only", "tls-client")
    async with server.client(other) as client:
        assert (await client.get(answer.headers["Location"])).status_code == 404


async def test_a_crash_between_two_steps_loses_and_doubles_nothing(server: Server, working):
    serials = await _enroll(server, 20)
    operations = SqlOperations(server.database)
    steps = 0

    class Dying(SqlOperations):
        async def revoke(self, operation, places, position):
            nonlocal steps
            steps += 1
            if steps % 2 == 0:
                raise asyncio.CancelledError  # the process ends here
            return await super().revoke(operation, places, position)

    working.cancel()
    async with server.client() as client:
        answer = await client.post(f"{BASE}/revocations", json=_order(profile="tls-client"))
    for _start in range(30):
        mass = MassRevocation(Dying(server.database), server.status, lambda: None)
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            async with asyncio.timeout(2):
                await mass.step()
        if not await operations.running():
            break
    assert steps > 8
    assert _revoked(server) == Counter(serials)
    found = await operations.find(answer.json()["data"]["id"])
    assert found is not None
    assert (found.state, found.revoked) == ("done", 20)


async def test_cancelled_operations_stop_where_they_are(server: Server, working):
    await _enroll(server, 9)
    working.cancel()
    async with server.client() as client:
        answer = await client.post(f"{BASE}/revocations", json=_order(profile="tls-client"))
        operations = SqlOperations(server.database)
        [operation] = await operations.running()
        places, _looked = await operations.following(operation)
        moved = await operations.revoke(operation, places[:3], places[2].id)
        assert moved is not None
        assert await operations.revoke(operation, places[:3], places[2].id) is None, "it moved on"
        cancelled = await client.delete(answer.headers["Location"])
        assert cancelled.json()["data"]["attributes"]["state"] == "cancelled"
        assert await operations.revoke(moved, places[3:], places[-1].id) is None
    assert len(_revoked(server)) == 3
