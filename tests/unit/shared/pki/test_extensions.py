"""Extensions that profiles ask for: what is encoded reads back as it was meant."""

from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat import asn1

from shared.kernel.errors import BadRequestError
from shared.pki import certificates, extensions
from shared.pki.extensions import ValueType
from shared.policy.profile import Profile
from shared.policy.shipped import SHIPPED
from tests.support.pki_hierarchy import Hierarchy, leaf_plan

HIERARCHY = Hierarchy()


def read(document: dict) -> x509.Extensions:
    """Put the extension into a certificate and read that."""
    changed = SHIPPED[0].to_document() | {"extensions": [document]}
    if document["kind"] in {"name_constraints", "policy_mappings", "policy_constraints"} | {
        "inhibit_any_policy"
    }:
        changed |= {"ca_path_length": 0, "key_usage": ["key_cert_sign", "crl_sign"]}
    (encoded,) = Profile.from_document(changed).constant_extensions or ()
    plan = leaf_plan(extensions=(encoded,))
    tbs = certificates.unsigned(plan, HIERARCHY.gateway.issuer, 1)
    der = certificates.assemble(tbs, HIERARCHY.gateway.sign(tbs), HIERARCHY.gateway.issuer)
    return x509.load_der_x509_certificate(der).extensions


def test_certificate_policies_with_qualifiers():
    policy = {"oid": "1.3.6.1.4.1.99.1", "cps": ["https://cps.example/"], "notice": "Plant only"}
    found = read({"kind": "certificate_policies", "policies": [policy, {"oid": "2.5.29.32.0"}]})
    first, second = found.get_extension_for_class(x509.CertificatePolicies).value
    assert first.policy_identifier.dotted_string == "1.3.6.1.4.1.99.1"
    address, notice = first.policy_qualifiers or ()
    assert address == "https://cps.example/"
    assert isinstance(notice, x509.UserNotice) and notice.explicit_text == "Plant only"
    assert second.policy_qualifiers is None


def test_name_constraints():
    document = {
        "kind": "name_constraints",
        "permitted": [{"kind": "dns", "value": "plant.example"}],
        "excluded": [{"kind": "ip", "value": "10.0.0.0/8"}],
    }
    found = read(document).get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert found.value.permitted_subtrees == [x509.DNSName("plant.example")]
    assert found.value.excluded_subtrees == [x509.IPAddress(ip_network("10.0.0.0/8"))]


def test_constraints_on_policies():
    pairs = [{"issuer": "2.5.29.32.1", "subject": "1.3.6.1.4.1.99.1"}]
    mapped = read({"kind": "policy_mappings", "mappings": pairs})
    raw = mapped.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.33")).value
    assert raw.public_bytes().hex() == "3011300f0604551d200106072b060104016301"
    limits = {"kind": "policy_constraints", "require_explicit": 0, "inhibit_mapping": 1}
    constraints = read(limits).get_extension_for_class(x509.PolicyConstraints).value
    assert (constraints.require_explicit_policy, constraints.inhibit_policy_mapping) == (0, 1)
    skip = read({"kind": "inhibit_any_policy", "skip": 2})
    assert skip.get_extension_for_class(x509.InhibitAnyPolicy).value.skip_certs == 2


def test_must_staple_and_windows_templates():
    feature = read({"kind": "tls_feature"}).get_extension_for_class(x509.TLSFeature)
    assert list(feature.value) == [x509.TLSFeatureType.status_request] and not feature.critical
    template = read({"kind": "microsoft_template", "oid": "1.3.6.1.4.1.311.21.8.1", "major": 100})
    version2 = template.get_extension_for_class(x509.MSCertificateTemplate).value
    assert (version2.template_id.dotted_string, version2.major_version) == (
        "1.3.6.1.4.1.311.21.8.1",
        100,
    )
    name = read({"kind": "microsoft_name", "name": "Gerät"})
    oid = x509.ObjectIdentifier(extensions.MICROSOFT_NAME)
    raw = name.get_extension_for_oid(oid).value.public_bytes()
    assert raw[2:].decode("utf-16-be") == "Gerät" and raw[0] == 0x1E


@pytest.mark.parametrize(
    ("value_type", "text", "decoded"),
    [
        (ValueType.UTF8, "Gerät", "Gerät"),
        (ValueType.INTEGER, "-129", -129),
        (ValueType.INTEGER, "128", 128),
        (ValueType.INTEGER, "-128", -128),
        (ValueType.INTEGER, "0", 0),
        (ValueType.BOOLEAN, "true", True),
        (ValueType.OID, "1.3.6.1.4.1.99", x509.ObjectIdentifier("1.3.6.1.4.1.99")),
        (ValueType.OCTETS, "00ff", b"\x00\xff"),
    ],
)
def test_private_values_by_type(value_type, text, decoded):
    oid, critical, der = extensions.private("2.25.1", value_type, text, critical=True)
    assert (oid, critical) == ("2.25.1", True)
    assert asn1.decode_der(type(decoded), der) == decoded


@pytest.mark.parametrize(
    ("value_type", "text"),
    [
        (ValueType.IA5, "ä"),
        (ValueType.INTEGER, "1.5"),
        (ValueType.INTEGER, "9" * 100),
        (ValueType.INTEGER, "²"),
        (ValueType.BOOLEAN, "yes"),
        (ValueType.OID, "1"),
        (ValueType.OCTETS, "0"),
        (ValueType.OCTETS, "0 0"),
    ],
)
def test_private_values_that_do_not_fit(value_type, text):
    with pytest.raises(ValueError, match=r"^(is|holds) "):
        extensions.private("2.25.1", value_type, text, critical=False)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "private_der", "oid": "2.25.1", "der": "BAFhMA=="},  # a byte too many
        {"kind": "private_der", "oid": "2.5.29.19", "der": "MAMBAf8="},  # CA:TRUE by the back door
        {"kind": "private", "oid": "1.3.6.1.5.5.7.1.1", "type": "utf8", "value": "x"},
        {"kind": "private", "oid": "2.25.1", "type": "integer", "value": "x"},
        {"kind": "name_constraints", "permitted": [{"kind": "dns", "value": "a.example"}]},
        {"kind": "policy_constraints"},
        {"kind": "certificate_policies", "policies": []},
        {"kind": "no_such"},
    ],
)
def test_a_profile_refuses_extensions_that_cannot_be_meant(document):
    with pytest.raises(BadRequestError):
        Profile.from_document(SHIPPED[0].to_document() | {"extensions": [document]})


def test_one_extension_stands_once():
    twice = [{"kind": "tls_feature"}, {"kind": "tls_feature", "critical": True}]
    with pytest.raises(BadRequestError, match="twice"):
        Profile.from_document(SHIPPED[0].to_document() | {"extensions": twice})
