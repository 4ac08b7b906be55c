"""A server-made key that is encrypted beyond TLS, as ``openssl cms`` opens it (RFC 7030 §4.4.2)."""

import asyncio
import base64
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.oid import NameOID

from shared.enroll import key_maker
from shared.enroll.est import server_keys
from shared.pki import keys
from shared.pki.keys import KeyType
from shared.pki.signed import SEQUENCE, tlv
from shared.policy.access import Access, Alias
from tests.support.est import Answer, EstClient, certificates, write_pem
from tests.support.processes import run
from tests.support.rest_server import Server

_ASYMMETRIC = "1.2.840.113549.1.9.16.2.54"
_SYMMETRIC = "1.2.840.113549.1.9.16.2.37"
_CAPABILITIES = "1.2.840.113549.1.9.15"
_SAN = "URI:urn:dev-1.example:app,DNS:dev-1.example"
_RSA, _OAEP = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7"
_OAEP_SHA256 = bytes.fromhex(
    "302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108"
    "300d06096086480165030402010500"
)
_WRAP128, _WRAP256 = "2.16.840.1.101.3.4.1.5", "2.16.840.1.101.3.4.1.45"
_GCM256 = "2.16.840.1.101.3.4.1.46"
_CBC256 = "2.16.840.1.101.3.4.1.42"
_ECDH_SHA384 = "1.3.132.1.11.2"


@dataclass(frozen=True)
class Identity:
    """What a client presents and what decrypts."""

    certificate: x509.Certificate
    pem: Path
    key: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return "--cert", str(self.pem), "--key", str(self.key)

    @property
    def skid(self) -> bytes:
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return found.value.digest


def _capability(oid: str, parameters: bytes = b"") -> bytes:
    return tlv(SEQUENCE, asn1.encode_der(x509.ObjectIdentifier(oid)) + parameters)


async def _identity(server: Server, client: EstClient, profile: str) -> Identity:
    """Enroll a certificate whose key may transport or agree on keys."""
    server.rules.access = Access(
        aliases=tuple(
            Alias(name=name, profile=name, server_keys=True) for name in (profile, "tls-client")
        )
    )
    key = client.folder / "holder.key"
    kind = ["rsa", "-pkeyopt", "rsa_keygen_bits:2048"]
    if "ecc" in profile:
        kind = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run(["openssl", "genpkey", "-algorithm", *kind, "-out", str(key)])
    csr = client.request("holder", "/CN=holder/O=Maker", san=_SAN)
    other = EstClient(client.folder, client.base.replace("tls-client", profile), client.root_pem)
    answer = await other.post("simpleenroll", csr, "-u", f":{server.token}")
    assert answer.status == 200, answer.text
    [certificate] = certificates(base64.b64decode(answer.body))
    return Identity(certificate, write_pem(client.folder / "holder.pem", certificate), key)


def _request(folder: Path, attributes: dict[str, bytes]) -> Path:
    """Write a PKCS#10 with attributes of any type, which the library does not build."""
    key = keys.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")]).public_bytes()
    encoded = (
        tlv(SEQUENCE, asn1.encode_der(x509.ObjectIdentifier(oid)) + tlv(0x31, value))
        for oid, value in attributes.items()
    )
    listed = b"".join(sorted(encoded))  # a SET OF, in DER
    spki = keys.spki(key.public_key())
    info = tlv(SEQUENCE, asn1.encode_der(0) + name + spki + tlv(0xA0, listed))
    signature = key.sign(info, ec.ECDSA(hashes.SHA256()))
    ecdsa = tlv(SEQUENCE, asn1.encode_der(x509.ObjectIdentifier("1.2.840.10045.4.3.2")))
    path = folder / "encrypted.csr"
    path.write_bytes(tlv(SEQUENCE, info + ecdsa + tlv(0x03, b"\0" + signature)))
    return path


def _wanting(folder: Path, identifier: bytes, *capabilities: bytes) -> Path:
    return _request(folder, _attributes(_ASYMMETRIC, identifier, *capabilities))


def _attributes(kind: str, identifier: bytes, *capabilities: bytes) -> dict[str, bytes]:
    named = {kind: asn1.encode_der(identifier)}
    return named | ({_CAPABILITIES: tlv(SEQUENCE, b"".join(capabilities))} if capabilities else {})


def _parts(answer: Answer) -> list[tuple[str, bytes]]:
    assert answer.status == 200, answer.text
    boundary = answer.headers["content-type"].split('"')[1].encode()
    found = answer.body.split(b"--" + boundary)[1:-1]
    return [
        (head.split(b"Content-Type: ")[1].split(b"\r\n")[0].decode(), base64.b64decode(body))
        for head, body in (part.split(b"\r\n\r\n") for part in found)
    ]


def _opened(folder: Path, holder: Identity, enveloped: bytes, root: Path) -> bytes:
    """Decrypt and verify as an administrator with openssl; gives the AsymmetricKeyPackage."""
    paths = {name: folder / f"key.{name}" for name in ("enveloped", "signed", "package")}
    paths["enveloped"].write_bytes(enveloped)
    run(["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(paths["enveloped"]),
         "-recip", str(holder.pem), "-inkey", str(holder.key), "-binary",
         "-out", str(paths["signed"])])  # fmt: skip
    # OpenSSL gives the bare SignedData; as a ContentInfo it can verify it.
    signed = paths["signed"].read_bytes()
    if not signed.startswith(b"\x30") or b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02" not in signed[:20]:
        signed = _content_info(signed)
        paths["signed"].write_bytes(signed)
    run(["openssl", "cms", "-verify", "-inform", "DER", "-in", str(paths["signed"]),
         "-CAfile", str(root), "-purpose", "any", "-binary",
         "-out", str(paths["package"])])  # fmt: skip
    return paths["package"].read_bytes()


