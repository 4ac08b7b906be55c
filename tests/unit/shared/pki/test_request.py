"""Certification requests: possession is proven, everything hostile ends in BadRequestError."""

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.errors import BadRequestError, TooLargeError
from shared.pki import keys, names, signed
from shared.pki.algorithms import BY_NAME, ECDSA_SHA256, Scheme
from shared.pki.keys import KeyType
from shared.pki.plan import AltName, AltNameKind
from shared.pki.request import CertificationRequest
from tests.support import pki_keys
from tests.support.pki_hierarchy import csr, subject

KEY = keys.generate()
SUBJECT = subject("device-1", "SN-0001")
ALT_NAMES = (
    AltName(AltNameKind.DNS, "device-1.example"),
    AltName(AltNameKind.IP, "10.0.0.1"),
    AltName(AltNameKind.IP, "fe80::1"),
    AltName(AltNameKind.URI, "urn:device-1:app"),
    AltName(AltNameKind.EMAIL, "line@plant.example"),
    AltName(AltNameKind.HARDWARE_MODULE, "1.3.6.1.4.1.99999.1:SN-0001"),
    AltName(AltNameKind.DNS_WILDCARD, "*.device-1.example"),
    AltName(AltNameKind.DIRECTORY, "CN=device-1,O=Plant"),
    AltName(AltNameKind.REGISTERED_ID, "1.3.6.1.4.1.99999.2"),
    AltName(AltNameKind.UPN, "device-1@plant.example"),
    AltName(AltNameKind.PERMANENT_IDENTIFIER, "1.3.6.1.4.1.99999.1:SN-0001"),
    AltName(AltNameKind.OTHER, "1.3.6.1.4.1.99999.3;UTF8:x"),
)
ALTERNATIVES = x509.SubjectAlternativeName(map(names.encode_alt_name, ALT_NAMES))
GOOD = csr(KEY, names.encode_name(SUBJECT), ALTERNATIVES)


def refused(data: bytes, words: str = "") -> None:
    with pytest.raises(BadRequestError) as caught:
        CertificationRequest.parse(data)
    assert words in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_what_was_asked_for_is_read(encoding):
    data = csr(KEY, names.encode_name(SUBJECT), ALTERNATIVES, encoding=encoding)
    request = CertificationRequest.parse(data)
    assert request.public_key == keys.spki(KEY.public_key())
    assert (request.subject, request.alt_names) == (SUBJECT, ALT_NAMES)


def test_old_pem_labels_and_surrounding_text_are_accepted():
    pem = csr(KEY, x509.Name([]), encoding=Encoding.PEM).replace(b"BEGIN C", b"BEGIN NEW C")
    pem = b"Certificate Request:\r\n" + pem.replace(b"END C", b"END NEW C") + b"\r\nbye\r\n"
    assert CertificationRequest.parse(pem).subject == ()


def test_the_signature_proves_possession():
    body = x509.load_der_x509_csr(GOOD).tbs_certrequest_bytes
    thief = keys.generate()
    refused(signed.join(body, ECDSA_SHA256, ECDSA_SHA256.sign(thief, body)), "does not verify")


def test_a_signature_with_a_broken_hash_proves_nothing():
    body = x509.load_der_x509_csr(GOOD).tbs_certrequest_bytes
    signature = KEY.sign(body, ec.ECDSA(SHA1()))
    ecdsa_with_sha1 = bytes.fromhex("300906072a8648ce3d0401")
    value = signed.tlv(signed.BIT_STRING, b"\x00" + signature)
    refused(signed.tlv(signed.SEQUENCE, body + ecdsa_with_sha1 + value), "not signed with SHA-256")


def refused_or_the_same(data: bytes) -> None:
    """The parser overlooks the count of unused bits (X.690 §8.6.2): no content depends on it."""
    try:
        assert CertificationRequest.parse(data) == CertificationRequest.parse(GOOD)
    except BadRequestError as error:
        assert error.message.endswith(".")


def test_no_flipped_byte_changes_what_is_read():
    for position in range(len(GOOD)):
        data = bytearray(GOOD)
        data[position] ^= 0x01
        refused_or_the_same(bytes(data))


