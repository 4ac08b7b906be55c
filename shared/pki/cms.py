"""Cryptographic Message Syntax (RFC 5652), as far as enrollment needs it: SignedData."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ObjectIdentifier

from shared.pki.algorithms import ECDSA_SHA256
from shared.pki.signed import INTEGER, SEQUENCE, tlv

SET, CONTEXT_0 = 0x31, 0xA0
SIGNED_DATA = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.2"))
_DATA = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.1"))
_CONTENT_TYPE = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.9.3"))
_MESSAGE_DIGEST = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.9.4"))
#: SHA-256 as CMS names it: without parameters (RFC 5754 §2).
_SHA256 = tlv(SEQUENCE, asn1.encode_der(ObjectIdentifier("2.16.840.1.101.3.4.2.1")))
_VERSION_1, _VERSION_3 = tlv(INTEGER, b"\x01"), tlv(INTEGER, b"\x03")


class Signer(NamedTuple):
    """A P-256 key, and certificates (DER) from its own upwards."""

    private_key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """Wrap DER certificates as SignedData without signers (RFC 5652 §5.1, RFC 8551 §3.8)."""
    content = _signed_data(_VERSION_1, b"", tlv(SEQUENCE, _DATA), certificates, b"")
    return tlv(SEQUENCE, SIGNED_DATA + tlv(CONTEXT_0, content))


def signed(content_type: bytes, content: bytes, signer: Signer) -> bytes:
    """Sign a content of this type (OID in DER); gives SignedData that is no ContentInfo yet.

    The attributes are demanded for every type but id-data (RFC 5652 §5.3).
    """
    digest = hashlib.sha256(content).digest()
    attributes = b"".join(
        sorted(
            tlv(SEQUENCE, name + tlv(SET, value))
            for name, value in (
                (_CONTENT_TYPE, content_type),
                (_MESSAGE_DIGEST, asn1.encode_der(digest)),
            )
        )
    )
    # What is signed has the tag of a SET, what is sent that of the field (RFC 5652 §5.4).
    signature = ECDSA_SHA256.sign(signer.private_key, tlv(SET, attributes))
    certificate = x509.load_der_x509_certificate(signer.chain[0])
    signer_info = tlv(
        SEQUENCE,
        _VERSION_1
        + issuer_and_serial(certificate)
        + _SHA256
        + tlv(CONTEXT_0, attributes)
        + ECDSA_SHA256.identifier
        + asn1.encode_der(signature),
    )
    enclosed = tlv(SEQUENCE, content_type + tlv(CONTEXT_0, asn1.encode_der(content)))
    return _signed_data(_VERSION_3, _SHA256, enclosed, signer.chain, signer_info)


def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    """Name a certificate as CMS does (RFC 5652 §10.2.4)."""
    serial = asn1.encode_der(certificate.serial_number)
    return tlv(SEQUENCE, certificate.issuer.public_bytes() + serial)


def _signed_data(
    version: bytes, digests: bytes, content: bytes, certificates: Sequence[bytes], signers: bytes
) -> bytes:
    """Certificates are a SET OF: DER has them in ascending order (X.690 §11.6)."""
    return tlv(
        SEQUENCE,
        version
        + tlv(SET, digests)
        + content
        + tlv(CONTEXT_0, b"".join(sorted(certificates)))
        + tlv(SET, signers),
    )
