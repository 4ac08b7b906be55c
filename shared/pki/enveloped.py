"""EnvelopedData (RFC 5652 §6) for the holder of one certificate, by RSA or by ECDH (RFC 5753).

Written here, because the library's builder envelops plain data for RSA keys alone. What is used is
always something that the client named in its SMIMECapabilities (RFC 7030 §4.4.2).
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.x509 import ObjectIdentifier

from shared.kernel.errors import BadRequestError
from shared.kernel.ids import Random
from shared.pki import cms, keys
from shared.pki.signed import INTEGER, SEQUENCE, tlv

_CONTEXT_0_PLAIN, _CONTEXT_1, _CONTEXT_2 = 0x80, 0xA1, 0xA2
_ENVELOPED_DATA = asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.3"))
_BLOCK_BITS, _IV_BYTES = 128, 16


class Capability(NamedTuple):
    """One entry of SMIMECapabilities (RFC 8551 §2.5.2): a dotted OID, and its parameters in DER."""

    oid: str
    parameters: bytes = b""


#: AES by the bits of its key: as content cipher in CBC mode and as key wrap (RFC 3565). GCM would
#: be AuthEnvelopedData (RFC 5083), which RFC 7030 does not know.
_CBC = {bits: f"2.16.840.1.101.3.4.1.{arc}" for bits, arc in ((128, 2), (192, 22), (256, 42))}
#: What clients may name instead: AES-GCM, triple DES, RC2.
_OTHER_CIPHERS = {
    *(f"2.16.840.1.101.3.4.1.{arc}" for arc in (6, 26, 46)),
    "1.2.840.113549.3.7",
    "1.2.840.113549.3.2",
}
_WRAP = {bits: f"2.16.840.1.101.3.4.1.{arc}" for bits, arc in ((128, 5), (192, 25), (256, 45))}
#: dhSinglePass-stdDH with its key derivation (RFC 5753 §7.1.4); SHA-1 is not spoken here.
_SCHEMES: dict[str, hashes.HashAlgorithm] = {
    "1.3.132.1.11.1": hashes.SHA256(),
    "1.3.132.1.11.2": hashes.SHA384(),
    "1.3.132.1.11.3": hashes.SHA512(),
}
_RSA_PKCS1, _RSA_OAEP = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7"
_NULL = bytes.fromhex("0500")
_SHA256 = bytes.fromhex("300d06096086480165030402010500")
#: RSAES-OAEP-params with SHA-256 for both (RFC 4055 §4.1).
_OAEP_SHA256 = tlv(
    SEQUENCE,
    tlv(cms.CONTEXT_0, _SHA256)
    + tlv(_CONTEXT_1, tlv(SEQUENCE, bytes.fromhex("06092a864886f70d010108") + _SHA256)),
)


def _algorithm(oid: str, parameters: bytes = b"") -> bytes:
    return tlv(SEQUENCE, asn1.encode_der(ObjectIdentifier(oid)) + parameters)


@dataclass(frozen=True, slots=True)
class Envelope:
    """How something is enveloped for one certificate's key: all that can be refused is checked.

    ``locked`` gives the RecipientInfo that holds the key of the content, ``bits`` is its length.
    """

    bits: int
    version: int
    locked: Callable[[bytes], bytes]

    @classmethod
    def to(cls, der: bytes, identifier: bytes, capabilities: Iterable[Capability]) -> Self:
        """Choose how to envelop to this certificate, whose key the client named ``identifier``.

        Raises BadRequestError: it is another key, it encrypts nothing, or nothing offered fits.
        """
        certificate = x509.load_der_x509_certificate(der)
        key = keys.of(certificate)
        kind = keys.key_type(keys.spki(key)) if key is not None else None
        if kind is None or not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise BadRequestError(
                "The key of the client certificate can neither transport nor agree on a key.",
                remedy="Present a certificate with an RSA or an elliptic curve key.",
            )
        offered = frozenset(capabilities)
        strength = keys.FORMS[kind].strength
        skid = _named(certificate, keys.spki(key), identifier)
        if isinstance(key, rsa.RSAPublicKey):
            _require_usage(certificate, "key_encipherment")
            locked = _transport(key, certificate, skid, offered)
        else:
            _require_usage(certificate, "key_agreement")
            locked = _agreement(key, certificate, skid, offered, strength)
        # RFC 5652 §6.1: key transport to an issuer and serial number is the one old form.
        version = 0 if isinstance(key, rsa.RSAPublicKey) and skid is None else 2
        named = {one.oid for one in offered}
        ciphers = {bits for bits, oid in _CBC.items() if oid in named}
        if not ciphers and named & _OTHER_CIPHERS:
            raise _nothing_fits("AES in CBC mode, or no content cipher at all")
        return cls(_strong_enough(ciphers or set(_CBC), strength), version, locked)

    def around(self, content_type: bytes, content: bytes, random: Random) -> bytes:
        """Envelop a content of this type (OID in DER); gives a ContentInfo."""
        content_key, vector = random(self.bits // 8), random(_IV_BYTES)
        padder = padding.PKCS7(_BLOCK_BITS).padder()
        encryptor = Cipher(algorithms.AES(content_key), modes.CBC(vector)).encryptor()
        padded = padder.update(content) + padder.finalize()
        encrypted = encryptor.update(padded) + encryptor.finalize()
        enclosed = tlv(
            SEQUENCE,
            content_type
            + _algorithm(_CBC[self.bits], asn1.encode_der(vector))
            + tlv(_CONTEXT_0_PLAIN, encrypted),
        )
        document = asn1.encode_der(self.version) + tlv(cms.SET, self.locked(content_key)) + enclosed
        return tlv(SEQUENCE, _ENVELOPED_DATA + tlv(cms.CONTEXT_0, tlv(SEQUENCE, document)))


def _named(certificate: x509.Certificate, spki: bytes, identifier: bytes) -> bytes | None:
    """Give the subject key identifier that the client named.

    None: the certificate has none, and the client named the key as RFC 5280 §4.2.1.2 (1) or
    RFC 7093 §2 (1) would. A client that named another key must get an error (RFC 7030 §4.4.1.2).
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        sha1 = hashlib.sha1(keys.key_bits(spki), usedforsecurity=False).digest()
        if identifier in {sha1, keys.key_identifier(spki)}:
            return None
    else:
        if identifier == extension.value.digest:
            return identifier
    raise BadRequestError(
        "AsymmetricDecryptKeyIdentifier does not name the key of the client certificate.",
        remedy="Put the certificate's subject key identifier there.",
    )


