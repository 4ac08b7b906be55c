"""What a CA key may sign, tried from all sides without any token."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from shared.hsm import documents
from shared.hsm.documents import Authority
from shared.issuance.ports import Purpose
from shared.kernel.errors import ForbiddenError
from shared.pki import certificates, crl, keys, signed
from shared.pki.plan import Plan
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan, subject

_CAS = Hierarchy()
_GATEWAY = _CAS.gateway.issuer
_AUTHORITY = Authority.of(_GATEWAY.certificate)
_FLEET = Authority.of(_CAS.fleet.issuer.certificate)
_SPKI = keys.spki(keys.generate().public_key())
_LEAF = certificates.unsigned(leaf_plan(), _GATEWAY, 1 << 100)


def _tbs(**changes) -> bytes:
    return certificates.unsigned(leaf_plan(**changes), _GATEWAY, 5)


def _responder(days: float, **changes) -> bytes:
    plan = certificates.responder_plan(
        subject("OCSP"), _SPKI, not_before_us=NOW_US, not_after_us=NOW_US + round(days * DAY_US)
    )
    return certificates.unsigned(replace(plan, **changes), _GATEWAY, 6)


def _ca(path_length: int | None) -> bytes:
    plan = certificates.ca_plan(
        subject("gw-02 CA"), _SPKI, path_length=path_length or 0, not_before_us=NOW_US
    )
    return certificates.unsigned(plan, _CAS.fleet.issuer, 7)


def _wrap(tbs: bytes) -> bytes:
    return signed.tlv(signed.SEQUENCE, tbs + bytes.fromhex("300a06082a8648ce3d040302030100"))


def _refused(document: bytes, purpose: Purpose, authority: Authority = _AUTHORITY) -> str:
    with pytest.raises(ForbiddenError) as caught:
        documents.check(document, purpose, authority)
    return caught.value.message


def test_the_path_length_decides_the_purposes():
    assert Purpose.LEAF in _AUTHORITY.purposes
    assert Purpose.CA not in _AUTHORITY.purposes
    assert Purpose.CA in _FLEET.purposes
    assert Purpose.LEAF not in _FLEET.purposes
    leaf = x509.load_der_x509_certificate(_CAS.gateway.issue(leaf_plan()))
    with pytest.raises(ForbiddenError, match="not that of a CA"):
        Authority.of(leaf)


def test_what_passes():
    documents.check(_LEAF, Purpose.LEAF, _AUTHORITY)
    documents.check(_responder(7), Purpose.OWN_RESPONDER, _AUTHORITY)
    pinned = replace(_AUTHORITY, responder=_SPKI)
    documents.check(_responder(9_000), Purpose.CENTRAL_RESPONDER, pinned)
    empty_list = crl.unsigned(_GATEWAY, 1, NOW_US, NOW_US + DAY_US, (), None)
    documents.check(empty_list, Purpose.CRL, _AUTHORITY)
    delta = crl.unsigned(_GATEWAY, 2, NOW_US, NOW_US + DAY_US, (), None, base=1)
    documents.check(delta, Purpose.CRL, _AUTHORITY)
    documents.check(_ca(0), Purpose.CA, _FLEET)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (_tbs(ca_path_length=0, key_usage=("key_cert_sign",)), "CA:FALSE"),
        (_tbs(key_usage=("digital_signature", "key_cert_sign")), "for a CA"),
        (_tbs(key_usage=("crl_sign",)), "for a CA"),
        (_tbs(extended_key_usage=("1.3.6.1.5.5.7.3.9",)), "OCSP"),
        (certificates.unsigned(leaf_plan(), _CAS.fleet.issuer, 5), "issuer"),
        (_LEAF[5:], "DER"),
        (_LEAF + b"\x00", "well-formed"),
        (_LEAF[:-1], "well-formed"),
        (_wrap(_LEAF), "version 3"),
        (_LEAF.replace(bytes.fromhex("a003020102"), b"", 1), "version 3"),
        (_LEAF[:11] + b"\x8d" + _LEAF[12:], "positive"),
        (documents.PROOF_PREFIX + bytes(64), "DER"),
        (documents.certification_request_info(_GATEWAY.name, _SPKI), "version 3"),
        (b"", "DER"),
    ],
)
def test_no_leaf(document: bytes, word: str):
    assert word in _refused(document, Purpose.LEAF)


def test_a_leaf_must_say_that_it_is_no_ca():
    """Without basicConstraints, old software decides for itself."""
    builder = x509.CertificateBuilder(
        issuer_name=_GATEWAY.name,
        subject_name=_GATEWAY.name,
        public_key=_CAS.root.key.public_key(),
        serial_number=1,
        not_valid_before=_GATEWAY.certificate.not_valid_before_utc,
        not_valid_after=_GATEWAY.certificate.not_valid_after_utc,
        extensions=[],
    )
    tbs = builder.sign(_CAS.root.key, SHA256()).tbs_certificate_bytes
    assert "CA:FALSE" in _refused(tbs, Purpose.LEAF)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (_responder(7.1), "7 days"),
        (_responder(1, extended_key_usage=()), "only"),
        (_responder(1, extended_key_usage=("1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.3.1")), "only"),
        (_responder(1, ca_path_length=0), "CA:FALSE"),
        (_LEAF, "only"),
    ],
)
def test_no_own_responder(document: bytes, word: str):
    assert word in _refused(document, Purpose.OWN_RESPONDER)


def test_no_central_responder():
    assert "No key" in _refused(_responder(1), Purpose.CENTRAL_RESPONDER)
    another = replace(_AUTHORITY, responder=keys.spki(keys.generate().public_key()))
    assert "pinned" in _refused(_responder(1), Purpose.CENTRAL_RESPONDER, another)
    ours = replace(_AUTHORITY, responder=_SPKI)
    assert "nocheck" in _refused(_responder(1, no_check=False), Purpose.CENTRAL_RESPONDER, ours)


def test_no_crl():
    foreign = crl.unsigned(_CAS.fleet.issuer, 1, NOW_US, NOW_US + DAY_US, (), None)
    assert "issuer" in _refused(foreign, Purpose.CRL)
    assert "issuer" in _refused(_LEAF, Purpose.CRL)


def test_no_share_that_could_be_taken_for_the_whole():
    """RFC 5280 §5.2.5: critical, and of this CA's own certificates only."""
    names = [x509.UniformResourceIdentifier("http://crl/1-16-3.crl")]

    def share(*, critical: bool, indirect: bool) -> bytes:
        point = x509.IssuingDistributionPoint(names, None, False, False, None, indirect, False)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=_GATEWAY.name,
            last_update=_GATEWAY.certificate.not_valid_before_utc,
            next_update=_GATEWAY.certificate.not_valid_after_utc,
            extensions=[x509.Extension(point.oid, critical=critical, value=point)],
        )
        return builder.sign(_CAS.root.key, SHA256()).tbs_certlist_bytes

    documents.check(share(critical=True, indirect=False), Purpose.CRL, _AUTHORITY)
    assert "own certificates" in _refused(share(critical=True, indirect=True), Purpose.CRL)
    assert "critical" in _refused(share(critical=False, indirect=False), Purpose.CRL)