def _content_info(signed: bytes) -> bytes:
    length = len(signed).to_bytes(2, "big")
    explicit = b"\xa0\x82" + length + signed
    content = bytes.fromhex("06092a864886f70d010702") + explicit
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


@pytest.mark.parametrize(
    ("profile", "capabilities"),
    [
        ("opc-ua-rsa", [_capability(_RSA)]),
        ("opc-ua-rsa", [_capability(_OAEP, _OAEP_SHA256), _capability(_CBC256)]),
        ("opc-ua-ecc", [_capability(_WRAP128)]),
        ("opc-ua-ecc", [_capability(_ECDH_SHA384, _capability(_WRAP256)), _capability(_CBC256)]),
    ],
)
async def test_openssl_opens_the_key_that_only_its_holder_can_open(
    server: Server, client: EstClient, profile: str, capabilities: list[bytes]
):
    holder = await _identity(server, client, profile)
    csr = _wanting(client.folder, holder.skid, *capabilities)
    answer = await client.post("serverkeygen", csr, "-u", f":{server.token}", *holder.arguments)
    (key_type, enveloped), (_, pkcs7) = _parts(answer)
    assert key_type == "application/pkcs7-mime; smime-type=server-generated-key"
    package = _opened(client.folder, holder, enveloped, client.root_pem)
    inner = package[package.index(b"\x30", 1) :]  # of a sequence of one
    [certificate] = certificates(pkcs7)
    assert load_der_private_key(inner, None).public_key() == certificate.public_key()
    assert holder.key.read_bytes() not in answer.body


async def test_a_key_is_never_given_in_clear_to_who_wants_it_encrypted(
    server: Server, client: EstClient
):
    """RFC 7030 §4.4.1: what cannot be done is an error, and nothing was issued."""
    holder = await _identity(server, client, "opc-ua-ecc")
    issued = len(server.events("certificate.issued"))
    named, wraps = holder.skid, _capability(_WRAP128)
    login = ("-u", f":{server.token}")
    for attributes, presented, said in (
        (_attributes(_SYMMETRIC, b"key-1"), True, "DecryptKeyIdentifier"),
        (_attributes(_ASYMMETRIC, named), True, "SMIMECapabilities"),
        (_attributes(_ASYMMETRIC, named, wraps), False, "mutual TLS"),
        (_attributes(_ASYMMETRIC, b"other", wraps), True, "does not name"),
        (_attributes(_ASYMMETRIC, named, _capability(_RSA)), True, "key wrap"),
        (_attributes(_ASYMMETRIC, named, wraps, _capability(_GCM256)), True, "CBC"),
        (_attributes(_ASYMMETRIC, named, b"\x02\x01\x01"), True, "malformed"),
    ):
        csr = _request(client.folder, attributes)
        mine = holder.arguments if presented else ()
        answer = await client.post("serverkeygen", csr, *login, *mine)
        assert (answer.status, said in answer.text) == (400, True), answer.text
        assert b"PRIVATE" not in answer.body
    assert len(server.events("certificate.issued")) == issued


async def test_a_revoked_certificate_gets_no_key(server: Server, client: EstClient):
    holder = await _identity(server, client, "opc-ua-ecc")
    [body] = server.events("certificate.issued")
    await server.status.revoke(body["ca_id"], body["serial"], "key_compromise", "test")
    server.authenticator.forget()
    csr = _wanting(client.folder, holder.skid, _capability(_WRAP128))
    answer = await client.post("serverkeygen", csr, "-u", f":{server.token}", *holder.arguments)
    assert answer.status in {401, 403}, answer.text
    assert len(server.events("certificate.issued")) == 1


async def test_a_long_key_is_fetched_later(
    server: Server, client: EstClient, monkeypatch: pytest.MonkeyPatch
):
    """*Not now* is 202 (RFC 7030 §4.4.2): the same request gets the key that is being made."""
    monkeypatch.setattr(key_maker, "_WAIT_S", 0.01)
    monkeypatch.setattr(server_keys, "_kind", lambda _profile: KeyType.RSA_3072)
    server.rules.access = Access(
        aliases=(Alias(name="tls-client", profile="opc-ua-rsa", server_keys=True),)
    )
    csr = client.request("holder", "/CN=holder/O=Maker", san=_SAN)
    login = ("-u", f":{server.token}")
    answers = [await client.post("serverkeygen", csr, *login)]
    assert answers[0].status == 202, answers[0].text
    assert int(answers[0].headers["retry-after"]) > 0
    async with asyncio.timeout(120):
        while answers[-1].status == 202:
            await asyncio.sleep(0.2)
            answers.append(await client.post("serverkeygen", csr, *login))
    assert answers[-1].status == 200, answers[-1].text
    assert len(server.events("certificate.issued")) == 1
    monkeypatch.setattr(key_maker, "_WAITING_MAX", 0)
    other = client.request("other", "/CN=other/O=Maker", san=_SAN)
    full = await client.post("serverkeygen", other, *login)
    assert (full.status, "Too many long keys" in full.text) == (202, True)
