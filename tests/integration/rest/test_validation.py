"""Status over plain HTTP, asked by strangers: OpenSSL and curl follow the addresses literally."""

import asyncio
import base64
import http.client
import subprocess
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from shared.kernel.errors import UnavailableError
from shared.pki import formats
from tests.support.lint import assert_clean_crl, assert_clean_ocsp
from tests.support.rest_server import Server, request_pem, wish

BASE = "/api/v2.0"


async def issued(server: Server, name: str = "robot-1") -> tuple[x509.Certificate, str]:
    body = wish({"profile": "tls-client", "csr": request_pem(name)})
    async with server.client() as client:
        answer = await client.post(f"{BASE}/certificates", json=body)
    data = answer.json()["data"]
    pem = data["attributes"]["certificate"].encode()
    return x509.load_pem_x509_certificate(pem), data["links"]["self"]


async def revoke(server: Server, link: str) -> None:
    async with server.client() as client:
        answer = await client.post(f"{link}/revoke", json=wish({"reason": "key_compromise"}))
    assert answer.status_code == 200


async def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def plain(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.urls["plain"], trust_env=False)


def crl_path(server: Server) -> str:
    return f"/crl/{server.authority.issuer.ca_id}.crl"


async def test_curl_gets_a_der_crl_without_redirect(server: Server, tmp_path: Path):
    certificate, link = await issued(server)
    await revoke(server, link)
    await server.status.sign_crl(server.authority.issuer.ca_id)
    file = tmp_path / "ca.crl"
    outcome = await command(
        "curl", "-sS", "--fail", "--max-redirs", "0", "-o", file, "-w", "%{content_type}",
        f"{server.urls['plain']}{crl_path(server)}",
    )  # fmt: skip
    assert (outcome.returncode, outcome.stdout) == (0, "application/pkix-crl"), outcome.stderr
    crl = x509.load_der_x509_crl(file.read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    assert crl.is_signature_valid(server.authority.key.public_key())
    assert_clean_crl(file.read_bytes())


async def test_crl_headers_and_conditional_requests(server: Server):
    await server.status.sign_crl(server.authority.issuer.ca_id)
    async with plain(server) as client:
        got = await client.get(crl_path(server))
        head = await client.head(crl_path(server))
        cached = await client.get(crl_path(server), headers={"If-None-Match": got.headers["ETag"]})
        await server.status.sign_crl(server.authority.issuer.ca_id)
        newer = await client.get(crl_path(server), headers={"If-None-Match": got.headers["ETag"]})
    assert "max-age=3600" in got.headers["Cache-Control"]
    assert got.headers["Last-Modified"]
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.content))
    assert (cached.status_code, cached.content) == (304, b"")
    assert newer.status_code == 200


async def test_ca_certificates(server: Server):
    async with plain(server) as client:
        for authority in (server.authority, server.hierarchy.fleet, server.hierarchy.root):
            answer = await client.get(f"/ca/{authority.issuer.ca_id}.cer")
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/pkix-cert"
            assert answer.content == authority.issuer.chain[0]


@pytest.mark.parametrize(
    "path", ["/crl/{other}.crl", "/ca/{other}.cer", "/crl/x.crl", "/crl/", "/ca/{ca}.crl", "/"]
)
async def test_what_is_not_there(server: Server, path: str):
    await server.status.sign_crl(server.authority.issuer.ca_id)
    path = path.format(other="0" * 40, ca=server.authority.issuer.ca_id)
    async with plain(server) as client:
        answer = await client.get(path, follow_redirects=False)
    assert answer.status_code == 404


async def test_openssl_asks_for_status(server: Server, tmp_path: Path):
    good, _link = await issued(server)
    bad, link = await issued(server, "robot-2")
    await revoke(server, link)
    (tmp_path / "ca.pem").write_text(formats.pem([server.authority.issuer.chain[0]]))
    (tmp_path / "anchors.pem").write_text(formats.pem(server.authority.issuer.chain))
    for name, certificate in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    outcome = await command(
        "openssl", "ocsp", "-sha256", "-issuer", tmp_path / "ca.pem",
        "-cert", tmp_path / "good.pem", "-cert", tmp_path / "bad.pem",
        "-serial", "0x1234", "-url", f"{server.urls['plain']}/ocsp",
        "-CAfile", tmp_path / "anchors.pem", "-respout", tmp_path / "answer.der",
    )  # fmt: skip
    assert "Response verify OK" in outcome.stderr, outcome.stderr
    assert "good.pem: good" in outcome.stdout
    assert "bad.pem: revoked" in outcome.stdout
    assert "keyCompromise" in outcome.stdout
    assert "0x1234: unknown" in outcome.stdout
    assert_clean_ocsp((tmp_path / "answer.der").read_bytes())


