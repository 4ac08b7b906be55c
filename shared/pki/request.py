"""Certification requests (PKCS#10, RFC 2986). Parsing proves possession of the private key."""

from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from shared.kernel import limits
from shared.kernel.errors import BadRequestError, TooLargeError
from shared.pki import keys, names, signed
from shared.pki.plan import AltName, NameAttribute

_DER_MARK = bytes((signed.SEQUENCE,))
_HASHES = (SHA256, SHA384, SHA512, type(None))  # None: the algorithm hashes by itself, as EdDSA


@dataclass(frozen=True, slots=True)
class CertificationRequest:
    """What a requester wants certified; it exists only after the signature was verified.

    ``public_key`` is a DER SubjectPublicKeyInfo of an allowed type. Subject and alternative names
    are as asked for: policy decides on them. Of the requested extensions only the alternative
    names count, the profile says the rest. ``signature_hash`` names what it was signed with, as
    ``sha256``; None: the algorithm hashes by itself.
    """

    public_key: bytes
    subject: tuple[NameAttribute, ...]
    alt_names: tuple[AltName, ...]
    signature_hash: str | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one request in DER or PEM and verify its signature (the only maker).

        Raises TooLargeError, and BadRequestError that says what is wrong: encoding, key type,
        signature, attribute given twice, kind of alternative name.
        """
        if len(data) > limits.CSR_BYTES_MAX:
            raise TooLargeError(
                f"The certification request has {len(data)} bytes; "
                f"at most {limits.CSR_BYTES_MAX} are accepted."
            )
        try:
            return cls._read(_load(data))
        except BadRequestError:
            raise
        except Exception as error:  # the parser raises many types on hostile input
            raise BadRequestError("The certification request is malformed.") from error

    @classmethod
    def _read(cls, csr: x509.CertificateSigningRequest) -> Self:
        public_key = _proven_key(csr)
        attributes = [attribute.oid for attribute in csr.attributes]
        if len(set(attributes)) != len(attributes):
            raise BadRequestError("The certification request holds an attribute twice.")
        used = csr.signature_hash_algorithm
        subject = names.decode_name(csr.subject)
        return cls(public_key, subject, _alt_names(csr), used.name if used else None)


def _load(data: bytes) -> x509.CertificateSigningRequest:
    if data[:1] == _DER_MARK:
        return x509.load_der_x509_csr(data)
    return x509.load_pem_x509_csr(data)


def _proven_key(csr: x509.CertificateSigningRequest) -> bytes:
    """Give the public key in its one encoding, once the request verifies under it.

    The key's type is checked before it costs a verification.
    """
    spki = keys.spki_of(csr)
    kind = keys.key_type(spki) if spki else None
    if spki is None or kind is None:
        raise BadRequestError(
            "The certification request's public key is of a type that is not certified here.",
            remedy=f"Make a key of one of the types {', '.join(keys.FORMS)}.",
        )
    if not keys.FORMS[kind].prefix:
        keys.load_spki(spki)  # RSA: refuses weak keys; points were checked by the parser
    if not isinstance(_hash(csr), _HASHES):
        raise BadRequestError(
            "The certification request is not signed with SHA-256, SHA-384, SHA-512, EdDSA or "
            "ML-DSA."
        )
    if not csr.is_signature_valid:
        raise BadRequestError(
            "The certification request's signature does not verify under its own public key.",
            remedy="Sign the request with the private key that belongs to its public key.",
        )
    return spki


def _hash(csr: x509.CertificateSigningRequest) -> object:
    try:
        return csr.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ()


def _alt_names(csr: x509.CertificateSigningRequest) -> tuple[AltName, ...]:
    try:
        extension = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(map(names.decode_alt_name, extension.value))
