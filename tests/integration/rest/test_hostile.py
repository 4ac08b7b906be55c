"""Hostile input: a problem document, an audited refusal, nothing half-written, no stack trace."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from shared.store.schema import certificate, idempotency, intent, key_envelope
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"
JSON = {"Content-Type": "application/json"}
GOOD = wish({"profile": "tls-server", "cn": "line-7.example"})


def assert_problem(answer, *statuses: int) -> dict:
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text}"
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "remedy"} <= problem.keys()
    for leak in ("Traceback", 'File "', ".py", "sqlalchemy", "SELECT"):
        assert leak not in answer.text
    return problem


async def assert_nothing_written(server: Server) -> None:
    for table in (certificate, intent, key_envelope, idempotency):
        rows = await server.rows(select(func.count()).select_from(table))
        assert rows[0][0] == 0, table.name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"data":null}',
        b'{"data":{"type":"certificate"}}',
        b'{"data":{"type":7,"attributes":{}}}',
        b'{"data":{"type":"certificate","attributes":[]}}',
        b'{"data":{"type":"certificate","attributes":{"profile":{"a":1}}}}',
        b'{"data":{"type":"certificate","attributes":{"profile":"TLS Server"}}}',
        b'{"data":{"type":"certificate","attributes":{"profile":"../tls-server"}}}',
        b'{"data":{"type":"certificate","attributes":{"profile":"tls-server","cn":"\\ud800"}}}',
        b'{"data":{"type":"other","attributes":{"profile":"tls-server","cn":"a.example"}}}',
        b'{"data":{"type":"certificate","attributes":{"profile":"tls-server","cn":1e999}}}',
        b"[" * 30_000,
        b'{"data":' * 5_000,
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_malformed_bodies(server: Server, body: bytes):
    async with server.client() as client:
        for path in ("certificates", "cert_server", "certificates/batch"):
            answer = await client.post(f"{BASE}/{path}", content=body, headers=JSON)
            assert_problem(answer, 400)
    await assert_nothing_written(server)
    assert len(server.events("enrollment.refused")) == 3


@pytest.mark.parametrize(
    "cn", ["a\x00b.example", "a\nb", "\u202eevil", "x" * 65, "x" * 300, " a", "*\u0000"]
)
async def test_names_that_deceive(server: Server, cn: str):
    async with server.client() as client:
        answer = await client.post(f"{BASE}/cert_client", json=wish({"cn": cn}, "cert_client"))
    assert_problem(answer, 400, 403)
    assert not server.events("certificate.issued")
    assert len(server.events("enrollment.refused")) == 1


async def test_bodies_that_are_too_large(server: Server):
    async with server.client() as client:
        announced = await client.post(f"{BASE}/certificates", content=b" " * 70_000, headers=JSON)
        assert_problem(announced, 413)

        async def streamed(size: int):
            for _ in range(size // 16_384):
                yield b" " * 16_384

        for path, size in (("certificates", 100_000), ("certificates/batch", 8_500_000)):
            answer = await client.post(f"{BASE}/{path}", content=streamed(size), headers=JSON)
            assert_problem(answer, 413)
    await assert_nothing_written(server)


async def test_a_body_is_bounded_before_anything_else(server: Server):
    """A stranger's large body is not even read."""
    async with server.client(None) as client:
        answer = await client.post(f"{BASE}/certificates", content=b" " * 10_000_000, headers=JSON)
    assert_problem(answer, 401, 413)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/xml", "x"])
async def test_other_media_types(server: Server, content_type: str | None):
    headers = {"Content-Type": content_type} if content_type else {}
    async with server.client() as client:
        answer = await client.post(
            f"{BASE}/certificates", content=json.dumps(GOOD).encode(), headers=headers
        )
    assert_problem(answer, 415)
    await assert_nothing_written(server)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer tma_wrong", "Basic YTpi", "Bearer " + "x" * 7_000],
)
async def test_strangers(server: Server, header: str):
    async with server.client(None) as client:
        answer = await client.post(
            f"{BASE}/certificates", json=GOOD, headers={"Authorization": header}
        )
    assert_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    await assert_nothing_written(server)
    (refused,) = server.events("enrollment.refused")
    assert (refused["principal"], refused["rule"]) == ("anonymous", "unauthenticated")


async def test_strangers_cannot_fill_the_outbox_or_lock_out_a_station(server: Server):
    async with server.client() as station, server.client("tma_wrong") as stranger:
        assert (await station.get(f"{BASE}/status")).status_code == 200
        answers = [await stranger.post(f"{BASE}/certificates", json=GOOD) for _ in range(90)]
        server.clock.advance(3)  # the station's credential is looked up again
        assert (await station.get(f"{BASE}/status")).status_code == 200
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) == 20
    assert statuses.count(429) == 70
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert len(server.events("enrollment.refused")) == 20


