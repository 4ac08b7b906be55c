"""Chains lead to a trusted root or are refused; formats carry keys and certificates unharmed."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from shared.kernel.errors import BadRequestError, UntrustedError
from shared.pki import certificates, chain, formats, keys
from shared.pki.certificates import Issuer
from tests.support import pki_keys
from tests.support.pki_hierarchy import (
    DAY_US,
    NOW_US,
    Authority,
    Hierarchy,
    leaf_plan,
    root_authority,
    subject,
    subordinate,
)

HIERARCHY = Hierarchy()
ROOT = HIERARCHY.root.issuer.chain[0]
FLEET = HIERARCHY.fleet.issuer.chain[0]
GATEWAY = HIERARCHY.gateway.issuer.chain[0]
LEAF = HIERARCHY.gateway.issue(leaf_plan())
LATER_US = NOW_US + DAY_US


def test_a_leaf_leads_to_its_root():
    path = chain.verify(LEAF, [GATEWAY, FLEET], [ROOT], LATER_US)
    assert path == list(map(x509.load_der_x509_certificate, (LEAF, GATEWAY, FLEET, ROOT)))


def test_a_ca_leads_to_its_root():
    assert len(chain.verify(GATEWAY, [FLEET], [ROOT], LATER_US)) == 3


@pytest.mark.parametrize(
    ("leaf", "intermediates", "roots", "now_us"),
    [
        (LEAF, [GATEWAY], [ROOT], LATER_US),
        (LEAF, [GATEWAY, FLEET], [Hierarchy().root.issuer.chain[0]], LATER_US),
        (LEAF, [GATEWAY, FLEET], [ROOT], NOW_US + 91 * DAY_US),
        (LEAF, [GATEWAY, FLEET], [ROOT], NOW_US - DAY_US),
        (LEAF[:-1] + bytes([LEAF[-1] ^ 1]), [GATEWAY, FLEET], [ROOT], LATER_US),
        (LEAF, [GATEWAY, FLEET], [], LATER_US),
        (b"", [], [ROOT], LATER_US),
    ],
    ids=["gap", "foreign root", "expired", "too early", "forged", "no roots", "no certificate"],
)
def test_what_leads_nowhere_is_refused(leaf, intermediates, roots, now_us):
    with pytest.raises(UntrustedError):
        chain.verify(leaf, intermediates, roots, now_us)


def test_a_leaf_is_no_ca():
    key = keys.generate()
    plan = leaf_plan(public_key=keys.spki(key.public_key()), key_usage=("key_cert_sign",))
    impostor = HIERARCHY.gateway.issue(plan)
    forged = type(HIERARCHY.gateway)(
        key,
        type(HIERARCHY.gateway.issuer)(
            keys.ca_id(key.public_key()), x509.load_der_x509_certificate(impostor), (impostor,)
        ),
    ).issue(leaf_plan())
    with pytest.raises(UntrustedError):
        chain.verify(forged, [impostor, GATEWAY, FLEET], [ROOT], LATER_US)


def test_a_gateway_ca_cannot_make_another_ca():
    rogue = subordinate(HIERARCHY.gateway, "Rogue CA", 0)
    forged = rogue.issue(leaf_plan())
    with pytest.raises(UntrustedError):
        chain.verify(forged, [rogue.issuer.chain[0], GATEWAY, FLEET], [ROOT], LATER_US)


@pytest.mark.parametrize("kind", pki_keys.SIGNING)
def test_cas_of_each_key_type_lead_to_their_root(kind):
    root = root_authority("Root", kind)
    issuing = subordinate(root, "Issuing", 0, kind=kind)
    leaf = issuing.issue(leaf_plan())
    path = chain.verify(leaf, [issuing.issuer.chain[0]], [root.issuer.chain[0]], LATER_US)
    assert len(path) == 3


def test_a_ca_with_an_unknown_critical_extension_leads_nowhere():
    key = keys.generate()
    plan = certificates.ca_plan(
        subject("Odd"), keys.spki(key.public_key()), path_length=0, not_before_us=NOW_US
    )
    der = HIERARCHY.root.issue(replace(plan, extensions=(("1.2.3.4", True, b"\x05\x00"),)))
    odd = Authority(
        key, Issuer(keys.ca_id(key.public_key()), x509.load_der_x509_certificate(der), (der,))
    )
    with pytest.raises(UntrustedError):
        chain.verify(odd.issue(leaf_plan()), [der], [ROOT], LATER_US)


def test_pkcs7_holds_the_certificates():
    ders = [LEAF, GATEWAY, FLEET]
    packed = load_der_pkcs7_certificates(formats.pkcs7(ders))
    assert sorted(packed, key=hash) == sorted(map(x509.load_der_x509_certificate, ders), key=hash)


def test_a_trust_store_holds_the_anchors():
    packed = pkcs12.load_pkcs12(formats.java_truststore([ROOT, FLEET], b"changeit"), b"changeit")
    assert [entry.friendly_name for entry in packed.additional_certs] == [b"ca-1", b"ca-2"]
    assert packed.key is None
    with pytest.raises(BadRequestError):
        formats.java_truststore([ROOT], b"")


@pytest.mark.parametrize("kind", pki_keys.SIGNING)
def test_keys_of_each_type_are_packed_or_said_not_to_be(kind):
    key = pki_keys.private_key(kind)
    leaf = HIERARCHY.gateway.issue(leaf_plan(public_key=pki_keys.spki(kind)))
    pem = formats.pkcs8(key, b"secret")
    assert keys.spki(load_pem_private_key(pem, b"secret").public_key()) == pki_keys.spki(kind)
    if keys.FORMS[kind].experimental:
        with pytest.raises(BadRequestError, match="ML-DSA"):
            formats.pkcs12(key, leaf, [], b"secret")
    else:
        packed = pkcs12.load_pkcs12(formats.pkcs12(key, leaf, [GATEWAY], b"secret"), b"secret")
        assert keys.spki(packed.key.public_key()) == pki_keys.spki(kind)


def test_pem_and_der_read_back():
    ders = [LEAF, GATEWAY, FLEET]
    assert formats.certificates(formats.pem(ders).encode()) == ders
    assert formats.certificates(LEAF) == [LEAF]
    for data in (b"", b"\x30", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"):
        with pytest.raises(BadRequestError):
            formats.certificates(data)


def test_keys_leave_only_under_a_password():
    key = keys.generate()
    leaf = HIERARCHY.gateway.issue(leaf_plan(public_key=keys.spki(key.public_key())))
    packed = pkcs12.load_key_and_certificates(
        formats.pkcs12(key, leaf, [GATEWAY, FLEET], b"secret"), b"secret"
    )
    assert packed[0].private_numbers() == key.private_numbers()
    assert packed[1] == x509.load_der_x509_certificate(leaf)
    assert packed[2] == list(map(x509.load_der_x509_certificate, (GATEWAY, FLEET)))
    pem = formats.pkcs8(key, b"secret")
    assert load_pem_private_key(pem, b"secret").private_numbers() == key.private_numbers()
    assert b"ENCRYPTED" in pem
    for make in (lambda: formats.pkcs8(key, b""), lambda: formats.pkcs12(key, leaf, [], b"")):
        with pytest.raises(BadRequestError):
            make()