def question(server: Server, certificate: x509.Certificate) -> bytes:
    issuer = server.authority.issuer.certificate
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())
    return builder.build().public_bytes(Encoding.DER)


async def test_a_revocation_shows_in_the_next_answer(server: Server):
    certificate, link = await issued(server)
    request = question(server, certificate)

    async def status() -> ocsp.OCSPCertStatus:
        answer = await client.post("/ocsp", content=request)
        return ocsp.load_der_ocsp_response(answer.content).certificate_status

    async with plain(server) as client:
        assert await status() is ocsp.OCSPCertStatus.GOOD
        await revoke(server, link)
        assert await status() is ocsp.OCSPCertStatus.REVOKED


async def test_get_is_cacheable_and_post_is_not(server: Server):
    certificate, _link = await issued(server)
    request = question(server, certificate)
    encoded = base64.b64encode(request).decode()
    async with plain(server) as client:
        answers = [
            await client.get(f"/ocsp/{quote(encoded, safe='')}"),
            await client.get(f"/ocsp/{quote(encoded, safe='+/=')}"),
        ]
        posted = await client.post("/ocsp", content=request)
        head = await client.head(f"/ocsp/{quote(encoded, safe='')}")
    for answer in answers:
        assert answer.headers["Content-Type"] == "application/ocsp-response"
        assert "max-age" in answer.headers["Cache-Control"]
        assert answer.headers["ETag"]
        response = ocsp.load_der_ocsp_response(answer.content)
        assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert posted.headers["Cache-Control"] == "no-store"
    assert head.status_code == 200


async def test_questions_that_get_no_status(server: Server):
    certificate, _link = await issued(server)
    request = question(server, certificate)
    root, fleet = server.hierarchy.root.issuer, server.hierarchy.fleet.issuer
    foreign = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(fleet.certificate, root.certificate, hashes.SHA256())
        .build()
        .public_bytes(Encoding.DER)
    )
    kind = ocsp.OCSPResponseStatus
    async with plain(server) as client:

        async def ask(content: bytes) -> ocsp.OCSPResponseStatus:
            answer = await client.post("/ocsp", content=content)
            assert answer.status_code == 200
            return ocsp.load_der_ocsp_response(answer.content).response_status

        for malformed in (b"", b"junk", request[:-1], request + b"\x00", b"\x30" * 9_000):
            assert await ask(malformed) is kind.MALFORMED_REQUEST
        assert await ask(foreign) is kind.UNAUTHORIZED
        server.validation.failure = UnavailableError("The box is being restored.")
        assert await ask(request) is kind.TRY_LATER
        got = await client.get("/ocsp/!!!not-base64")
    assert ocsp.load_der_ocsp_response(got.content).response_status is kind.MALFORMED_REQUEST


class Asker:
    """Watches the writer and asks around each commit, from the writer's own thread."""

    def __init__(self, url: str, request: bytes) -> None:
        self._port = int(url.rpartition(":")[2])
        self._request = request
        self.before: list[ocsp.OCSPCertStatus] = []
        self.after: list[ocsp.OCSPCertStatus] = []

    def _ask(self) -> ocsp.OCSPCertStatus:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("POST", "/ocsp", self._request)
        answer = ocsp.load_der_ocsp_response(connection.getresponse().read())
        connection.close()
        return answer.certificate_status

    def before_commit(self, _changed: object) -> None:
        self.before += [self._ask(), self._ask()]

    def after_commit(self, _changed: object) -> None:
        self.after.append(self._ask())


