"""Chains: whether a certificate leads to a root that is trusted (RFC 5280 §6).

cryptography's verifier knows only the algorithms of the web (no Brainpool, EdDSA or ML-DSA CAs), so
the path is built here, from checks that the library makes on one pair of certificates.
"""

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from shared.kernel.clock import datetime_of
from shared.kernel.errors import UntrustedError

_INTERMEDIATES_MAX = 4
_HASHES = (SHA256, SHA384, SHA512, type(None))  # None: the algorithm hashes by itself, as EdDSA
#: What may be critical in a CA's certificate; of all else nobody knows what it forbids.
_PROCESSED = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.CertificatePolicies)


def verify(
    leaf: bytes, intermediates: Iterable[bytes], roots: Iterable[bytes], now_us: int
) -> list[x509.Certificate]:
    """Build and verify a path at ``now_us`` (UTC µs); all certificates come in DER.

    Gives the path from leaf to root. Raises UntrustedError when there is none. Revocation is not
    looked at, nor what the leaf may be used for. A CA with a critical extension that is not
    processed here, name constraints included, leads nowhere.
    """
    try:
        anchors = [x509.load_der_x509_certificate(root) for root in roots]
        known = [x509.load_der_x509_certificate(der) for der in intermediates]
        start = x509.load_der_x509_certificate(leaf)
        moment = datetime_of(now_us)
        path = _climb([start], known, anchors, moment) if _in_force(start, moment) else None
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise UntrustedError("A certificate of the chain is malformed.") from error
    if path is None:
        raise UntrustedError("The certificate does not lead to a trusted root.")
    return path


def _climb(
    path: list[x509.Certificate],
    known: list[x509.Certificate],
    anchors: list[x509.Certificate],
    moment: datetime,
) -> list[x509.Certificate] | None:
    """Find a way from the last certificate of the path to an anchor."""
    for issuer in (*anchors, *known):
        if issuer in path or not _issued(issuer, path, moment):
            continue
        longer = [*path, issuer]
        if issuer in anchors:
            return longer
        if len(longer) <= _INTERMEDIATES_MAX + 1 and (
            found := _climb(longer, known, anchors, moment)
        ):
            return found
    return None


def _issued(issuer: x509.Certificate, path: list[x509.Certificate], moment: datetime) -> bool:
    """Tell whether this CA made the last certificate of the path and may have."""
    return (
        path[-1].issuer == issuer.subject
        and _in_force(issuer, moment)
        # Self-issued ones, of a roll-over, do not count (RFC 5280 §4.2.1.9).
        and _may_certify(issuer, sum(one.subject != one.issuer for one in path[1:]))
        and _signed(path[-1], issuer)
    )


def _in_force(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _may_certify(issuer: x509.Certificate, cas_below: int) -> bool:
    constraints = usage = None
    for extension in issuer.extensions:
        value = extension.value
        if extension.critical and not isinstance(value, _PROCESSED):
            return False
        if isinstance(value, x509.BasicConstraints):
            constraints = value
        elif isinstance(value, x509.KeyUsage):
            usage = value
    if constraints is None or not constraints.ca or (usage and not usage.key_cert_sign):
        return False
    return constraints.path_length is None or cas_below <= constraints.path_length


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True