async def test_expired_and_revoked_tokens(server: Server):
    now_us = server.clock.now().utc_us
    expiring = await server.station("guest", "*", expires_at_us=now_us + 5_000_000)
    revoked = await server.station("stolen", "*")
    async with server.client(expiring) as one, server.client(revoked) as two:
        assert (await one.get(f"{BASE}/status")).status_code == 200
        assert (await two.get(f"{BASE}/status")).status_code == 200
        await server.access.revoke_station("stolen")
        server.authenticator.forget()
        assert_problem(await two.get(f"{BASE}/status"), 401)
        server.clock.advance(10)
        assert_problem(await one.get(f"{BASE}/status"), 401)


async def test_a_revocation_elsewhere_is_seen_within_two_seconds(server: Server):
    async with server.client() as client:
        assert (await client.get(f"{BASE}/status")).status_code == 200
        await server.access.revoke_station("line-1")
        server.clock.advance(2)
        assert_problem(await client.get(f"{BASE}/status"), 401)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", f"{BASE}/nothing", 404),
        ("DELETE", f"{BASE}/certificates", 405),
        ("PUT", f"{BASE}/cert_server", 405),
        ("GET", "/static/0123456789abcdef/../../../etc/passwd", 404),
        ("GET", "/static/0123456789abcdef/%2e%2e%2fapp.py", 404),
    ],
)
async def test_addresses_that_are_not(server: Server, method: str, path: str, status: int):
    async with server.client() as client:
        assert_problem(await client.request(method, path), status)


async def test_other_sites_cannot_use_a_browsers_credentials(server: Server):
    async with server.client() as client:
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
        ):
            answer = await client.post(f"{BASE}/certificates", json=GOOD, headers=headers)
            assert_problem(answer, 403)
        own = await client.post(
            f"{BASE}/certificates", json=GOOD, headers={"Origin": server.urls["people"]}
        )
    assert own.status_code == 201


async def test_a_defect_shows_an_incident_number_only(server: Server, monkeypatch, caplog):
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(server.ports.reads), "authorities", broken)
    with caplog.at_level(logging.ERROR, logger="shared.web.problems"):
        async with server.client() as client:
            answer = await client.get(f"{BASE}/cas")
    problem = assert_problem(answer, 500)
    assert "secret detail" not in answer.text
    (record,) = caplog.records
    number = record.getMessage().rpartition(" ")[2]
    assert number in problem["detail"]
    assert record.exc_info[0] is ZeroDivisionError


async def test_the_access_log_holds_no_secrets(server: Server, caplog):
    with caplog.at_level(logging.INFO, logger="aiohttp.access"):
        async with server.client() as client:
            await client.post(
                f"{BASE}/certificates?secret=in-query",
                json=wish(
                    {
                        "profile": "tls-server",
                        "cn": "line-7.example",
                        "format": "pkcs8",
                        "password": "correct horse",
                    }
                ),
            )
        await asyncio.sleep(0)
    (line,) = [json.loads(record.getMessage()) for record in caplog.records]
    assert (line["status"], line["principal"]) == (201, "station:line-1")
    text = json.dumps(line)
    assert server.token not in text
    assert "correct horse" not in text
    assert "in-query" not in text


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary().map(lambda data: base64.b64encode(data).decode())
)
_JUNK = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    ["profile", "csr", "cn", "subject", "alt_names", "device_id", "cert_days", "metadata",
     "test", "format", "password"]
)  # fmt: skip
_ATTRIBUTES = st.dictionaries(_NAMES, _JUNK, max_size=6) | _JUNK


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as connected:
        yield connected


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attributes=_ATTRIBUTES, type_name=st.just("certificate") | _JUNK)
async def test_whatever_is_sent_the_answer_is_an_answer(client, attributes, type_name):
    """Any JSON: a certificate or a problem, never a defect."""
    document = {"data": {"type": type_name, "attributes": attributes}}
    for path in ("certificates", "cert_server", "certificates/batch"):
        body = {"data": [document["data"]]} if path.endswith("batch") else document
        answer = await client.post(
            f"{BASE}/{path}", content=json.dumps(body).encode(), headers=JSON
        )
        if answer.status_code not in {200, 201}:
            assert_problem(answer, 400, 403, 404, 413)


_CSR = base64.b64decode("".join(request_pem("a.example").splitlines()[1:-1]))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 1 << 16), flip=st.integers(1, 255), end=st.none() | st.integers(0, 1 << 16)
)
async def test_a_damaged_csr_is_refused(server, client, place, flip, end):
    damaged = bytearray(_CSR)
    damaged[place % len(_CSR)] ^= flip
    csr = base64.b64encode(damaged[: end if end is None else end % len(_CSR)]).decode()
    body = wish({"profile": "tls-client", "csr": csr})
    answer = await client.post(f"{BASE}/certificates", json=body)
    problem = assert_problem(answer, 400)
    assert problem["errors"][0]["pointer"] == "/data/attributes/csr"
    assert not server.events("certificate.issued")
