"""What a client should put into its request, from the live profile (RFC 7030 §4.5, RFC 9908)."""

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import AttributeOID, ExtensionOID

from shared.pki.keys import KeyType
from shared.pki.signed import INTEGER, SEQUENCE, tlv
from shared.policy.profile import CsrHash, Profile

_SET, _CONTEXT_0, _CONTEXT_1 = 0x31, 0xA0, 0xA1
#: id-aa-certificationRequestInfoTemplate and id-aa-extensionReqTemplate (RFC 9908 §3.4).
_INFO_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.61")
_EXTENSION_TEMPLATE = ObjectIdentifier("1.2.840.113549.1.9.16.2.62")
_EC_PUBLIC_KEY = ObjectIdentifier("1.2.840.10045.2.1")
_RSA = ObjectIdentifier("1.2.840.113549.1.1.1")
_V1 = tlv(INTEGER, b"\x00")
_RSA_PREFIX = "rsa-"
_CURVES = {
    "ec-p256": "1.2.840.10045.3.1.7",
    "ec-p384": "1.3.132.0.34",
    "ec-p521": "1.3.132.0.35",
    "ec-brainpool-p256r1": "1.3.36.3.3.2.8.1.1.7",
    "ec-brainpool-p384r1": "1.3.36.3.3.2.8.1.1.11",
    "ec-brainpool-p512r1": "1.3.36.3.3.2.8.1.1.13",
    "ec-secp256k1": "1.3.132.0.10",
}
#: The signature algorithms by hash, for EC keys (RFC 5758 §3.2) and for RSA (RFC 4055 §5).
_ECDSA = {CsrHash.SHA384: "1.2.840.10045.4.3.3", CsrHash.SHA512: "1.2.840.10045.4.3.4"}
_RSA_WITH = {CsrHash.SHA384: "1.2.840.113549.1.1.12", CsrHash.SHA512: "1.2.840.113549.1.1.13"}


def attributes(profile: Profile, *, channel_binding: bool) -> bytes:
    """Give the DER CsrAttrs: key type, what else is demanded, and the template.

    That is a longer hash than SHA-256 (RFC 7030 §4.5.2) and the challengePassword.
    """
    kinds = [kind.value for kind in profile.key_types if kind is not KeyType.RSA_OTHER]
    parts = [_key_attribute(kind) for kind in kinds[:1]]
    parts.extend(_signature(kind, profile.csr_hash_min) for kind in kinds[:1])
    if channel_binding:
        parts.append(_oid(AttributeOID.CHALLENGE_PASSWORD))
    parts.append(_attribute(_INFO_TEMPLATE, _template(profile, kinds[0] if kinds else "")))
    return tlv(SEQUENCE, b"".join(parts))


def _template(profile: Profile, kind: str) -> bytes:
    """Write CertificationRequestInfoTemplate: the names that the profile knows, without values."""
    rdns = b"".join(
        tlv(_SET, tlv(SEQUENCE, _oid(ObjectIdentifier(oid)))) for oid in profile.subject_rules
    )
    algorithm = _algorithm(kind)
    extensions = [ExtensionOID.KEY_USAGE]
    if profile.alt_names:
        extensions.append(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    asked = b"".join(tlv(SEQUENCE, _oid(extension)) for extension in extensions)
    return tlv(
        SEQUENCE,
        _V1
        + (tlv(SEQUENCE, rdns) if rdns else b"")
        + (tlv(_CONTEXT_0, algorithm) if algorithm else b"")
        + tlv(_CONTEXT_1, _attribute(_EXTENSION_TEMPLATE, tlv(SEQUENCE, asked))),
    )


def _key_attribute(kind: str) -> bytes:
    """Name the first key type as RFC 7030 §4.5.2 does: ecPublicKey with its curve, RSA's bits."""
    if kind in _CURVES:
        return _attribute(_EC_PUBLIC_KEY, _oid(ObjectIdentifier(_CURVES[kind])))
    if kind.startswith(_RSA_PREFIX):
        bits = int(kind.removeprefix(_RSA_PREFIX))
        return _attribute(_RSA, asn1.encode_der(bits))
    return b""


def _signature(kind: str, least: CsrHash) -> bytes:
    by_hash = _ECDSA if kind in _CURVES else _RSA_WITH if kind.startswith(_RSA_PREFIX) else {}
    return _oid(ObjectIdentifier(by_hash[least])) if least in by_hash else b""


def _algorithm(kind: str) -> bytes:
    if kind in _CURVES:
        parameters = _oid(ObjectIdentifier(_CURVES[kind]))
        return tlv(SEQUENCE, _oid(_EC_PUBLIC_KEY) + parameters)
    if kind.startswith(_RSA_PREFIX):
        return tlv(SEQUENCE, _oid(_RSA) + bytes.fromhex("0500"))
    return b""


def _attribute(oid: ObjectIdentifier, value: bytes) -> bytes:
    return tlv(SEQUENCE, _oid(oid) + tlv(_SET, value))


def _oid(oid: ObjectIdentifier) -> bytes:
    return asn1.encode_der(oid)
