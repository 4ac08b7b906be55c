"""OCSP messages: read strictly, answered for several certificates, nonces echoed."""

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.clock import utc_us_of
from shared.kernel.errors import BadRequestError
from shared.pki import certificates, keys, ocsp, oids, signed
from shared.pki.algorithms import ECDSA_SHA256
from shared.pki.ocsp import Failure, State, Status
from shared.pki.signed import tlv
from tests.support.lint import assert_clean_ocsp
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan, subject

GATEWAY = Hierarchy().gateway
LEAF = x509.load_der_x509_certificate(GATEWAY.issue(leaf_plan(), serial=4711))
RESPONDER_KEY = keys.generate()
RESPONDER = x509.load_der_x509_certificate(
    GATEWAY.issue(
        certificates.responder_plan(
            subject("Responder"),
            keys.spki(RESPONDER_KEY.public_key()),
            not_before_us=NOW_US,
            not_after_us=NOW_US + 7 * DAY_US,
        )
    )
)


def request(algorithm=None, nonce: bytes | None = None, *, critical: bool = False) -> bytes:
    builder = reference.OCSPRequestBuilder().add_certificate(
        LEAF, GATEWAY.issuer.certificate, algorithm or SHA256()
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical)
    return builder.build().public_bytes(Encoding.DER)


def several(*serials: int) -> bytes:
    """A request for several certificates, which cryptography cannot build."""
    certid = ocsp.parse(request()).certids[0]
    singles = b""
    for serial in serials:
        certid.serial = serial
        singles += tlv(signed.SEQUENCE, asn1.encode_der(certid))
    return tlv(signed.SEQUENCE, tlv(signed.SEQUENCE, tlv(signed.SEQUENCE, singles)))


def answer(data: bytes, *statuses: Status, archived_since_us: int | None = None) -> bytes:
    return ocsp.respond(
        ocsp.parse(data),
        statuses,
        responder_key=RESPONDER_KEY,
        responder_certificate=RESPONDER,
        this_update_us=NOW_US,
        next_update_us=NOW_US + DAY_US,
        archived_since_us=archived_since_us,
    )


@pytest.mark.parametrize("algorithm", [SHA1(), SHA256()])
def test_a_certid_names_certificate_and_issuer(algorithm):
    (certid,) = ocsp.parse(request(algorithm)).certids
    assert certid.serial == 4711
    assert certid.issuer in ocsp.issuer_hashes(GATEWAY.issuer.certificate)
    assert certid.issuer not in ocsp.issuer_hashes(Hierarchy().gateway.issuer.certificate)


def test_an_unsupported_hash_names_nobody():
    (certid,) = ocsp.parse(request(SHA384())).certids
    assert certid.issuer not in ocsp.issuer_hashes(GATEWAY.issuer.certificate)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status(State.GOOD), reference.OCSPCertStatus.GOOD),
        (Status(State.UNKNOWN), reference.OCSPCertStatus.UNKNOWN),
        (Status(State.REVOKED, NOW_US - 5, "key_compromise"), reference.OCSPCertStatus.REVOKED),
        (Status(State.REVOKED, NOW_US - 5), reference.OCSPCertStatus.REVOKED),
        (Status(State.REVOKED, NOW_US, "certificate_hold"), reference.OCSPCertStatus.REVOKED),
    ],
)
@pytest.mark.parametrize("algorithm", [SHA1(), SHA256()])
def test_an_independent_reader_understands_the_answer(algorithm, status, expected):
    parsed = reference.load_der_ocsp_response(answer(request(algorithm, b"n" * 16), status))
    assert parsed.response_status is reference.OCSPResponseStatus.SUCCESSFUL
    assert parsed.certificate_status is expected
    assert parsed.serial_number == 4711
    assert parsed.hash_algorithm.name == algorithm.name
    assert utc_us_of(parsed.this_update_utc) == utc_us_of(parsed.produced_at_utc) == NOW_US
    assert utc_us_of(parsed.next_update_utc) == NOW_US + DAY_US
    assert parsed.certificates == [RESPONDER]
    assert parsed.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 16
    ECDSA_SHA256.verify(RESPONDER_KEY.public_key(), parsed.tbs_response_bytes, parsed.signature)
    if expected is reference.OCSPCertStatus.REVOKED:
        assert parsed.revocation_reason.name == status.reason
        assert utc_us_of(parsed.revocation_time_utc) == status.revoked_at_us // 10**6 * 10**6


