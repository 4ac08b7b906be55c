"""A key that is encrypted beyond TLS, as the client's request wants it (RFC 7030 §4.4.1, §4.4.2).

The key to encrypt to is that of the certificate which the client presents on this connection: how
else it could be agreed upon is outside of EST. Nobody holds symmetric keys for it here.
"""

from dataclasses import dataclass
from typing import Any

from asn1crypto import cms as asn1
from cryptography import x509
from cryptography.hazmat.asn1 import encode_der
from cryptography.x509 import ObjectIdentifier

from shared.kernel.errors import BadRequestError
from shared.kernel.ids import Random
from shared.pki import cms
from shared.pki.cms import Signer
from shared.pki.enveloped import Capability, Envelope
from shared.pki.signed import SEQUENCE, tlv

_DECRYPT_KEY = ObjectIdentifier("1.2.840.113549.1.9.16.2.37")
_ASYMMETRIC_DECRYPT_KEY = ObjectIdentifier("1.2.840.113549.1.9.16.2.54")
_SMIME_CAPABILITIES = ObjectIdentifier("1.2.840.113549.1.9.15")
#: id-ct-KP-aKeyPackage (RFC 5958 §2).
_KEY_PACKAGE = encode_der(ObjectIdentifier("2.16.840.1.101.2.1.2.78.5"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the request says about it: which key decrypts, and what the client can do."""

    identifier: bytes
    capabilities: tuple[Capability, ...]

    def envelope(self, certificate: bytes) -> Envelope:
        """Choose how to encrypt to this certificate (DER); raises BadRequestError."""
        return Envelope.to(certificate, self.identifier, self.capabilities)


def wanted(csr: bytes) -> Wanted | None:
    """Read the attributes of a request in DER; None: TLS is enough for the client.

    Raises BadRequestError: who asks for what cannot be done must not get his key in clear.
    """
    values = {one.oid: one.value for one in x509.load_der_x509_csr(csr).attributes}
    if _DECRYPT_KEY in values:
        raise BadRequestError(
            "No symmetric key of this DecryptKeyIdentifier is known here.",
            remedy="Present a certificate over mutual TLS and name its key by "
            "AsymmetricDecryptKeyIdentifier, or make the key in the device and use simpleenroll.",
        )
    identifier = values.get(_ASYMMETRIC_DECRYPT_KEY)
    if identifier is None:
        return None
    if _SMIME_CAPABILITIES not in values:
        raise BadRequestError(
            "The request asks for an encrypted key without SMIMECapabilities.",
            remedy="Name there the key encipherment that the client can do (RFC 7030 §4.4.1).",
        )
    return Wanted(identifier, _capabilities(values[_SMIME_CAPABILITIES]))


def encrypted(private_key: bytes, envelope: Envelope, signer: Signer, random: Random) -> bytes:
    """Sign a private key (PKCS#8 DER) as the one who made it, then envelop it (RFC 7030 §4.4.2)."""
    package = tlv(SEQUENCE, private_key)  # AsymmetricKeyPackage: a sequence of one key
    return envelope.around(cms.SIGNED_DATA, cms.signed(_KEY_PACKAGE, package, signer), random)


def _capabilities(value: bytes) -> tuple[Capability, ...]:
    load: Any = asn1.SMIMECapabilites.load  # pyright: ignore[reportUnknownVariableType]  # untyped
    try:
        entries: list[Any] = list(load(tlv(SEQUENCE, value), strict=True))
        return tuple(
            Capability(one["capability_id"].dotted, one["parameters"].dump()) for one in entries
        )
    except (TypeError, ValueError, KeyError) as error:
        raise BadRequestError("The attribute SMIMECapabilities is malformed.") from error
