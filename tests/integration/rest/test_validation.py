"""Status over plain HTTP, asked by strangers: OpenSSL and curl follow the addresses literally."""

import asyncio
import base64
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
