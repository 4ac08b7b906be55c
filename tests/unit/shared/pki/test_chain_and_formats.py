"""Chains lead to a trusted root or are refused; formats carry keys and certificates unharmed."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from shared.kernel.errors import BadRequestError, UntrustedError
from shared.pki import chain, formats, keys
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan, subordinate

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