def test_several_certificates_are_answered_in_order():
    states = [Status(State.GOOD), Status(State.REVOKED, NOW_US, "superseded"), Status(State.GOOD)]
    parsed = reference.load_der_ocsp_response(answer(several(1, 2, 3), *states))
    found = [(item.serial_number, item.certificate_status.name) for item in parsed.responses]
    assert found == [(1, "GOOD"), (2, "REVOKED"), (3, "GOOD")]
    with pytest.raises(ValueError, match="zip"):
        answer(several(1, 2), Status(State.GOOD))


@pytest.mark.parametrize("length", [1, 32, 128])
def test_nonces_of_allowed_length_are_echoed(length):
    assert ocsp.parse(request(nonce=b"n" * length, critical=True)).nonce == b"n" * length


@pytest.mark.parametrize("length", [0, 129])
def test_nonces_of_other_length_are_malformed(length):
    with pytest.raises(BadRequestError):
        ocsp.parse(request(nonce=b"n" * length))


def test_without_a_nonce_the_answer_has_no_extensions():
    parsed = reference.load_der_ocsp_response(answer(request(), Status(State.GOOD)))
    assert not list(parsed.extensions)


def test_unknown_extensions_matter_only_when_critical():
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    builder = reference.OCSPRequestBuilder().add_certificate(
        LEAF, GATEWAY.issuer.certificate, SHA1()
    )
    plain = builder.add_extension(unknown, critical=False).build().public_bytes(Encoding.DER)
    assert ocsp.parse(plain).nonce is None
    critical = builder.add_extension(unknown, critical=True).build().public_bytes(Encoding.DER)
    with pytest.raises(BadRequestError):
        ocsp.parse(critical)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        request()[:-1],
        request() + b"\x00",
        several(),
        several(*range(33)),
        bytes(9000),
    ],
    ids=["empty", "nothing", "short", "long", "no certid", "too many", "huge"],
)
def test_malformed_requests_are_refused(data):
    with pytest.raises(BadRequestError):
        ocsp.parse(data)


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 110), st.integers(0, 255)))
@settings(max_examples=500, deadline=None)
def test_hostile_bytes_are_refused_or_answered(noise):
    data = bytearray(request(nonce=b"n" * 16))
    if isinstance(noise, bytes):
        data = noise
    else:
        data[noise[0]] = noise[1]
    try:
        parsed = ocsp.parse(bytes(data))
    except BadRequestError:
        return
    assert answer(bytes(data), *[Status(State.UNKNOWN)] * len(parsed.certids))


@pytest.mark.parametrize("kind", Failure)
def test_failures_are_understood(kind):
    parsed = reference.load_der_ocsp_response(ocsp.error(kind))
    assert parsed.response_status.name == kind.name


def test_the_nonce_oid_is_the_one_of_the_standard():
    assert x509.OCSPNonce(b"n").oid == oids.OCSP_NONCE


@pytest.mark.parametrize("nonce", [None, b"n" * 32])
def test_a_serial_that_was_never_issued_can_count_as_revoked(nonce):
    der = answer(request(nonce=nonce), Status(State.NEVER_ISSUED, listed=False))
    response = reference.load_der_ocsp_response(der)
    assert response.certificate_status is reference.OCSPCertStatus.REVOKED
    assert response.revocation_reason is x509.ReasonFlags.certificate_hold
    assert response.revocation_time_utc is not None
    assert utc_us_of(response.revocation_time_utc) == 0
    assert oids.OCSP_EXTENDED_REVOKE in {extension.oid for extension in response.extensions}
    assert_clean_ocsp(der)


def test_an_answer_about_an_expired_certificate_says_since_when_statuses_are_kept():
    ended = answer(request(), Status(State.GOOD, not_after_us=NOW_US - 1), archived_since_us=0)
    valid = answer(request(), Status(State.GOOD, not_after_us=NOW_US + 1), archived_since_us=0)
    assert encoded_oid(oids.OCSP_ARCHIVE_CUTOFF) in ended
    assert encoded_oid(oids.OCSP_ARCHIVE_CUTOFF) not in valid
    assert_clean_ocsp(ended)


def encoded_oid(oid: x509.ObjectIdentifier) -> bytes:
    return asn1.encode_der(oid)
