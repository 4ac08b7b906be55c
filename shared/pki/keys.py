"""Key pairs, their types and their names. ``key_types`` lists them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, overload

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import weak_keys
from shared.pki.key_types import KeyType

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
PublicKey = (
    ec.EllipticCurvePublicKey
    | rsa.RSAPublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)


@dataclass(frozen=True, slots=True)
class KeyForm:
    """What there is to know of a key type.

    ``strength``: bits of security (NIST SP 800-57 part 1 §5.6.1; RSA-8192: RFC 3766). Except for
    RSA, a SubjectPublicKeyInfo is ``prefix`` and ``body_bytes`` more: named curve and uncompressed
    point (RFC 5480 §2), or raw key (RFC 8410, RFC 9881), leave no other encoding, so equal keys are
    equal bytes. ``slow``: making one takes seconds. ``experimental``: too new for most peers.
    """

    strength: int
    make: Callable[[], PrivateKey] | None
    prefix: bytes = b""
    body_bytes: int = 0
    slow: bool = False
    experimental: bool = False


def _on(curve: ec.EllipticCurve) -> Callable[[], PrivateKey]:
    return lambda: ec.generate_private_key(curve)


def _rsa(bits: int) -> Callable[[], PrivateKey]:
    return lambda: rsa.generate_private_key(RSA_EXPONENT, bits)


RSA_EXPONENT: Final = 65_537
_RSA_BITS_MIN, _RSA_BITS_MAX, _RSA_BITS_STEP = 2048, 8192, 8
_hex = bytes.fromhex
FORMS: Final = {
    KeyType.EC_P256: KeyForm(
        128, _on(ec.SECP256R1()), _hex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 64
    ),
    KeyType.EC_P384: KeyForm(
        192, _on(ec.SECP384R1()), _hex("3076301006072a8648ce3d020106052b8104002203620004"), 96
    ),
    KeyType.EC_P521: KeyForm(
        256, _on(ec.SECP521R1()), _hex("30819b301006072a8648ce3d020106052b810400230381860004"), 132
    ),
    KeyType.EC_BRAINPOOL_P256: KeyForm(
        128,
        _on(ec.BrainpoolP256R1()),
        _hex("305a301406072a8648ce3d020106092b240303020801010703420004"),
        64,
    ),
    KeyType.EC_BRAINPOOL_P384: KeyForm(
        192,
        _on(ec.BrainpoolP384R1()),
        _hex("307a301406072a8648ce3d020106092b240303020801010b03620004"),
        96,
    ),
    KeyType.EC_BRAINPOOL_P512: KeyForm(
        256,
        _on(ec.BrainpoolP512R1()),
        _hex("30819b301406072a8648ce3d020106092b240303020801010d0381820004"),
        128,
    ),
    KeyType.EC_SECP256K1: KeyForm(
        128, _on(ec.SECP256K1()), _hex("3056301006072a8648ce3d020106052b8104000a03420004"), 64
    ),
    KeyType.ED25519: KeyForm(
        128, ed25519.Ed25519PrivateKey.generate, _hex("302a300506032b6570032100"), 32
    ),
    KeyType.ED448: KeyForm(
        224, ed448.Ed448PrivateKey.generate, _hex("3043300506032b6571033a00"), 57
    ),
    KeyType.RSA_2048: KeyForm(112, _rsa(2048)),
    KeyType.RSA_3072: KeyForm(128, _rsa(3072), slow=True),
    KeyType.RSA_4096: KeyForm(140, _rsa(4096), slow=True),
    KeyType.RSA_8192: KeyForm(192, _rsa(8192), slow=True),
    KeyType.RSA_OTHER: KeyForm(112, None),
    KeyType.ML_DSA_44: KeyForm(
        128,
        mldsa.MLDSA44PrivateKey.generate,
        _hex("30820532300b06096086480165030403110382052100"),
        1312,
        experimental=True,
    ),
    KeyType.ML_DSA_65: KeyForm(
        192,
        mldsa.MLDSA65PrivateKey.generate,
        _hex("308207b2300b0609608648016503040312038207a100"),
        1952,
        experimental=True,
    ),
    KeyType.ML_DSA_87: KeyForm(
        256,
        mldsa.MLDSA87PrivateKey.generate,
        _hex("30820a32300b060960864801650304031303820a2100"),
        2592,
        experimental=True,
    ),
}
#: What a CA or a server can make.
MADE_HERE: Final = tuple(kind for kind, form in FORMS.items() if form.make)
_RSA_TYPES: Final = {
    2048: KeyType.RSA_2048,
    3072: KeyType.RSA_3072,
    4096: KeyType.RSA_4096,
    8192: KeyType.RSA_8192,
}
#: AlgorithmIdentifier of rsaEncryption (RFC 3279 §2.3.1), behind a tag and a length of two bytes.
_RSA_ALGORITHM: Final = _hex("300d06092a864886f70d0101010500")
_RSA_ALGORITHM_AT: Final = 4
_P256_POINT_BYTES: Final = 65
_P256_SPKI_BYTES: Final = 91
_LONG_LENGTH: Final = 0x80


@overload
def generate() -> ec.EllipticCurvePrivateKey: ...
@overload
def generate(kind: Literal[KeyType.EC_P256]) -> ec.EllipticCurvePrivateKey: ...
@overload
def generate(kind: KeyType) -> PrivateKey: ...
def generate(kind: KeyType = KeyType.EC_P256) -> PrivateKey:
    """Make a key pair from OpenSSL's random source.

    RSA takes from 0.05 s (2048 bits) to many seconds (8192): call it in a thread, OpenSSL lets
    the others run meanwhile. Raises BadRequestError for ``rsa-other``.
    """
    make = FORMS[kind].make
    if make is None:
        raise BadRequestError(
            f"Keys of the type {kind} are certified, but not made here.",
            remedy=f"Choose one of {', '.join(MADE_HERE)}.",
        )
    return make()


def spki(public_key: PublicKey) -> bytes:
    """Encode as DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_type(spki_der: bytes) -> KeyType | None:
    """Tell the type of a DER SubjectPublicKeyInfo by its form; None when it is not allowed."""
    for kind, form in _FIXED:
        if spki_der.startswith(form.prefix) and len(spki_der) == len(form.prefix) + form.body_bytes:
            return kind
    key = _rsa_key(spki_der)
    return None if key is None else _RSA_TYPES.get(key.key_size, KeyType.RSA_OTHER)


