"""The quota of a grant under load: never exceeded, whoever asks at once and however often."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from shared.pki import keys
from shared.policy.grant import Grant
from shared.policy.shipped import SHIPPED
from shared.store import schema
from tests.support import rest_server
from tests.support.rest_server import Server, request_pem, wish

PATH = "/api/v2.0/certificates"
QUOTA = 12
LEFT = 10
AT_ONCE = 64
_KEY = keys.generate()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A gateway whose grant has ten certificates left."""
    grant = Grant(
        grant_id="grant-1",
        version=1,
        profiles=tuple(profile.name for profile in SHIPPED),
        quota=QUOTA,
        not_before_us=0,
        not_after_us=1 << 52,
    )
    async with rest_server.serve(tmp_path, grant=grant) as running:
        async with running.client() as client:
            for number in range(QUOTA - LEFT):
                assert (await enroll(client, f"earlier-{number}")).status_code == 201
        yield running


def body(device: str) -> dict:
    csr = request_pem(f"{device}.example", _KEY)
    return wish({"profile": "tls-server", "csr": csr, "device_id": device})


async def enroll(client: httpx.AsyncClient, device: str) -> httpx.Response:
    return await client.post(PATH, json=body(device))


async def assert_counted(server: Server, *, refused: int) -> None:
    """Grant, counters, ledger and events say the same, each counted from its rows."""
    use = await server.rows(select(schema.grant_use.c.used, schema.grant_use.c.quota))
    assert [tuple(row) for row in use] == [(QUOTA, QUOTA)]
    rows = await server.rows(
        select(schema.certificate.c.state, func.count()).group_by(schema.certificate.c.state)
    )
    assert [tuple(row) for row in rows] == [("issued", QUOTA)]
    assert await server.rows(select(schema.intent.c.intent_id)) == []
    counted = dict(map(tuple, await server.rows(select(schema.counter))))
    assert counted["issued/"] == QUOTA == len(server.events("certificate.issued"))
    assert counted.get("voided/", 0) == 0
    assert counted.get("refused/", 0) == refused == len(server.events("enrollment.refused"))


def assert_refused(problem: dict) -> None:
    assert (problem["status"], problem["rule"]) == (403, "grant.quota")
    assert problem["detail"] == f"All {QUOTA} certificates of the grant are used."
    assert problem["remedy"] == "Ask central for a larger grant."


def serials(answers: Sequence[httpx.Response]) -> set[str]:
    return {answer.json()["data"]["id"] for answer in answers}


async def test_distinct_requests_at_once_get_what_is_left_and_no_more(server: Server):
    async with server.client() as client:
        answers = await asyncio.gather(*(enroll(client, f"d{n}") for n in range(AT_ONCE)))
    issued = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert (len(serials(issued)), len(refused)) == (LEFT, AT_ONCE - LEFT)
    for answer in refused:
        assert_refused(answer.json())
    await assert_counted(server, refused=AT_ONCE - LEFT)


async def test_a_batch_gets_what_is_left_and_no_more(server: Server):
    items = [body(f"d{number}")["data"] for number in range(AT_ONCE)]
    async with server.client() as client:
        answer = await client.post(f"{PATH}/batch", json={"data": items})
    assert answer.status_code == 200, answer.text
    results = answer.json()["data"]
    issued = {one["data"]["id"] for one in results if one["status"] == 201}
    problems = [one["problem"] for one in results if one["status"] != 201]
    assert (len(issued), len(problems)) == (LEFT, AT_ONCE - LEFT)
    for problem in problems:
        assert_refused(problem)
    await assert_counted(server, refused=AT_ONCE - LEFT)


async def test_equal_requests_among_them_share_one_unit_each(server: Server):
    """Sixteen devices, each asked for four times at once: retries cost nothing and fail alike."""
    devices = [f"d{number}" for number in range(16)]
    wishes = {device: body(device) for device in devices}
    async with server.client() as client:
        answers = await asyncio.gather(
            *(client.post(PATH, json=wishes[device]) for device in devices * 4)
        )
        again = await asyncio.gather(*(client.post(PATH, json=one) for one in wishes.values()))
    got = {
        device: {one.json()["data"]["id"] for one in answers[number::16] if one.status_code == 201}
        for number, device in enumerate(devices)
    }
    served = [device for device, ids in got.items() if ids]
    assert len(served) == LEFT == len(set.union(*got.values()))
    assert all(len(ids) <= 1 for ids in got.values())
    for number, device in enumerate(devices):
        statuses = {one.status_code for one in answers[number::16]}
        assert statuses == ({201} if device in served else {403})
        assert again[number].status_code == (201 if device in served else 403)
    for answer in [*answers, *again]:
        if answer.status_code != 201:
            assert_refused(answer.json())
    refusals = len(server.events("enrollment.refused"))
    assert (16 - LEFT) * 2 <= refusals <= (16 - LEFT) * 5  # equal ones share theirs while they last
    await assert_counted(server, refused=refusals)


async def test_stations_of_both_protocols_share_one_quota(server: Server):
    """Half by EST, half by REST, from two stations."""
    tokens = [server.token, await server.station("line-2", "*")]
    path = "/.well-known/est/tls-server/simpleenroll"
    async with server.client(tokens[0], on="machines") as est, server.client(tokens[1]) as rest:
        answers = await asyncio.gather(
            *(est.post(path, content=request_pem(f"e{n}.example", _KEY)) for n in range(32)),
            *(enroll(rest, f"r{n}") for n in range(32)),
        )
    assert [answer.status_code in {200, 201} for answer in answers].count(True) == LEFT
    for answer in answers[:32]:
        assert answer.status_code == 200 or "Ask central for a larger grant" in answer.text
    for answer in answers[32:]:
        if answer.status_code != 201:
            assert_refused(answer.json())
    await assert_counted(server, refused=AT_ONCE - LEFT)
