"""Who is admitted at an alias besides stations: passwords, codes, machines, webhooks."""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shared.enroll.requesters.doorkeeper import code_hash
from shared.policy.access import Access, Alias, Evidence, Manufacturer, Requester, Wrapping
from shared.policy.device import DeviceRecord
from shared.store import devices
from shared.web import app, tls
from shared.web.auth import open_to_all
from shared.web.passwords import encode
from tests.support import idevid
from tests.support.est import Answer, EstClient, certificates
from tests.support.rest_server import Server

CODE = "ABCDE-23456-FGHJK-789MN"
PASSWORD = "correct horse battery"
FAR = 1 << 52


def subject(answer: Answer) -> str:
    assert answer.status == 200, answer.text
    [certificate] = certificates(base64.b64decode(answer.body))
    return certificate.subject.rfc4514_string()


def alias(*accepts: Evidence, **more: Any) -> Alias:
    return Alias(name="tls-client", profile="tls-client", accepts=accepts, **more)


def access(*aliases: Alias, **more: Any) -> Access:
    return Access(aliases=aliases, **more)


async def test_a_requester_enrolls_by_password_where_he_may(server: Server, client: EstClient):
    who = {"kind": "password", "password_hash": encode(PASSWORD)}
    mes = Requester(name="mes", aliases=("tls-client",), **who)
    other = Requester(name="other", aliases=("elsewhere",), **who)
    over = Requester(name="over", aliases=("*",), expires_at_us=1, **who)
    server.rules.access = access(alias(Evidence.PASSWORD), requesters=(mes, other, over))
    csr = client.request("dev-1", "/CN=dev-1")
    good = await client.post("simpleenroll", csr, "-u", f"mes:{PASSWORD}")
    assert subject(good) == "CN=dev-1"
    assert server.events("certificate.issued")[0]["principal"] == "requester:mes"
    for login in ("mes:wrong horse battery", f"other:{PASSWORD}", f"over:{PASSWORD}", f"no:{CODE}"):
        assert (await client.post("simpleenroll", csr, "-u", login)).status == 401
    token = await client.post("simpleenroll", csr, "-u", f":{server.token}")
    assert token.status == 403  # this alias takes passwords only


async def test_guessing_is_throttled(server: Server, client: EstClient):
    server.rules.access = access(alias(Evidence.PASSWORD))
    csr = client.request("dev-1", "/CN=dev-1")
    async with server.client(None, on="machines") as http:
        url = "/.well-known/est/tls-client/simpleenroll"
        statuses = [
            (await http.post(url, content=csr.read_bytes(), auth=("SN-7", CODE))).status_code
            for _ in range(24)
        ]
    assert statuses[0] == 401
    assert statuses[-1] == 429


async def put_code(server: Server, text: str, serial: str, end_us: int = FAR) -> None:
    await server.database.writer.run(
        lambda tx: devices.put_code(tx, code_hash(text), serial, alias="*", expires_at_us=end_us)
    )


async def test_a_code_is_spent_once_and_a_retry_gets_the_same(server: Server, client: EstClient):
    server.rules.access = access(alias(Evidence.CODE))
    await put_code(server, CODE, "SN-7")
    csr = client.request("dev-1", "/CN=dev-1/serialNumber=SN-7")
    login = ("-u", f"SN-7:{CODE.lower()}")
    first, again = [await client.post("simpleenroll", csr, *login) for _ in range(2)]
    assert subject(first) == "2.5.4.5=SN-7,CN=dev-1"
    assert first.body == again.body
    another = client.request("dev-2", "/CN=dev-2/serialNumber=SN-7")
    spent = await client.post("simpleenroll", another, *login)
    assert (spent.status, "used by another request" in spent.text) == (403, True)
    assert len(server.events("certificate.issued")) == 1


async def test_a_code_opens_nothing_else(server: Server, client: EstClient):
    server.rules.access = access(alias(Evidence.CODE))
    await put_code(server, CODE, "SN-7")
    await put_code(server, CODE[::-1], "SN-8", end_us=1)
    foreign = client.request("dev-1", "/CN=dev-1/serialNumber=SN-9")
    mine = client.request("dev-2", "/CN=dev-2")
    wrong_device = await client.post("simpleenroll", foreign, "-u", f"SN-7:{CODE}")
    wrong_name = await client.post("simpleenroll", mine, "-u", f"SN-9:{CODE}")
    over = await client.post("simpleenroll", mine, "-u", f"SN-8:{CODE[::-1]}")
    assert [wrong_device.status, wrong_name.status, over.status] == [403, 401, 401]
    good = await client.post("simpleenroll", mine, "-u", f"SN-7:{CODE}")
    assert good.status == 200
    assert server.events("certificate.issued")[0]["device_id"] == "SN-7"


async def test_only_known_devices_where_the_alias_says_so(server: Server, client: EstClient):
    server.rules.access = access(alias(Evidence.TOKEN, known_devices_only=True))
    record = DeviceRecord("SN-1", "mixer")
    await server.database.writer.run(lambda tx: devices.put(tx, [record], 1))
    await server.devices.load()
    login = ("-u", f":{server.token}")
    known = await client.post(
        "simpleenroll", client.request("a", "/CN=a/serialNumber=SN-1"), *login
    )
    unknown = await client.post(
        "simpleenroll", client.request("b", "/CN=b/serialNumber=SN-2"), *login
    )
    nameless = await client.post("simpleenroll", client.request("c", "/CN=c"), *login)
    assert [known.status, unknown.status, nameless.status] == [200, 403, 403]
    assert "not known here" in unknown.text
    assert server.events("enrollment.refused")[0]["rule"] == "device.known"


