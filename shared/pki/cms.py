"""Cryptographic Message Syntax (RFC 5652), as far as enrollment needs it."""

from collections.abc import Sequence

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from shared.pki.signed import INTEGER, SEQUENCE, tlv

_SET = 0x31
_CONTEXT_0 = 0xA0
_DATA = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.1"))
_SIGNED_DATA = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.2"))
_VERSION_1 = tlv(INTEGER, b"\x01")
_EMPTY_SET = tlv(_SET, b"")


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """Wrap DER certificates as SignedData without signers (RFC 5652 §5.1, RFC 8551 §3.8).

    They are a SET OF: DER has them in ascending order (X.690 §11.6), whatever they certify.
    """
    content = tlv(
        SEQUENCE,
        _VERSION_1
        + _EMPTY_SET
        + tlv(SEQUENCE, _DATA)
        + tlv(_CONTEXT_0, b"".join(sorted(certificates)))
        + _EMPTY_SET,
    )
    return tlv(SEQUENCE, _SIGNED_DATA + tlv(_CONTEXT_0, content))
