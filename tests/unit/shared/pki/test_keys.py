"""Keys: one encoding per key, only allowed types, names by RFC 7093."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.kernel.errors import BadRequestError
from shared.pki import keys

KEY = keys.generate().public_key()
SPKI = keys.spki(KEY)
POINT = KEY.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_a_key_reads_back():
    assert keys.load_spki(SPKI) == KEY
    assert keys.key_type(SPKI) is keys.KeyType.EC_P256


def test_a_ca_is_named_by_the_hash_of_its_key_bits():
    assert keys.ca_id(KEY) == hashlib.sha256(POINT).hexdigest()[:40]


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        SPKI[:-1],
        SPKI + b"\x00",
        SPKI[:-64] + bytes(64),
        bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
        + KEY.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        keys.spki(ec.generate_private_key(ec.SECP384R1()).public_key()),
        keys.spki(ec.generate_private_key(ec.BrainpoolP256R1()).public_key()),
    ],
    ids=["empty", "short", "long", "off the curve", "compressed", "p384", "brainpool"],
)
def test_everything_else_is_refused(spki):
    with pytest.raises(BadRequestError):
        keys.load_spki(spki)