@pytest.mark.parametrize(("kind", "name"), pki_keys.ISSUERS)
def test_each_key_type_proves_possession_by_each_algorithm(kind, name):
    key, thief = pki_keys.private_key(kind), keys.generate(kind)
    algorithm = BY_NAME[name]
    padding = algorithm.arguments[0] if algorithm.scheme is Scheme.RSA_PSS else None
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, algorithm.hash, rsa_padding=padding)
    request = CertificationRequest.parse(csr.public_bytes(Encoding.DER))
    assert request.public_key == pki_keys.spki(kind)
    body = csr.tbs_certrequest_bytes
    refused(signed.join(body, algorithm, algorithm.sign(thief, body)), "does not verify")


def test_pss_with_any_salt_proves_possession():
    padding = PSS(MGF1(SHA256()), PSS.MAX_LENGTH)
    key = pki_keys.private_key(KeyType.RSA_2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, SHA256(), rsa_padding=padding)
    assert CertificationRequest.parse(csr.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP224R1()), rsa.generate_private_key(65537, 1024)],
    ids=["p224", "rsa-1024"],
)
def test_other_key_types_are_refused(key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    refused(builder.sign(key, SHA256()).public_bytes(Encoding.DER), "public key")


def test_a_request_longer_than_the_limit_is_not_read():
    with pytest.raises(TooLargeError, match="at most 16384"):
        CertificationRequest.parse(GOOD + bytes(16 * 1024))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x30\x80", GOOD[:-1], GOOD + b"\x00", b"-----BEGIN CERTIFICATE REQUEST-----"],
)
def test_malformed_requests_are_refused(data):
    refused(data, "malformed")


def test_an_attribute_given_twice_is_refused():
    challenge = (AttributeOID.CHALLENGE_PASSWORD, b"secret", None)
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]), [], [challenge])
    assert CertificationRequest.parse(builder.sign(KEY, SHA256()).public_bytes(Encoding.DER))
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]), [], [challenge, challenge])
    refused(builder.sign(KEY, SHA256()).public_bytes(Encoding.DER), "twice")


@pytest.mark.parametrize(
    "name",
    [
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x16\x01a"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), b"\x30\x00"),
        x509.OtherName(
            x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), bytes.fromhex("300806022a030402ff00")
        ),
    ],
    ids=["upn not UTF-8", "empty module", "module not text"],
)
def test_alternative_names_that_are_never_certified_are_refused(name):
    refused(csr(KEY, x509.Name([]), x509.SubjectAlternativeName([name])))


def test_ten_thousand_alternative_names_are_too_long_to_be_read():
    names_asked = x509.SubjectAlternativeName(x509.DNSName(f"h{n}.example") for n in range(10_000))
    with pytest.raises(TooLargeError):
        CertificationRequest.parse(csr(KEY, x509.Name([]), names_asked))


def test_nesting_without_end_is_refused():
    content = b""
    for _ in range(4_000):
        content = signed.tlv(signed.SEQUENCE, content)
    refused(content, "malformed")


def test_a_subject_that_is_not_text_is_refused():
    bits = x509.NameAttribute(
        NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\x01", x509.name._ASN1Type.BitString
    )
    refused(csr(KEY, x509.Name([bits])), "not text")


def test_hostile_text_is_read_as_it_is_for_policy_to_refuse():
    hostile = "a\x00b\u202ec\n"
    request = CertificationRequest.parse(
        csr(KEY, x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, hostile)]))
    )
    assert request.subject[0].value == hostile


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_bad_request(data):
    refused(data)


@given(st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_no_mutation_changes_what_is_read(dice: random.Random):
    data = bytearray(GOOD)
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data))
        data[start : start + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 4))
    refused_or_the_same(bytes(data))


@given(st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_any_content_that_its_owner_signed_is_read_or_refused(dice: random.Random):
    """A valid signature over mutated content reaches the parsing behind the check."""
    body = bytearray(x509.load_der_x509_csr(GOOD).tbs_certrequest_bytes)
    for _ in range(dice.randint(1, 3)):
        body[dice.randrange(len(body))] = dice.randrange(256)
    content = bytes(body)
    try:
        CertificationRequest.parse(
            signed.join(content, ECDSA_SHA256, ECDSA_SHA256.sign(KEY, content))
        )
    except BadRequestError as error:
        assert error.message.endswith(".")
