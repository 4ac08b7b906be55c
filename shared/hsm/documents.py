"""The one rule of what a CA key may sign; used by the daemon and by keys held in process.

A key signs documents, not digests (design.md §4): whoever holds the socket but not the token can
make end-entity certificates and CRLs of this CA at most, and never a further CA.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.issuance.ports import Purpose
from shared.kernel.clock import US_PER_SECOND, utc_us_of
from shared.kernel.errors import ForbiddenError
from shared.pki import algorithms, keys
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.signed import SEQUENCE, tlv

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

OWN_RESPONDER_VALIDITY_MAX_US = 7 * 24 * 3600 * US_PER_SECOND

#: What a proof of possession is signed over begins so. No DER begins with 0xFF (the tag would need
#: the long form), so that a proof can never be read as a certificate, a CRL or a request.
PROOF_PREFIX = b"\xffTMA Edge proof of possession 1\x00"

_NO_SIGNATURE = bytes.fromhex("030100")  # an empty BIT STRING
_CERTIFICATE_V3 = bytes.fromhex("a003020102")
_CRL_V2 = bytes.fromhex("020101")
_REQUEST_V1 = bytes.fromhex("020100")
_NO_ATTRIBUTES = bytes.fromhex("a000")
_INTEGER = b"\x02"
_SHORT_LENGTH_MAX = 0x7F
_DOCUMENT_BYTES_MIN = 16

#: What the parser raises on input that is not what it says it is.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

#: A CA either certifies CAs or end entities (design.md §4, key table); status it signs always.
_OF_CA_OF_CAS = frozenset({Purpose.CA, Purpose.CRL, Purpose.OWN_RESPONDER, Purpose.BIRTH_CSR})
_OF_ISSUING_CA = frozenset(Purpose) - {Purpose.CA}


@dataclass(frozen=True, slots=True)
class Authority:
    """What one CA key may do.

    ``algorithms`` are those that it may sign with: each document names its own.
    ``subject`` is the CA's name in DER; ``path_length`` that of its certificate (RFC 5280
    §4.2.1.9, None: unlimited); ``responder`` the DER SubjectPublicKeyInfo of central's OCSP key
    for this CA, None while none is pinned.
    """

    algorithms: tuple[SignatureAlgorithm, ...]
    subject: bytes
    path_length: int | None
    purposes: frozenset[Purpose]
    responder: bytes | None = None

    @classmethod
    def of(
        cls,
        certificate: x509.Certificate,
        purposes: frozenset[Purpose] | None = None,
        responder: bytes | None = None,
    ) -> Self:
        """Derive it from the CA's certificate; without ``purposes`` its path length decides.

        Path length 0 issues to end entities, any other to CAs. Raises ForbiddenError when the
        certificate is no CA's.
        """
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (x509.ExtensionNotFound, ValueError):
            constraints = None
        if constraints is None or not constraints.value.ca:
            raise ForbiddenError("The certificate of the signing key is not that of a CA.")
        path_length = constraints.value.path_length
        if purposes is None:
            purposes = _OF_ISSUING_CA if path_length == 0 else _OF_CA_OF_CAS
        kind = keys.key_type(keys.spki(keys.of_ca(certificate)))
        assert kind is not None  # of_ca saw to it
        return cls(
            algorithms.fitting(kind),
            certificate.subject.public_bytes(),
            path_length,
            purposes,
            responder,
        )


def check(document: bytes, purpose: Purpose, authority: Authority) -> SignatureAlgorithm:
    """Let pass a DER TBS that this authority may sign for this purpose; ForbiddenError else.

    Gives the algorithm that the document says it is signed with.
    """
    if purpose not in authority.purposes:
        raise ForbiddenError(f"This key does not sign documents for the purpose {purpose.value}.")
    if purpose is Purpose.BIRTH_CSR:
        raise ForbiddenError("A certification request is made by the signer itself.")
    if purpose is Purpose.CRL:
        return _check_crl(document, authority)
    return _check_certificate(document, purpose, authority)


def certification_request_info(subject: x509.Name, spki: bytes) -> bytes:
    """Encode a CertificationRequestInfo without attributes (RFC 2986 §4.1)."""
    return tlv(SEQUENCE, _REQUEST_V1 + subject.public_bytes() + spki + _NO_ATTRIBUTES)


def _check_crl(document: bytes, authority: Authority) -> SignatureAlgorithm:
    start = _body_start(document)
    algorithm = _named_algorithm(document, start, _CRL_V2, authority)
    try:
        crl = x509.load_der_x509_crl(_unsigned(document, algorithm))
        _check_share(crl.extensions)
        _check_delta(crl.extensions)
    except _UNREADABLE as error:
        raise ForbiddenError("The document to sign is not a well-formed TBSCertList.") from error
    return algorithm


def _check_share(extensions: x509.Extensions) -> None:
    """Let no share of what is revoked pass that somebody could take for all (RFC 5280 §5.2.5)."""
    for extension in extensions:
        point = extension.value
        if not isinstance(point, x509.IssuingDistributionPoint):
            continue
        if point.indirect_crl:
            raise ForbiddenError("A CRL of this key lists its own certificates only.")
        if not extension.critical:
            raise ForbiddenError("What share of the certificates a CRL lists must be critical.")


def _check_delta(extensions: x509.Extensions) -> None:
    """Let no delta pass that somebody could take for a complete CRL (RFC 5280 §5.2.4, §5.2.6)."""
    for extension in extensions:
        if extension.oid != x509.DeltaCRLIndicator.oid:
            continue
        base, number = extension.value, _extension(extensions, x509.CRLNumber)
        assert isinstance(base, x509.DeltaCRLIndicator)
        if not extension.critical:
            raise ForbiddenError("The base number of a delta CRL must be critical.")
        if number is None or base.crl_number >= number.crl_number:
            raise ForbiddenError("A delta CRL must be younger than the CRL that it builds on.")
        if _extension(extensions, x509.FreshestCRL) is not None:
            raise ForbiddenError("A delta CRL does not point to delta CRLs.")


def _check_certificate(
    document: bytes, purpose: Purpose, authority: Authority
) -> SignatureAlgorithm:
    start = _body_start(document)
    if not document.startswith(_CERTIFICATE_V3, start):
        raise ForbiddenError("The document to sign is not a TBSCertificate of version 3.")
    issuer = _serial_end(document, start + len(_CERTIFICATE_V3))
    algorithm = _named_algorithm(document, issuer, b"", authority)
    try:
        certificate = x509.load_der_x509_certificate(_unsigned(document, algorithm))
        _check_content(certificate, certificate.extensions, purpose, authority)
    except _UNREADABLE as error:
        raise ForbiddenError("The document to sign is not a well-formed certificate.") from error
    return algorithm


def _check_content(
    certificate: x509.Certificate,
    extensions: x509.Extensions,
    purpose: Purpose,
    authority: Authority,
) -> None:
    if purpose is Purpose.CA:
        _check_ca(certificate, extensions, authority)
        return
    _check_end_entity(extensions)
    usages = _extension(extensions, x509.ExtendedKeyUsage)
    if purpose is Purpose.LEAF:
        if usages is not None and ExtendedKeyUsageOID.OCSP_SIGNING in usages:
            raise ForbiddenError("An end-entity certificate must not allow to sign OCSP answers.")
        return
    if usages is None or list(usages) != [ExtendedKeyUsageOID.OCSP_SIGNING]:
        raise ForbiddenError("A responder's certificate must allow to sign OCSP answers only.")
    if purpose is Purpose.OWN_RESPONDER:
        _check_own_responder(certificate)
    else:
        _check_central_responder(certificate, authority)


def _check_end_entity(extensions: x509.Extensions) -> None:
    """Require an explicit CA:FALSE: what is absent is read differently by different software."""
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is None or constraints.ca:
        raise ForbiddenError("This key does not make CAs: the certificate must say CA:FALSE.")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is not None and (usage.key_cert_sign or usage.crl_sign):
        raise ForbiddenError("An end-entity certificate must not allow to sign for a CA.")


def _check_ca(
    certificate: x509.Certificate, extensions: x509.Extensions, authority: Authority
) -> None:
    """Let a CA below be less deep only, but not count a self-issued one, which is a roll-over's.

    RFC 5280 §4.2.1.9 leaves self-issued certificates out of the path length.
    """
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise ForbiddenError("The certificate of a CA must say CA:TRUE.")
    limit, length = authority.path_length, constraints.path_length
    most = limit if limit is None or certificate.subject == certificate.issuer else limit - 1
    if most is not None and (length is None or length > most):
        raise ForbiddenError(f"The path length of a CA below this one must be less than {limit}.")


def _check_own_responder(certificate: x509.Certificate) -> None:
    begin = utc_us_of(certificate.not_valid_before_utc)
    if utc_us_of(certificate.not_valid_after_utc) - begin > OWN_RESPONDER_VALIDITY_MAX_US:
        raise ForbiddenError("The certificate of the own responder may last 7 days at most.")


def _check_central_responder(certificate: x509.Certificate, authority: Authority) -> None:
    if authority.responder is None:
        raise ForbiddenError("No key of central's responder is pinned for this CA.")
    if spki_of(certificate) != authority.responder:
        raise ForbiddenError("The certificate is not for the pinned key of central's responder.")
    if _extension(certificate.extensions, x509.OCSPNoCheck) is None:
        raise ForbiddenError("The certificate of central's responder must say nocheck.")


def spki_of(certificate: x509.Certificate) -> bytes | None:
    """Give a certificate's DER SubjectPublicKeyInfo; None when its type is not known here."""
    key = keys.of(certificate)
    return None if key is None else keys.spki(key)


