"""How key types and signature algorithms look on a PKCS#11 token (PKCS #11 v2.40 and v3.0).

Data is hashed here: not every token has ECDSA or RSA with a hash, and long data may not fit.
"""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import Hash, HashAlgorithm
from pkcs11 import MGF, Attribute, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import KeyType as TokenKeyType

from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.algorithms import Scheme, SignatureAlgorithm
from shared.pki.keys import FORMS, KeyType

_CAPABILITIES = MechanismFlag.SIGN | MechanismFlag.VERIFY
_CAPTIVE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
#: ECParameters: namedCurve (RFC 5480 §2.1.1).
_CURVES = {
    KeyType.EC_P256: bytes.fromhex("06082a8648ce3d030107"),
    KeyType.EC_P384: bytes.fromhex("06052b81040022"),
    KeyType.EC_P521: bytes.fromhex("06052b81040023"),
    KeyType.EC_BRAINPOOL_P256: bytes.fromhex("06092b2403030208010107"),
    KeyType.EC_BRAINPOOL_P384: bytes.fromhex("06092b240303020801010b"),
    KeyType.EC_BRAINPOOL_P512: bytes.fromhex("06092b240303020801010d"),
    KeyType.EC_SECP256K1: bytes.fromhex("06052b8104000a"),
}
#: Two spellings: curveName as PrintableString (PKCS #11 v3.0 §2.3.3), which is used, and OID.
_EDWARDS_CURVES = {
    KeyType.ED25519: (bytes.fromhex("130c656477617264733235353139"), bytes.fromhex("06032b6570")),
    KeyType.ED448: (bytes.fromhex("130a65647761726473343438"), bytes.fromhex("06032b6571")),
}
_BY_PARAMETERS = {parameters: kind for kind, parameters in _CURVES.items()} | {
    spelling: kind for kind, spellings in _EDWARDS_CURVES.items() for spelling in spellings
}
_RSA_BITS = {
    KeyType.RSA_2048: 2048,
    KeyType.RSA_3072: 3072,
    KeyType.RSA_4096: 4096,
    KeyType.RSA_8192: 8192,
}
_MECHANISMS = {
    "sha256": (Mechanism.SHA256, MGF.SHA256),
    "sha384": (Mechanism.SHA384, MGF.SHA384),
    "sha512": (Mechanism.SHA512, MGF.SHA512),
}
#: What stands before the digest in DigestInfo (RFC 8017 §9.2, note 1).
_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


def public_keys(session: Any) -> dict[str, bytes]:
    """Read the public key objects of known types: label to DER SubjectPublicKeyInfo."""
    found = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    read = {key.label: _spki(key) for key in found}
    return {label: spki for label, spki in read.items() if spki and keys.key_type(spki)}


def generate(session: Any, label: str, kind: KeyType) -> tuple[Any, Any, bytes]:
    """Make a key pair on the token; gives public and private half and the SubjectPublicKeyInfo.

    Raises BadRequestError for a type that tokens do not make.
    """
    common = {"store": True, "label": label, "capabilities": _CAPABILITIES}
    if kind in _RSA_BITS:
        made = session.generate_keypair(
            TokenKeyType.RSA, _RSA_BITS[kind], private_template=_CAPTIVE, **common
        )
    elif kind in _CURVES:
        curve = {Attribute.EC_PARAMS: _CURVES[kind]}
        parameters = session.create_domain_parameters(TokenKeyType.EC, curve, local=True)
        made = parameters.generate_keypair(private_template=_CAPTIVE, **common)
    elif kind in _EDWARDS_CURVES:
        curve = {Attribute.EC_PARAMS: _EDWARDS_CURVES[kind][0]}
        parameters = session.create_domain_parameters(TokenKeyType.EC_EDWARDS, curve, local=True)
        made = parameters.generate_keypair(
            mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, private_template=_CAPTIVE, **common
        )
    else:
        raise BadRequestError(
            f"PKCS#11 tokens make no keys of the type {kind}.",
            remedy=f"Choose one of {', '.join((*_CURVES, *_EDWARDS_CURVES, *_RSA_BITS))}.",
        )
    public, private = made
    return public, private, _spki(public)


def sign(private_key: Any, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
    """Sign; gives the signature value as documents hold it."""
    if algorithm.scheme is Scheme.EDDSA:
        return private_key.sign(data, mechanism=Mechanism.EDDSA)
    if algorithm.hash is None:
        raise BadRequestError(f"PKCS#11 tokens do not sign with {algorithm.name}.")
    digest = _digest(data, algorithm.hash)
    if algorithm.scheme is Scheme.RSA_PKCS1:
        value = _DIGEST_INFO[algorithm.hash.name] + digest
        return private_key.sign(value, mechanism=Mechanism.RSA_PKCS)
    if algorithm.scheme is Scheme.RSA_PSS:
        parameters = (*_MECHANISMS[algorithm.hash.name], len(digest))
        return private_key.sign(
            digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameters
        )
    raw = private_key.sign(digest, mechanism=Mechanism.ECDSA)  # r and s as two halves
    half = len(raw) // 2
    return encode_dss_signature(
        int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    )


def _digest(data: bytes, algorithm: HashAlgorithm) -> bytes:
    context = Hash(algorithm)
    context.update(data)
    return context.finalize()


def _spki(public_key: Any) -> bytes:
    """Encode what the token shows of a key; empty for types that are not known here."""
    if public_key.key_type is TokenKeyType.RSA:
        modulus = int.from_bytes(public_key[Attribute.MODULUS], "big")
        exponent = int.from_bytes(public_key[Attribute.PUBLIC_EXPONENT], "big")
        try:
            return keys.spki(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        except ValueError:
            return b""
    if public_key.key_type not in {TokenKeyType.EC, TokenKeyType.EC_EDWARDS}:
        return b""
    kind = _BY_PARAMETERS.get(public_key[Attribute.EC_PARAMS])
    if kind is None:
        return b""
    # CKA_EC_POINT is a DER OCTET STRING of the point; some tokens give the bare point.
    form = FORMS[kind]
    return form.prefix + public_key[Attribute.EC_POINT][-form.body_bytes :]