def test_no_ca():
    assert "does not sign" in _refused(_ca(0), Purpose.CA)
    plan = certificates.ca_plan(subject("x"), _SPKI, path_length=1, not_before_us=NOW_US)
    as_long = certificates.unsigned(plan, _CAS.fleet.issuer, 8)
    assert "less than 1" in _refused(as_long, Purpose.CA, _FLEET)
    leaf = certificates.unsigned(leaf_plan(), _CAS.fleet.issuer, 8)
    assert "CA:TRUE" in _refused(leaf, Purpose.CA, _FLEET)


def test_certification_requests_are_never_taken_from_outside():
    request = documents.certification_request_info(_GATEWAY.name, _SPKI)
    assert "itself" in _refused(request, Purpose.BIRTH_CSR)


@given(st.binary(max_size=400), st.sampled_from(Purpose))
def test_noise_is_refused(document: bytes, purpose: Purpose):
    _refused(document, purpose, replace(_AUTHORITY, purposes=frozenset(Purpose)))


@given(st.integers(0, len(_LEAF) - 1), st.integers(0, 255), st.sampled_from(Purpose))
def test_what_passes_is_an_end_entity_of_this_ca(place: int, octet: int, purpose: Purpose):
    """However a leaf is bent: what is let through says CA:FALSE and names this CA."""
    bent = bytearray(_LEAF)
    bent[place] = octet
    try:
        documents.check(bytes(bent), purpose, _AUTHORITY)
    except ForbiddenError:
        return
    certificate = x509.load_der_x509_certificate(_wrap(bytes(bent)))
    assert purpose is Purpose.LEAF
    assert certificate.issuer == _GATEWAY.name
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca


def test_plans_of_the_shipped_kind_pass():
    plan: Plan = leaf_plan(key_usage=(), extended_key_usage=())
    documents.check(certificates.unsigned(plan, _GATEWAY, 1), Purpose.LEAF, _AUTHORITY)


def test_no_delta_that_could_be_taken_for_a_whole():
    """RFC 5280 §5.2.4, §5.2.6: critical, younger than its base, and without deltas of its own."""
    number, base = x509.CRLNumber(7), x509.DeltaCRLIndicator(6)
    fresh = x509.FreshestCRL(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://d/")], None, None, None)]
    )

    def refused(*extensions: tuple[x509.ExtensionType, bool]) -> str:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=_GATEWAY.name,
            last_update=_GATEWAY.certificate.not_valid_before_utc,
            next_update=_GATEWAY.certificate.not_valid_after_utc,
            extensions=[x509.Extension(one.oid, critical, one) for one, critical in extensions],
        )
        tbs = builder.sign(_CAS.root.key, SHA256()).tbs_certlist_bytes
        return _refused(tbs, Purpose.CRL)

    assert "critical" in refused((number, False), (base, False))
    assert "younger" in refused((base, True))
    assert "younger" in refused((number, False), (x509.DeltaCRLIndicator(7), True))
    assert "point" in refused((number, False), (base, True), (fresh, False))