@pytest.fixture
def maker(server: Server, tmp_path: Path) -> idevid.Manufacturer:
    """A manufacturer whose CAs TLS lets in."""
    made = idevid.Manufacturer(tmp_path)
    assert server.machine_context is not None
    tls.trust(server.machine_context, made.ders)
    return made


def onboarding(maker: idevid.Manufacturer, **more: Any) -> Access:
    trusted = Manufacturer(name="maker", certificates=maker.ders, **more)
    onboards = alias(Evidence.MANUFACTURER, manufacturers=("maker",), serial_pattern="MX-####")
    return access(onboards, manufacturers=(trusted,))


async def test_a_machine_enrolls_by_its_idevid(
    server: Server, client: EstClient, maker: idevid.Manufacturer
):
    server.rules.access = onboarding(maker)
    pem, key = maker.device("MX-0001")
    mine = ("--cert", str(pem), "--key", str(key))
    own = client.request("dev-1", "/CN=dev-1/serialNumber=MX-0001")
    foreign = client.request("dev-2", "/CN=dev-2/serialNumber=MX-0002")
    assert subject(await client.post("simpleenroll", own, *mine)) == "2.5.4.5=MX-0001,CN=dev-1"
    assert (await client.post("simpleenroll", foreign, *mine)).status == 403
    assert (await client.post("simplereenroll", own, *mine)).status == 401
    odd_pem, odd_key = maker.device("ZZ-1")
    odd = ("--cert", str(odd_pem), "--key", str(odd_key))
    refused = await client.post("simpleenroll", foreign, *odd)
    assert (refused.status, "MX-####" in refused.text) == (403, True)


async def test_a_revoked_or_foreign_machine_is_not_believed(
    server: Server, client: EstClient, maker: idevid.Manufacturer, tmp_path: Path
):
    pem, key = maker.device("MX-0001")
    server.rules.access = onboarding(maker, crls=(maker.crl(pem),))
    csr = client.request("dev-1", "/CN=dev-1/serialNumber=MX-0001")
    revoked = await client.post("simpleenroll", csr, "--cert", str(pem), "--key", str(key))
    (tmp_path / "other").mkdir()
    stranger = idevid.Manufacturer(tmp_path / "other", "Stranger")
    assert server.machine_context is not None
    tls.trust(server.machine_context, stranger.ders)  # TLS lets him in: another alias names him
    pem, key = stranger.device("MX-0001")
    foreign = await client.post("simpleenroll", csr, "--cert", str(pem), "--key", str(key))
    assert [revoked.status, foreign.status] == [401, 401]
    assert not server.events("certificate.issued")


@dataclass
class Judge:
    """The other system that a webhook asks."""

    allows: bool = True
    asked: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.headers["X-TMA-Signature"] == hmac.digest(b"s3", body, hashlib.sha256).hex()
        self.asked.append((json.loads(body), request.headers["X-TMA-Signature"]))
        return web.json_response({"allow": self.allows})


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    judge = Judge()
    routes = [web.post("/", open_to_all(judge.answer, "it stands for another system"))]
    endpoint = app.Endpoint(app.create(routes, random=os.urandom), "127.0.0.1", 0)
    async with app.serve([endpoint]) as [port]:
        judge.url = f"http://127.0.0.1:{port}/"
        yield judge


async def test_a_webhook_judges_and_no_answer_means_no(
    server: Server, client: EstClient, judge: Judge
):
    mes = Requester(name="mes", kind="webhook", aliases=("*",), url=judge.url, secret=b"s3")
    gone = mes.model_copy(update={"name": "gone", "url": "http://127.0.0.1:9/"})
    server.rules.access = access(alias(Evidence.WEBHOOK), requesters=(mes, gone))
    csr = client.request("dev-1", "/CN=dev-1")
    allowed = await client.post("simpleenroll", csr, "-u", "mes:some password")
    judge.allows = False
    refused = await client.post("simpleenroll", csr, "-u", "mes:some password")
    absent = await client.post("simpleenroll", csr, "-u", "gone:some password")
    assert [allowed.status, refused.status, absent.status] == [200, 401, 401]
    assert judge.asked[0][0]["alias"] == "tls-client"


async def test_switches_of_a_box(server: Server, client: EstClient):
    csr = client.request("dev-1", "/CN=dev-1")
    login = ("-u", f":{server.token}")
    server.rules.access = access(alias(Evidence.TOKEN, enabled=False))
    off = await client.post("simpleenroll", csr, *login)
    server.rules._on = frozenset({"tls-client"})
    on = await client.post("simpleenroll", csr, *login)
    server.rules._off = frozenset({"tls-client"})
    off_again = await client.post("simpleenroll", csr, *login)
    assert [off.status, on.status, off_again.status] == [404, 200, 404]


async def test_wrapped_if_the_alias_says_so(server: Server, client: EstClient):
    server.rules.access = access(alias(Evidence.TOKEN, wrapping=Wrapping.ALWAYS))
    assert b"\n" in (await client.curl("cacerts")).body
