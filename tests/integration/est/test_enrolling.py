"""EST as curl, strongSwan and openssl speak it."""

import asyncio
import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from shared.policy.access import Access, Alias
from tests.support.est import EstClient, certificates, write_pem
from tests.support.rest_server import Server

BEARER = "Authorization: Bearer"


def decoded(answer) -> list[x509.Certificate]:
    assert answer.status == 200, answer.text
    return certificates(base64.b64decode(answer.body))


def alt_names(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


async def test_cacerts_need_no_login_and_hold_the_chain(server: Server, client: EstClient):
    found = decoded(await client.curl("cacerts"))
    ders = {one.public_bytes(Encoding.DER) for one in found}
    assert ders == set(server.authority.issuer.chain)


async def test_a_station_enrolls_by_its_token_and_a_retry_gets_the_same(
    server: Server, client: EstClient
):
    csr = client.request("dev-1", "/CN=dev-1/serialNumber=SN-1")
    first = await client.post("simpleenroll", csr, "-u", f"line-1:{server.token}")
    again = await client.post("simpleenroll", csr, "-H", f"{BEARER} {server.token}")
    [certificate] = decoded(first)
    assert decoded(again) == [certificate]
    assert certificate.subject.rfc4514_string() == "2.5.4.5=SN-1,CN=dev-1"
    assert first.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    [issued] = server.events("certificate.issued")
    assert (issued["protocol"], issued["alias"]) == ("est", "tls-client")
    assert (issued["principal"], issued["device_id"]) == ("station:line-1", "SN-1")


@pytest.mark.parametrize("form", ["der", "base64", "wrapped", "crlf", "pem", "pem in base64"])
async def test_every_body_form_is_read(server: Server, client: EstClient, form: str):
    csr = client.request("dev-1", "/CN=dev-1")
    der = csr.read_bytes()
    lines = base64.encodebytes(der)
    label = b"NEW CERTIFICATE REQUEST"
    pem = b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, lines, label)
    forms = {
        "der": der,
        "base64": base64.b64encode(der),
        "wrapped": lines,
        "crlf": lines.replace(b"\n", b"\r\n"),
        "pem": b"text before\n" + pem,
        "pem in base64": base64.b64encode(pem),
    }
    csr.write_bytes(forms[form])
    encoding = ("-H", "Content-Transfer-Encoding: quoted-printable")
    answer = await client.post("simpleenroll", csr, "-u", f":{server.token}", *encoding)
    decoded(answer)


async def test_lines_only_for_who_needs_them(client: EstClient):
    one_line = await client.curl("cacerts")
    lines = await client.curl("cacerts", "-A", "libest client 3.2.0")
    assert b"\n" not in one_line.body
    assert max(map(len, lines.body.splitlines())) == 64
    assert b"".join(lines.body.split()) == one_line.body


async def test_who_is_not_admitted_is_told_so(server: Server, client: EstClient):
    csr = client.request("dev-1", "/CN=dev-1")
    narrow = await server.station("narrow", "idevid")
    nobody = await client.post("simpleenroll", csr)
    wrong = await client.post("simpleenroll", csr, "-u", "somebody:secret-secret")
    forbidden = await client.post("simpleenroll", csr, "-u", f":{narrow}")
    assert (nobody.status, wrong.status, forbidden.status) == (401, 401, 403)
    assert nobody.headers["www-authenticate"].startswith('Basic realm="')
    assert nobody.headers["content-type"].startswith("text/plain")
    assert len(server.events("enrollment.refused")) == 3
    assert not server.events("certificate.issued")


async def test_wrong_requests_get_a_sentence(server: Server, client: EstClient, tmp_path: Path):
    csr = client.request("dev-1", "/CN=dev-1/O=Acme")
    login = ("-u", f":{server.token}")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"MIIB!")
    malformed = await client.post("simpleenroll", garbage, *login)
    cmc = await client.post("fullcmc", csr, *login)
    elsewhere = EstClient(tmp_path, client.base.replace("tls-client", "nowhere"), client.root_pem)
    unknown = await elsewhere.post("simpleenroll", csr, *login)
    label_less = EstClient(tmp_path, client.base.removesuffix("/tls-client"), client.root_pem)
    default = await label_less.post("simpleenroll", csr, *login)
    assert (malformed.status, cmc.status, unknown.status, default.status) == (400, 501, 404, 404)
    assert "PKCS#10" in malformed.text
    assert "tls-client" in unknown.text


