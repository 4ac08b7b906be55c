"""Signature algorithms: how each is named in DER, who signs with it, and which one by default."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.keys import KeyType, PrivateKey, PublicKey


class Scheme(Enum):
    """How a signature is made; tokens have a mechanism for each."""

    ECDSA = "ecdsa"
    RSA_PKCS1 = "rsa"
    RSA_PSS = "rsa-pss"
    EDDSA = "eddsa"
    ML_DSA = "ml-dsa"


@dataclass(frozen=True, slots=True, eq=False)
class SignatureAlgorithm:
    """One signature algorithm; there is one object of each.

    ``identifier`` is its DER AlgorithmIdentifier as RFC 5280 §4.1.1.2 puts it into documents.
    ``hash`` is None where the algorithm hashes by itself (EdDSA, ML-DSA). Signature values are
    those of certificates: for ECDSA a DER Ecdsa-Sig-Value (RFC 3279 §2.2.3).
    """

    name: str
    scheme: Scheme
    identifier: bytes
    hash: hashes.HashAlgorithm | None = None
    arguments: tuple[Any, ...] = ()

    def sign(self, private_key: PrivateKey, data: bytes) -> bytes:
        """Sign with a key of a type that fits; see ``fitting``."""
        signer: Any = private_key  # the arguments are those of the key's own class
        return signer.sign(data, *self.arguments)

    def verify(self, public_key: PublicKey, data: bytes, signature: bytes) -> None:
        """Raise InvalidSignature unless this key signed exactly this with this algorithm."""
        verifier: Any = public_key
        try:
            verifier.verify(signature, data, *self.arguments)
        except (TypeError, ValueError) as error:  # a key or a value that does not fit at all
            raise InvalidSignature from error


def _ecdsa(name: str, oid: str, algorithm: hashes.HashAlgorithm) -> SignatureAlgorithm:
    identifier = bytes.fromhex(f"300a0608{oid}")
    return SignatureAlgorithm(name, Scheme.ECDSA, identifier, algorithm, (ec.ECDSA(algorithm),))


def _rsa(name: str, oid: str, algorithm: hashes.HashAlgorithm) -> SignatureAlgorithm:
    identifier = bytes.fromhex(f"300d0609{oid}0500")
    arguments = (padding.PKCS1v15(), algorithm)
    return SignatureAlgorithm(name, Scheme.RSA_PKCS1, identifier, algorithm, arguments)


def _pss(name: str, hash_oid: str, algorithm: hashes.HashAlgorithm) -> SignatureAlgorithm:
    """RSASSA-PSS of RFC 4055 §3.1: MGF1 with the same hash, the salt as long as the hash."""
    salt = algorithm.digest_size
    hash_identifier = f"300d0609{hash_oid}0500"
    mask = f"301a06092a864886f70d010108{hash_identifier}"
    parameters = f"3034a00f{hash_identifier}a11c{mask}a2030201{salt:02x}"
    identifier = bytes.fromhex(f"304106092a864886f70d01010a{parameters}")
    arguments = (padding.PSS(padding.MGF1(algorithm), salt), algorithm)
    return SignatureAlgorithm(name, Scheme.RSA_PSS, identifier, algorithm, arguments)


def _bare(name: str, scheme: Scheme, oid: str) -> SignatureAlgorithm:
    """Give an algorithm without parameters and without a hash of its own choice."""
    content = bytes.fromhex(oid)
    identifier = bytes((0x30, len(content) + 2, 0x06, len(content))) + content
    return SignatureAlgorithm(name, scheme, identifier)


_SHA256, _SHA384, _SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
ECDSA_SHA256: Final = _ecdsa("ecdsa-sha256", "2a8648ce3d040302", _SHA256)
ECDSA_SHA384: Final = _ecdsa("ecdsa-sha384", "2a8648ce3d040303", _SHA384)
ECDSA_SHA512: Final = _ecdsa("ecdsa-sha512", "2a8648ce3d040304", _SHA512)
RSA_SHA256: Final = _rsa("rsa-sha256", "2a864886f70d01010b", _SHA256)
RSA_SHA384: Final = _rsa("rsa-sha384", "2a864886f70d01010c", _SHA384)
RSA_SHA512: Final = _rsa("rsa-sha512", "2a864886f70d01010d", _SHA512)
RSA_PSS_SHA256: Final = _pss("rsa-pss-sha256", "608648016503040201", _SHA256)
RSA_PSS_SHA384: Final = _pss("rsa-pss-sha384", "608648016503040202", _SHA384)
RSA_PSS_SHA512: Final = _pss("rsa-pss-sha512", "608648016503040203", _SHA512)
ED25519: Final = _bare("ed25519", Scheme.EDDSA, "2b6570")
ED448: Final = _bare("ed448", Scheme.EDDSA, "2b6571")
ML_DSA_44: Final = _bare("ml-dsa-44", Scheme.ML_DSA, "608648016503040311")
ML_DSA_65: Final = _bare("ml-dsa-65", Scheme.ML_DSA, "608648016503040312")
ML_DSA_87: Final = _bare("ml-dsa-87", Scheme.ML_DSA, "608648016503040313")

_EC_256 = (ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512)
_EC_384 = (ECDSA_SHA384, ECDSA_SHA256, ECDSA_SHA512)
_EC_512 = (ECDSA_SHA512, ECDSA_SHA256, ECDSA_SHA384)
_RSA_PSS = (RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512)
_RSA_256 = (RSA_SHA256, RSA_SHA384, RSA_SHA512, *_RSA_PSS)
_RSA_384 = (RSA_SHA384, RSA_SHA256, RSA_SHA512, *_RSA_PSS)
_RSA_512 = (RSA_SHA512, RSA_SHA256, RSA_SHA384, *_RSA_PSS)
#: What keys of each type sign with; the first is the usual one, its hash as strong as the key.
_BY_KEY_TYPE: Final = {
    KeyType.EC_P256: _EC_256,
    KeyType.EC_P384: _EC_384,
    KeyType.EC_P521: _EC_512,
    KeyType.EC_BRAINPOOL_P256: _EC_256,
    KeyType.EC_BRAINPOOL_P384: _EC_384,
    KeyType.EC_BRAINPOOL_P512: _EC_512,
    KeyType.EC_SECP256K1: _EC_256,
    KeyType.ED25519: (ED25519,),
    KeyType.ED448: (ED448,),
    KeyType.RSA_2048: _RSA_256,
    KeyType.RSA_3072: _RSA_256,
    KeyType.RSA_4096: _RSA_384,
    KeyType.RSA_8192: _RSA_512,
    KeyType.RSA_OTHER: _RSA_256,
    KeyType.ML_DSA_44: (ML_DSA_44,),
    KeyType.ML_DSA_65: (ML_DSA_65,),
    KeyType.ML_DSA_87: (ML_DSA_87,),
}
BY_NAME: Final = {algorithm.name: algorithm for all_ in _BY_KEY_TYPE.values() for algorithm in all_}


def fitting(kind: KeyType) -> tuple[SignatureAlgorithm, ...]:
    """List what keys of this type may sign with; the first is the usual one."""
    return _BY_KEY_TYPE[kind]


def usual(public_key: PublicKey) -> SignatureAlgorithm:
    """Give what a key signs with when nobody chose; raises BadRequestError for a foreign type."""
    return fitting(_key_type(public_key))[0]


def chosen(public_key: PublicKey, name: str | None) -> SignatureAlgorithm:
    """Give the algorithm of this name for this key, None being the usual one.

    Raises BadRequestError when the key cannot sign with it.
    """
    fits = fitting(_key_type(public_key))
    for algorithm in fits:
        if name in {None, algorithm.name}:
            return algorithm
    raise BadRequestError(
        f"A key of the type {_key_type(public_key)} does not sign with {name}.",
        remedy=f"Choose one of {', '.join(algorithm.name for algorithm in fits)}.",
    )


def of_issuer(public_key: PublicKey, certificate: x509.Certificate) -> SignatureAlgorithm:
    """Give what a CA signs with, as its own certificate shows.

    That is the algorithm of its certificate, if the CA's key fits it and its hash is not shorter
    than usual; the usual one else. So what is chosen for a root holds for the CAs below it.
    """
    fits = fitting(_key_type(public_key))
    der, tbs = certificate.public_bytes(Encoding.DER), certificate.tbs_certificate_bytes
    named = der.index(tbs) + len(tbs)
    for algorithm in fits:
        if der.startswith(algorithm.identifier, named) and _bits(algorithm) >= _bits(fits[0]):
            return algorithm
    return fits[0]


def _bits(algorithm: SignatureAlgorithm) -> int:
    return algorithm.hash.digest_size * 8 if algorithm.hash else 0


def _key_type(public_key: PublicKey) -> KeyType:
    kind = keys.key_type(keys.spki(public_key))
    if kind is None:
        raise BadRequestError("The key is of a type that does not sign here.")
    return kind