def _named_algorithm(
    document: bytes, start: int, before: bytes, authority: Authority
) -> SignatureAlgorithm:
    """Compare signature algorithm and issuer byte for byte where the ASN.1 puts them."""
    for algorithm in authority.algorithms:
        if document.startswith(before + algorithm.identifier + authority.subject, start):
            return algorithm
    known = ", ".join(algorithm.name for algorithm in authority.algorithms)
    raise ForbiddenError(f"The document must name this CA as its issuer, with one of {known}.")


def _body_start(document: bytes) -> int:
    """Skip the tag and length of the outer SEQUENCE (X.690 §8.1.3)."""
    if not document.startswith(bytes((SEQUENCE,))) or len(document) < _DOCUMENT_BYTES_MIN:
        raise ForbiddenError("The document to sign is not DER.")
    return 2 if document[1] <= _SHORT_LENGTH_MAX else 2 + (document[1] & _SHORT_LENGTH_MAX)


def _serial_end(document: bytes, start: int) -> int:
    """Skip the serial number, which must be positive (RFC 5280 §4.1.2.2)."""
    tag, value = document[start : start + 1], start + 2
    end = value + int.from_bytes(document[start + 1 : value], "big")
    if tag != _INTEGER or int.from_bytes(document[value:end], "big", signed=True) <= 0:
        raise ForbiddenError("The serial number of the certificate must be positive.")
    return end


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    for extension in extensions:
        # By OID: each class is an ABC, whose instance checks cost more than the parsing.
        if extension.oid == kind.oid and isinstance(extension.value, kind):
            return extension.value
    return None


def _unsigned(document: bytes, algorithm: SignatureAlgorithm) -> bytes:
    """Give a TBS the form of a signed document, so that the strict parser reads it."""
    return tlv(SEQUENCE, document + algorithm.identifier + _NO_SIGNATURE)
