"""Certificates: only what the issuer's key signed over exactly these bytes is released."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import certificates, keys, signed
from shared.pki.algorithms import BY_NAME, ECDSA_SHA256
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType
from shared.pki.plan import (
    NO_EXPIRY_US,
    AltName,
    AltNameKind,
    AuthorityKey,
    NameAttribute,
    Pointers,
    SubjectKey,
)
from tests.support import pki_keys
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan, subject
from tests.support.pki_twin import twin

HIERARCHY = Hierarchy()
GATEWAY = HIERARCHY.gateway
BARE = Issuer(GATEWAY.issuer.ca_id, GATEWAY.issuer.certificate, GATEWAY.issuer.chain)
PLAN = leaf_plan()


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]):
    return certificate.extensions.get_extension_for_class(kind)


def test_the_same_plan_gives_the_same_bytes():
    first = certificates.unsigned(PLAN, GATEWAY.issuer, 7)
    assert first == certificates.unsigned(PLAN, GATEWAY.issuer, 7)
    assert first != certificates.unsigned(PLAN, GATEWAY.issuer, 8)


YEAR_2050_US = 2_524_608_000 * US_PER_SECOND
MOMENTS = st.one_of(
    st.integers(0, NO_EXPIRY_US // US_PER_SECOND).map(lambda seconds: seconds * US_PER_SECOND),
    st.sampled_from([YEAR_2050_US - US_PER_SECOND, YEAR_2050_US, NO_EXPIRY_US]),
)
_URLS = st.sampled_from(
    [None, (), ("http://pki.plant.example/{ca_id}.crl",), ("http://a.example/x", "ldap://b/c")]
)
USAGES = ("digital_signature", "content_commitment", "key_agreement", "key_cert_sign", "crl_sign")


@st.composite
def plans(draw: st.DrawFn):
    """Anything that a certificate can say."""
    alternatives = [
        AltName(AltNameKind.DNS, "a." * 40 + "example"),
        AltName(AltNameKind.IP, "2001:db8::1"),
        AltName(AltNameKind.URI, "urn:a:b"),
        AltName(AltNameKind.EMAIL, "a@b.example"),
        AltName(AltNameKind.HARDWARE_MODULE, "1.3.6.1.4.1.99999.1:SN-1"),
    ]
    values = st.tuples(st.just("1.2.3.4"), st.booleans(), st.binary(max_size=300))
    start, end = sorted((draw(MOMENTS), draw(MOMENTS)))
    return leaf_plan(
        subject=draw(st.sampled_from([(), subject("Gerät 7"), subject("x" * 64, "SN-1")])),
        alt_names=tuple(draw(st.lists(st.sampled_from(alternatives), max_size=4))),
        not_before_us=start,
        not_after_us=end,
        key_usage=tuple(draw(st.sets(st.sampled_from(USAGES), min_size=1))),
        extended_key_usage=draw(st.sampled_from([(), ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")])),
        extensions=tuple(draw(st.lists(values, max_size=1))),
        ca_path_length=draw(st.none() | st.integers(0, 3)),
        no_check=draw(st.booleans()),
        pointers=Pointers(draw(_URLS), draw(_URLS), draw(_URLS)),
        subject_key=draw(st.sampled_from(SubjectKey)),
        authority_key=draw(st.sampled_from(AuthorityKey)),
    )


@given(plans(), st.integers(1, (1 << 159) - 1), st.sampled_from([GATEWAY.issuer, BARE, None]))
@settings(max_examples=300, deadline=None)
def test_another_builder_gives_the_same_bytes(plan, serial, issuer):
    if issuer is None:
        assert certificates.unsigned_root(plan, serial, ECDSA_SHA256) == twin(plan, None, serial)
    else:
        assert certificates.unsigned(plan, issuer, serial) == twin(plan, issuer, serial)


@pytest.mark.parametrize(("kind", "name"), pki_keys.ISSUERS)
@pytest.mark.parametrize("subject_kind", [KeyType.EC_P256, KeyType.RSA_OTHER, KeyType.ED448])
def test_another_builder_gives_the_same_bytes_for_each_issuer(kind, name, subject_kind):
    algorithm = BY_NAME[name]
    plan = leaf_plan(public_key=pki_keys.spki(subject_kind))
    issuer = replace(GATEWAY.issuer, signature=algorithm)
    theirs = twin(plan, issuer, 7, kind, algorithm)
    assert certificates.unsigned(plan, issuer, 7) == theirs
    root = twin(plan, None, 7, kind, algorithm)
    assert certificates.unsigned_root(plan, 7, algorithm) == root


def test_the_certificate_says_what_was_planned():
    certificate = x509.load_der_x509_certificate(GATEWAY.issue(PLAN, serial=1 << 127))
    assert certificate.serial_number == 1 << 127
    assert certificate.issuer == GATEWAY.issuer.certificate.subject
    assert keys.spki(certificate.public_key()) == PLAN.public_key
    identifier = keys.key_identifier(PLAN.public_key)
    assert extension(certificate, x509.SubjectKeyIdentifier).value.digest == identifier
    authority = extension(certificate, x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier.hex() == GATEWAY.issuer.ca_id
    constraints = extension(certificate, x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert extension(certificate, x509.KeyUsage).critical
    assert not extension(certificate, x509.SubjectAlternativeName).critical
    points = list(extension(certificate, x509.CRLDistributionPoints).value)
    assert [name.value for name in points[0].full_name] == list(GATEWAY.issuer.crl_urls)
    assert len(points) == 1
    access = extension(certificate, x509.AuthorityInformationAccess).value
    ocsp = [
        item.access_location.value
        for item in access
        if item.access_method == AuthorityInformationAccessOID.OCSP
    ]
    assert ocsp == list(GATEWAY.issuer.ocsp_urls)


def test_an_alternative_name_alone_is_critical():
    certificate = x509.load_der_x509_certificate(GATEWAY.issue(leaf_plan(subject=())))
    assert extension(certificate, x509.SubjectAlternativeName).critical


@pytest.mark.parametrize(
    ("authority", "path_length"),
    [(HIERARCHY.root, 2), (HIERARCHY.fleet, 1), (HIERARCHY.gateway, 0)],
)
def test_cas_are_cas_without_expiry(authority, path_length):
    certificate = authority.issuer.certificate
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, path_length)
    usage = extension(certificate, x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    assert authority.issuer.limits.not_after_us == NO_EXPIRY_US


def test_the_limits_of_an_issuer():
    issuer = GATEWAY.issuer
    assert issuer.limits.issue_until_us == issuer.limits.not_after_us
    until = Issuer(issuer.ca_id, issuer.certificate, issuer.chain, issue_until_us=NOW_US + 1)
    assert until.limits.issue_until_us == NOW_US + 1
    assert until.limits.not_before_us == NOW_US


def test_an_issuer_must_have_the_name_of_its_key():
    with pytest.raises(IntegrityError):
        Issuer(HIERARCHY.fleet.issuer.ca_id, GATEWAY.issuer.certificate, GATEWAY.issuer.chain)


def test_an_issuer_without_addresses_issues_without_pointers():
    tbs = certificates.unsigned(PLAN, BARE, 1)
    der = certificates.assemble(tbs, GATEWAY.sign(tbs), BARE)
    extensions = x509.load_der_x509_certificate(der).extensions
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.CRLDistributionPoints)


def test_a_foreign_signature_is_not_released():
    tbs = certificates.unsigned(PLAN, GATEWAY.issuer, 1)
    with pytest.raises(IntegrityError, match="issuing CA"):
        certificates.assemble(tbs, HIERARCHY.fleet.sign(tbs), GATEWAY.issuer)
    with pytest.raises(IntegrityError, match="issuing CA"):
        certificates.assemble(tbs, b"", GATEWAY.issuer)


def test_a_signature_over_other_bytes_is_not_released():
    intended = certificates.unsigned(PLAN, GATEWAY.issuer, 1)
    other = certificates.unsigned(PLAN, GATEWAY.issuer, 2)
    with pytest.raises(IntegrityError):
        certificates.assemble(intended, GATEWAY.sign(other), GATEWAY.issuer)


@pytest.mark.parametrize("document", [b"", b"\x30\x00", b"no DER", b"\x30\x03\x02\x01\x05"])
def test_what_is_no_certificate_is_not_released_though_it_is_signed(document):
    with pytest.raises(IntegrityError):
        certificates.assemble(document, GATEWAY.sign(document), GATEWAY.issuer)


def test_bytes_behind_the_document_are_not_released():
    tbs = certificates.unsigned(PLAN, GATEWAY.issuer, 1) + signed.tlv(signed.OCTET_STRING, b"x")
    with pytest.raises(IntegrityError):
        certificates.assemble(tbs, GATEWAY.sign(tbs), GATEWAY.issuer)


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": b"x"},
        {"subject": subject("a\x00b")},
        {"subject": (NameAttribute("1.2.3", "x"),)},
        {"alt_names": (AltName(AltNameKind.DNS, "*"),)},
    ],
)
def test_the_builder_refuses_what_no_policy_should_have_let_through(changes):
    with pytest.raises(BadRequestError):
        certificates.unsigned(leaf_plan(**changes), GATEWAY.issuer, 1)


def test_a_responder_is_delegated_and_not_itself_checked():
    plan = certificates.responder_plan(
        subject("OCSP"), PLAN.public_key, not_before_us=NOW_US, not_after_us=NOW_US + 7 * DAY_US
    )
    certificate = x509.load_der_x509_certificate(GATEWAY.issue(plan))
    extension(certificate, x509.OCSPNoCheck)
    assert [oid.dotted_string for oid in extension(certificate, x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.9"
    ]
