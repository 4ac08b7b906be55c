"""Keys: one encoding per key, only known types, names by RFC 7093."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import keys
from shared.pki.keys import FORMS, KeyType
from tests.support import pki_keys

KEY = keys.generate().public_key()
SPKI = keys.spki(KEY)
POINT = KEY.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize("kind", KeyType)
def test_a_key_of_each_type_reads_back(kind):
    spki = pki_keys.spki(kind)
    assert keys.key_type(spki) is kind
    assert keys.spki(keys.load_spki(spki)) == spki


@pytest.mark.parametrize("kind", pki_keys.SIGNING)
def test_what_is_made_is_of_the_type_and_loads_again(kind):
    made = pki_keys.private_key(kind)
    assert keys.key_type(keys.spki(made.public_key())) is kind


@pytest.mark.parametrize("kind", KeyType)
def test_identifiers_are_those_of_the_library(kind):
    """RFC 7093 method 1 hashes the bits that RFC 5280's method 1 hashes."""
    spki = pki_keys.spki(kind)
    theirs = x509.SubjectKeyIdentifier.from_public_key(keys.load_spki(spki)).digest
    assert hashlib.sha1(keys.key_bits(spki)).digest() == theirs
    assert keys.key_identifier(spki) == hashlib.sha256(keys.key_bits(spki)).digest()[:20]


def test_a_ca_is_named_by_the_hash_of_its_key_bits():
    assert keys.ca_id(KEY) == hashlib.sha256(POINT).hexdigest()[:40]


def test_lengths_without_a_name_are_certified_but_not_made():
    with pytest.raises(BadRequestError, match="not made here"):
        keys.generate(KeyType.RSA_OTHER)


def _off_curve(kind: KeyType) -> bytes:
    form = FORMS[kind]
    return form.prefix + bytes(form.body_bytes)


REFUSED = {
    "empty": b"",
    "short": SPKI[:-1],
    "long": SPKI + b"\x00",
    "off P-256": SPKI[:-64] + bytes(64),
    "off P-384": _off_curve(KeyType.EC_P384),
    "off brainpool": _off_curve(KeyType.EC_BRAINPOOL_P512),
    "compressed": bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    + KEY.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
    "P-224": keys.spki(ec.generate_private_key(ec.SECP224R1()).public_key()),
    "x25519": x25519.X25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "RSA-1024": pki_keys.rsa_spki((1 << 1023) + 1),
    "RSA-2047": pki_keys.rsa_spki((1 << 2046) + 1),
    "RSA-2052": pki_keys.rsa_spki((1 << 2051) + 1),
    "RSA-8200": pki_keys.rsa_spki((1 << 8199) + 1),
    "RSA with exponent 3": pki_keys.rsa_spki(pki_keys.modulus(2048), 3),
    "RSA without NULL": pki_keys.spki(KeyType.RSA_2048).replace(
        bytes.fromhex("300d06092a864886f70d0101010500"), bytes.fromhex("300b06092a864886f70d010101")
    ),
}


@pytest.mark.parametrize("spki", REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused(spki):
    with pytest.raises(BadRequestError) as caught:
        keys.load_spki(spki)
    assert caught.value.message.endswith(".")


def test_our_own_messages_take_p256_only():
    assert keys.load_p256(SPKI) == KEY
    with pytest.raises(BadRequestError, match="P-256"):
        keys.load_p256(pki_keys.spki(KeyType.EC_P384))


def test_a_stored_key_of_a_foreign_type_is_not_loaded():
    foreign = x25519.X25519PrivateKey.generate()
    der = foreign.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(IntegrityError):
        keys.load_private(der)
    with pytest.raises(IntegrityError):
        keys.load_private(der[:-1])