def _transport(
    key: rsa.RSAPublicKey,
    certificate: x509.Certificate,
    skid: bytes | None,
    offered: frozenset[Capability],
) -> Callable[[bytes], bytes]:
    """Use KeyTransRecipientInfo (RFC 5652 §6.2.1), with OAEP (RFC 3560) where it is offered."""
    if Capability(_RSA_OAEP, _OAEP_SHA256) in offered:  # without parameters it would be SHA-1
        way: rsa_padding.AsymmetricPadding = rsa_padding.OAEP(
            rsa_padding.MGF1(hashes.SHA256()), hashes.SHA256(), None
        )
        algorithm = _algorithm(_RSA_OAEP, _OAEP_SHA256)
    elif any(one.oid == _RSA_PKCS1 for one in offered):
        way, algorithm = rsa_padding.PKCS1v15(), _algorithm(_RSA_PKCS1, _NULL)
    else:
        raise _nothing_fits("rsaEncryption, or id-RSAES-OAEP with SHA-256")
    if skid is None:
        head = asn1.encode_der(0) + cms.issuer_and_serial(certificate) + algorithm
    else:
        head = asn1.encode_der(2) + tlv(_CONTEXT_0_PLAIN, skid) + algorithm
    return lambda secret: tlv(SEQUENCE, head + asn1.encode_der(key.encrypt(secret, way)))


def _agreement(
    key: ec.EllipticCurvePublicKey,
    certificate: x509.Certificate,
    skid: bytes | None,
    offered: frozenset[Capability],
    strength: int,
) -> Callable[[bytes], bytes]:
    """Use KeyAgreeRecipientInfo with a key for this once (RFC 5753 §3.1.1).

    A client offers a scheme with its key wrap (RFC 5753 §7.2), or the key wrap alone, as RFC 7030
    §4.4.2 has it: then the scheme is the first one.
    """
    ways = {
        bits: scheme
        for scheme in reversed(_SCHEMES)
        for bits, wrap in _WRAP.items()
        if offered & {Capability(wrap), Capability(scheme, _algorithm(wrap))}
    }
    if not ways:
        raise _nothing_fits("a key wrap of AES, or dhSinglePass-stdDH with SHA-256 and one")
    bits = _strong_enough(set(ways), strength)
    scheme, wrap = ways[bits], _algorithm(_WRAP[bits])
    recipient = (
        cms.issuer_and_serial(certificate)
        if skid is None
        else tlv(cms.CONTEXT_0, asn1.encode_der(skid))
    )

    def locked(secret: bytes) -> bytes:
        mine = ec.generate_private_key(key.curve)
        shared_info = tlv(
            SEQUENCE, wrap + tlv(_CONTEXT_2, asn1.encode_der(bits.to_bytes(4, "big")))
        )
        derive = X963KDF(_SCHEMES[scheme], bits // 8, shared_info)
        wrapped = aes_key_wrap(derive.derive(mine.exchange(ec.ECDH(), key)), secret)
        # OriginatorPublicKey has the form of a SubjectPublicKeyInfo, but another tag.
        public = keys.spki(mine.public_key())
        originator = bytes((_CONTEXT_1,)) + public[1:]
        return tlv(
            _CONTEXT_1,
            tlv(INTEGER, b"\x03")
            + tlv(cms.CONTEXT_0, originator)
            + _algorithm(scheme, wrap)
            + tlv(SEQUENCE, tlv(SEQUENCE, recipient + asn1.encode_der(wrapped))),
        )

    return locked


def _strong_enough(offered: set[int], strength: int) -> int:
    """Choose the AES key that is as strong as the client's key (RFC 7030 §4.4.2), or next to it."""
    return min((bits for bits in offered if bits >= strength), default=max(offered))


def _require_usage(
    certificate: x509.Certificate, usage: Literal["key_encipherment", "key_agreement"]
) -> None:
    """Demand that the certificate allows this, or restricts nothing (RFC 7030 §4.4.1.2)."""
    try:
        allowed = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not getattr(allowed, usage):
        raise BadRequestError(
            f"The keyUsage of the client certificate lacks {usage.replace('_', ' ')}.",
            remedy="Present a certificate whose profile allows it.",
        )


def _nothing_fits(what: str) -> BadRequestError:
    return BadRequestError(
        "The SMIMECapabilities of the request name no encryption that fits the client's key.",
        remedy=f"Name {what} there.",
    )