async def test_no_answer_says_good_once_a_revocation_is_committed(server: Server):
    """Asked between the commit and the moment at which the loop hears of it."""
    certificate, link = await issued(server)
    request = question(server, certificate)
    asker = Asker(server.urls["plain"], request)
    async with plain(server) as client:
        await client.post("/ocsp", content=request)
        assert len(server.answers) == 1
        server.database.writer.watch(asker)
        await revoke(server, link)
        last = await client.post("/ocsp", content=request)
    assert asker.before == [ocsp.OCSPCertStatus.GOOD] * 2  # read, but not kept
    assert asker.after == [ocsp.OCSPCertStatus.REVOKED]
    answer = ocsp.load_der_ocsp_response(last.content)
    assert answer.certificate_status is ocsp.OCSPCertStatus.REVOKED


async def test_a_pre_signed_answer_is_the_same_until_it_is_half_old(server: Server):
    certificate, _link = await issued(server)
    request = question(server, certificate)
    async with plain(server) as client:
        first = await client.post("/ocsp", content=request)
        second = await client.post("/ocsp", content=request)
        server.clock.advance(301)
        third = await client.post("/ocsp", content=request)
    assert first.content == second.content != third.content


async def test_an_answer_about_no_certificate_is_not_kept(server: Server):
    certificate, _link = await issued(server)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        ocsp.load_der_ocsp_request(question(server, certificate)).issuer_name_hash,
        ocsp.load_der_ocsp_request(question(server, certificate)).issuer_key_hash,
        1234,
        hashes.SHA1(),
    )
    async with plain(server) as client:
        body = builder.build().public_bytes(Encoding.DER)
        answer = await client.post("/ocsp", content=body)
    response = ocsp.load_der_ocsp_response(answer.content)
    assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    assert len(server.answers) == 0


async def raw(server: Server, *segments: bytes) -> bytes:
    """Send these segments one by one; give all that comes until the server closes."""
    port = int(server.urls["plain"].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for segment in segments:
        writer.write(segment)
        await asyncio.sleep(0.05)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("cut", [None, 20, -10])
async def test_a_request_in_one_piece_or_two(server: Server, version: bytes, cut: int | None):
    certificate, _link = await issued(server)
    body = question(server, certificate)
    head = (
        b"POST /ocsp HTTP/%b\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
        b"content-type: application/ocsp-request\r\n\r\n" % (version, len(body))
    )
    whole = head + body
    pieces = [whole] if cut is None else [whole[:cut], whole[cut:]]
    answer = await raw(server, *pieces)
    assert b" 200 OK" in answer.splitlines()[0]
    assert b"date: " in answer.lower()
    der = answer.partition(b"\r\n\r\n")[2]
    status = ocsp.load_der_ocsp_response(der).certificate_status
    assert status is ocsp.OCSPCertStatus.GOOD


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length : 5\r\n",
        b"Expect: 100-continue\r\nContent-Length: 5\r\n",
        b"Content-Length: 99999999\r\n",
    ],
)
async def test_what_is_unusual_goes_the_long_way(server: Server, fields: bytes):
    head = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\nabcde" % fields
    answer = await raw(server, head)
    assert answer.startswith(b"HTTP/1.")
    assert ocsp_status_of(answer) is not ocsp.OCSPResponseStatus.SUCCESSFUL


def ocsp_status_of(answer: bytes) -> ocsp.OCSPResponseStatus | None:
    der = answer.rpartition(b"\r\n\r\n")[2]
    return ocsp.load_der_ocsp_response(der).response_status if der.startswith(b"0") else None


async def test_two_requests_in_one_segment_get_two_answers(server: Server):
    certificate, _link = await issued(server)
    path = quote(base64.b64encode(question(server, certificate)).decode(), safe="")
    one = b"GET /ocsp/%b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
    last = one.replace(b"Host: x", b"Host: x\r\nConnection: close")
    assert (await raw(server, one + last)).count(b" 200 OK\r\n") == 2
    assert (await raw(server, one, one, last)).count(b" 200 OK\r\n") == 3


async def test_a_get_that_is_known_already_is_not_sent_again(server: Server):
    certificate, _link = await issued(server)
    path = f"/ocsp/{quote(base64.b64encode(question(server, certificate)).decode(), safe='')}"
    async with plain(server) as client:
        first = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Expires"]
