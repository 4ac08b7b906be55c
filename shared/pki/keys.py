"""Key pairs and their names. The allow-list of key types begins and ends here."""

import hashlib
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from shared.kernel.errors import BadRequestError


class KeyType(StrEnum):
    """Key types that may be certified and that may issue."""

    EC_P256 = "ec-p256"


#: A SubjectPublicKeyInfo of a key type is this prefix and a body of fixed length: the named curve
#: and the uncompressed point of RFC 5480 §2 leave no other encoding, so equal keys are equal bytes.
_SPKI_FORMS = {
    KeyType.EC_P256: (
        bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
        64,
    ),
}
_POINT_BYTES = 65


def generate() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key pair from OpenSSL's random source."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Encode as DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_type(spki_der: bytes) -> KeyType | None:
    """Tell the type of a DER SubjectPublicKeyInfo by its form; None when it is not allowed."""
    for name, (prefix, body_bytes) in _SPKI_FORMS.items():
        if spki_der.startswith(prefix) and len(spki_der) == len(prefix) + body_bytes:
            return name
    return None


def load_spki(spki_der: bytes) -> ec.EllipticCurvePublicKey:
    """Load a DER SubjectPublicKeyInfo of an allowed type; the point is checked to be on the curve.

    Raises BadRequestError for anything else.
    """
    if key_type(spki_der) is None:
        raise BadRequestError("The public key must be an uncompressed NIST P-256 key in DER.")
    try:
        key = load_der_public_key(spki_der)
    except ValueError as error:
        raise BadRequestError("The public key is not a point on the curve P-256.") from error
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def key_identifier(spki_der: bytes) -> bytes:
    """Give the 20-byte subject key identifier of RFC 7093 §2 method 1.

    It is the start of the SHA-256 of the public key's bits, here the point of an allowed SPKI.
    """
    return hashlib.sha256(spki_der[-_POINT_BYTES:]).digest()[:20]


def ca_id(public_key: ec.EllipticCurvePublicKey) -> str:
    """Name the CA that holds this key: its subject key identifier in lower-case hex."""
    return key_identifier(spki(public_key)).hex()
