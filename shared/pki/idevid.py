"""Device identities of other manufacturers (IEEE 802.1AR): whether to believe one, and its serial.

TLS has checked that the peer holds the key. Which CA may speak for which devices is checked here
again, because one TLS listener trusts the CAs of all manufacturers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from shared.kernel.clock import datetime_of
from shared.kernel.errors import UntrustedError

_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The CAs that are believed (DER, each one an anchor) and CRLs of theirs (DER)."""

    authorities: tuple[bytes, ...]
    crls: tuple[bytes, ...] = ()


def serial_number(der: bytes) -> str | None:
    """Give the one serialNumber of the subject (IEEE 802.1AR §8.6), or None."""
    subject = x509.load_der_x509_certificate(der).subject
    found = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return found[0].value if len(found) == 1 and isinstance(found[0].value, str) else None


def verify(der: bytes, store: TrustStore, now_us: int) -> None:
    """Check that a listed CA vouches for this end entity now (UTC µs).

    Raises UntrustedError. A CRL that is over is still believed in what it revokes: a line may be
    offline for longer than its manufacturer's CRL holds.
    """
    try:
        _verify(x509.load_der_x509_certificate(der), _opened(store), datetime_of(now_us))
    except ValueError as error:
        raise UntrustedError("The client certificate is malformed.") from error


class _Opened:
    """A trust store, parsed once."""

    def __init__(self, store: TrustStore) -> None:
        self.authorities = [x509.load_der_x509_certificate(der) for der in store.authorities]
        self.crls = [x509.load_der_x509_crl(der) for der in store.crls]

    def issuers(self, certificate: x509.Certificate) -> Sequence[x509.Certificate]:
        return [one for one in self.authorities if _issued(one, certificate)]


@lru_cache(maxsize=32)
def _opened(store: TrustStore) -> _Opened:
    return _Opened(store)


def _verify(leaf: x509.Certificate, store: _Opened, now: datetime) -> None:
    _require_life(leaf, now)
    if _is_authority(leaf):
        raise UntrustedError("The client certificate is that of a CA, not of a device.")
    below = leaf
    for _ in range(_DEPTH_MAX):
        issuers = [one for one in store.issuers(below) if one != below]
        if not issuers:
            if below is leaf:
                raise UntrustedError("The client certificate is of no listed manufacturer.")
            return
        issuer = issuers[0]
        _require_life(issuer, now)
        _require_not_revoked(below, issuer, store.crls)
        below = issuer
    raise UntrustedError("The chain of the client certificate is too long.")


def _require_life(certificate: x509.Certificate, now: datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise UntrustedError("The client certificate or its CA is not valid at this time.")


def _require_not_revoked(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    crls: Iterable[x509.CertificateRevocationList],
) -> None:
    key: Any = issuer.public_key()  # it signed, so it is of a kind that can
    for crl in crls:
        if crl.issuer != issuer.subject or not crl.is_signature_valid(key):
            continue
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise UntrustedError("The client certificate or its CA is revoked.")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return basic.value.ca


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer or not _is_authority(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True