async def test_renewal_over_mutual_tls_keeps_the_names(server: Server, client: EstClient):
    csr = client.request("dev-1", "/CN=dev-1/serialNumber=SN-1", san="DNS:dev-1.example")
    [first] = decoded(await client.post("simpleenroll", csr, "-u", f":{server.token}"))
    pem = write_pem(client.folder / "dev-1.pem", first)
    mine = ("--cert", str(pem), "--key", str(client.folder / "dev-1.key"))
    new_key = client.request("dev-2", "/CN=dev-1/serialNumber=SN-1")
    [second] = decoded(await client.post("simplereenroll", new_key, *mine))
    assert second.subject == first.subject
    assert alt_names(second) == alt_names(first) == ["dev-1.example"]
    assert server.events("certificate.issued")[-1]["replaces"] is not None
    other = client.request("dev-3", "/CN=other")
    renamed = await client.post("simplereenroll", other, *mine)
    without = await client.post("simplereenroll", new_key, "-u", f":{server.token}")
    assert (renamed.status, without.status) == (400, 401)
    enrolling = await client.post("simpleenroll", other, *mine)
    assert enrolling.status == 403  # a device renews, it does not enroll others


async def test_server_made_key_comes_with_its_certificate_and_again(
    server: Server, client: EstClient
):
    csr = client.request("dev-1", "/CN=dev-1")
    login = ("-u", f":{server.token}")
    first = await client.post("serverkeygen", csr, *login)
    again = await client.post("serverkeygen", csr, *login)
    assert first.status == 200, first.text
    assert first.body == again.body
    assert first.headers["content-type"].startswith("multipart/mixed; boundary=")
    boundary = first.headers["content-type"].split('"')[1].encode()
    _, key_part, certificate_part, end = first.body.split(b"--" + boundary)
    assert end.strip() == b"--"
    key = load_der_private_key(base64.b64decode(key_part.split(b"\r\n\r\n")[1]), None)
    [certificate] = certificates(base64.b64decode(certificate_part.split(b"\r\n\r\n")[1]))
    assert certificate.public_key() == key.public_key()


async def test_strongswan_enrolls_and_renews(server: Server, client: EstClient):
    folder, url = client.folder, server.urls["machines"]
    csr = client.request("sw", "/CN=sw-1")
    trust = ("--cacert", str(client.root_pem))
    server.rules.access = Access(aliases=(Alias(name="default", profile="tls-client"),))
    await client.tool("pki", "--estca", "--url", url, *trust, "--caout", f"{folder}/sw-ca.der")
    pem = await client.tool(
        "pki", "--est", "--url", url, "--in", str(csr), *trust,
        "--userpass", f"line-1:{server.token}", "--outform", "pem",
    )  # fmt: skip
    (folder / "sw.pem").write_text(pem)
    again = await client.tool(
        "pki", "--est", "--url", url, "--in", str(csr), *trust, "--outform", "pem",
        "--cert", f"{folder}/sw.pem", "--key", f"{folder}/sw.key",
    )  # fmt: skip
    old, new = (x509.load_pem_x509_certificate(text.encode()) for text in (pem, again))
    assert old.subject == new.subject
    assert old.serial_number != new.serial_number


async def test_parallel_equal_requests_end_in_one_certificate(server: Server, client: EstClient):
    csr = client.request("dev-1", "/CN=dev-1").read_bytes()
    async with server.client(on="machines") as http:
        path = "/.well-known/est/tls-client/simpleenroll"
        answers = await asyncio.gather(*(http.post(path, content=csr) for _ in range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(server.events("certificate.issued")) == 1
