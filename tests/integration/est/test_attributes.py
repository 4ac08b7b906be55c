"""csrattrs as another decoder reads them, and the channel-binding proof over TLS 1.2 and 1.3."""

import asyncio
import base64
import ssl
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID
from pyasn1.codec.der import decoder
from pyasn1_alt_modules import rfc7030, rfc9908

from shared.pki import keys
from shared.policy.access import Access, Alias
from tests.support.est import EstClient
from tests.support.rest_server import Server

P256, EC_PUBLIC_KEY = "1.2.840.10045.3.1.7", "1.2.840.10045.2.1"
ECDSA_WITH_SHA384 = "1.2.840.10045.4.3.3"


async def test_csrattrs_name_key_and_names(server: Server, client: EstClient):
    answer = await client.curl("csrattrs")
    assert answer.headers["content-type"] == "application/csrattrs"
    attributes, rest = decoder.decode(base64.b64decode(answer.body), asn1Spec=rfc7030.CsrAttrs())
    assert not rest
    by_type = {str(one["attribute"]["attrType"]): one["attribute"] for one in attributes}
    curve, _ = decoder.decode(bytes(by_type[EC_PUBLIC_KEY]["attrValues"][0]))
    assert str(curve) == P256
    template = by_type[str(rfc9908.id_aa_certificationRequestInfoTemplate)]["attrValues"][0]
    decoded, rest = decoder.decode(
        bytes(template), asn1Spec=rfc9908.CertificationRequestInfoTemplate()
    )
    assert not rest
    wanted = [str(rdn[0]["type"]) for rdn in decoded["subject"]["rdnSequence"]]
    assert NameOID.COMMON_NAME.dotted_string in wanted
    assert str(decoded["subjectPKInfo"]["algorithm"]["algorithm"]) == EC_PUBLIC_KEY


@pytest.mark.parametrize("strict", ["sha384"], indirect=True)
@pytest.mark.usefixtures("strict", "server")
async def test_csrattrs_name_the_hash_that_is_wanted(client: EstClient):
    answer = await client.curl("csrattrs")
    attributes, _ = decoder.decode(base64.b64decode(answer.body), asn1Spec=rfc7030.CsrAttrs())
    assert ECDSA_WITH_SHA384 in [str(one["oid"]) for one in attributes if one["oid"].isValue]


def _request(challenge: bytes | None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bound")])
    )
    if challenge is not None:
        builder = builder.add_attribute(
            AttributeOID.CHALLENGE_PASSWORD, base64.b64encode(challenge)
        )
    return builder.sign(keys.generate(), hashes.SHA256()).public_bytes(Encoding.DER)


async def _enroll(server: Server, version: ssl.TLSVersion, *, proof: bytes | None) -> bytes:
    """Send a request over one connection; ``proof`` None: the connection's own tls-unique."""
    place = urlsplit(server.urls["machines"])
    context = server.trust()
    context.maximum_version = version
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    csr = _request(tls.get_channel_binding("tls-unique") if proof is None else proof or None)
    head = (
        "POST /.well-known/est/bound/simpleenroll HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {server.token}\r\nConnection: close\r\n"
        f"Content-Length: {len(csr)}\r\n\r\n"
    )
    writer.write(head.encode() + csr)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture
def bound(server: Server) -> Server:
    alias = Alias(name="bound", profile="tls-client", channel_binding=True)
    server.rules.access = Access(aliases=(alias,))
    return server


async def test_the_proof_of_this_connection_is_demanded(bound: Server):
    good = await _enroll(bound, ssl.TLSVersion.TLSv1_2, proof=None)
    foreign = await _enroll(bound, ssl.TLSVersion.TLSv1_2, proof=b"of another connection")
    missing = await _enroll(bound, ssl.TLSVersion.TLSv1_2, proof=b"")
    newer = await _enroll(bound, ssl.TLSVersion.TLSv1_3, proof=b"x")
    assert good.startswith(b"HTTP/1.1 200")
    assert [one[:12] for one in (foreign, missing, newer)] == [b"HTTP/1.1 400"] * 3
    assert b"TLS 1.2 only" in newer