def load_spki(spki_der: bytes) -> PublicKey:
    """Load a DER SubjectPublicKeyInfo of an allowed type; points are checked to be on their curve.

    Raises BadRequestError for anything else, RSA keys that are known to be weak included.
    """
    kind = key_type(spki_der)
    if kind is None:
        raise BadRequestError(
            "The public key is of a type that is not known here.",
            remedy=f"Use one of {', '.join(FORMS)}, in the one DER encoding.",
        )
    key = _rsa_key(spki_der)
    if key is not None:
        if problem := weak_keys.rsa_problem(key.public_numbers()):
            raise BadRequestError(f"The RSA key {problem}.", remedy="Make a new key.")
        return key
    try:
        loaded = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequestError(f"The public key is no valid key of the type {kind}.") from error
    assert isinstance(loaded, PublicKey)
    return loaded


def load_p256(spki_der: bytes) -> ec.EllipticCurvePublicKey:
    """Load a key of our own messages, which are all P-256; raises BadRequestError for others."""
    key = load_spki(spki_der) if key_type(spki_der) is KeyType.EC_P256 else None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadRequestError("The public key must be an uncompressed NIST P-256 key in DER.")
    return key


def load_private(pkcs8_der: bytes) -> PrivateKey:
    """Load a private key that was made here; raises IntegrityError when it is none."""
    try:
        key = load_der_private_key(pkcs8_der, password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IntegrityError("A stored private key is damaged.") from error
    if not isinstance(key, PrivateKey):
        raise IntegrityError("A stored private key is of a type that is not used here.")
    return key


def of(holder: x509.Certificate | x509.CertificateSigningRequest) -> PublicKey | None:
    """Give the key that a certificate or a request holds; None when its type is not known here."""
    try:
        key = holder.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None
    return key if isinstance(key, PublicKey) and key_type(spki(key)) else None


def spki_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes | None:
    """Give the same key in its one encoding."""
    try:
        key = holder.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None
    spki_der = spki(key) if isinstance(key, PublicKey) else b""
    return spki_der if key_type(spki_der) else None


def of_ca(certificate: x509.Certificate) -> PublicKey:
    """Give the key of a CA certificate; raises IntegrityError when it is of no type that issues."""
    key = of(certificate)
    if key is None:
        raise IntegrityError("A CA certificate has a key of a type that cannot issue.")
    return key


def key_bits(spki_der: bytes) -> bytes:
    """Give the value of the BIT STRING subjectPublicKey: what key identifiers are hashes of."""
    if len(spki_der) == _P256_SPKI_BYTES and spki_der.startswith(FORMS[KeyType.EC_P256].prefix):
        return spki_der[-_P256_POINT_BYTES:]
    algorithm, _ = _element(spki_der, 0)
    _, algorithm_end = _element(spki_der, algorithm)
    value, _ = _element(spki_der, algorithm_end)
    return spki_der[value + 1 :]  # behind the number of unused bits, which is zero


def key_identifier(spki_der: bytes) -> bytes:
    """Give the 20-byte subject key identifier of RFC 7093 §2 method 1: SHA-256 of the key bits."""
    return hashlib.sha256(key_bits(spki_der)).digest()[:20]


def key_identifier_sha1(spki_der: bytes) -> bytes:
    """Give the identifier of RFC 5280 §4.2.1.2 method 1: a name, not a proof of anything."""
    return hashlib.sha1(key_bits(spki_der), usedforsecurity=False).digest()


def ca_id(public_key: PublicKey) -> str:
    """Name the CA that holds this key: its subject key identifier in lower-case hex."""
    return key_identifier(spki(public_key)).hex()


_FIXED: Final = tuple((kind, form) for kind, form in FORMS.items() if form.prefix)


@lru_cache(maxsize=256)
def _rsa_key(spki_der: bytes) -> rsa.RSAPublicKey | None:
    """Load an RSA key in its one encoding and of a length that is allowed; None for all else."""
    if not spki_der.startswith(_RSA_ALGORITHM, _RSA_ALGORITHM_AT):
        return None
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    fits = (
        isinstance(key, rsa.RSAPublicKey)
        and _RSA_BITS_MIN <= key.key_size <= _RSA_BITS_MAX
        and key.key_size % _RSA_BITS_STEP == 0
        and spki(key) == spki_der
    )
    return key if fits and isinstance(key, rsa.RSAPublicKey) else None


def _element(der: bytes, start: int) -> tuple[int, int]:
    """Give where the value of the DER element at ``start`` begins and ends."""
    first = der[start + 1]
    value = start + 2 + (first & ~_LONG_LENGTH if first & _LONG_LENGTH else 0)
    length = int.from_bytes(der[start + 2 : value], "big") if first & _LONG_LENGTH else first
    return value, value + length
