"""Certificate revocation lists (RFC 5280 §5), full ones, in the two steps of certificates."""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from shared.kernel.clock import datetime_of
from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import algorithms, oids, signed
from shared.pki.certificates import Issuer

#: Reasons by their RFC 5280 §5.3.1 names in snake case. ``remove_from_crl`` is for deltas only.
_REASONS = {reason.name: reason for reason in x509.ReasonFlags if reason.name != "remove_from_crl"}
REASONS = frozenset(_REASONS)
_TWIN = algorithms.ECDSA_SHA256
_VERSION_2 = bytes.fromhex("020101")
_UNSPECIFIED = x509.ReasonFlags.unspecified.name


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """A serial that is revoked or on hold (reason ``certificate_hold``), since when in UTC µs."""

    serial: int
    revoked_at_us: int
    reason: str


def reason_flag(reason: str) -> x509.ReasonFlags:
    """Find a reason by name; raises BadRequestError naming the known ones."""
    flag = _REASONS.get(reason)
    if flag is None:
        raise BadRequestError(
            f"The reason {reason!r} is not known; use one of {', '.join(sorted(REASONS))}."
        )
    return flag


def unsigned(  # noqa: PLR0917  # the order of a TBSCertList
    issuer: Issuer,
    number: int,
    this_update_us: int,
    next_update_us: int,
    entries: Iterable[CrlEntry],
    chain_heads: bytes | None,
) -> bytes:
    """Build the DER TBSCertList that the issuer is to sign; times are UTC µs.

    ``chain_heads`` go into the private extension ``oids.CHAIN_HEADS``. 100,000 entries take about
    1.5 s: call it in a thread. Raises BadRequestError for an unknown reason.
    """
    extensions: list[x509.Extension[x509.ExtensionType]] = [
        _extension(issuer.authority_key_identifier),
        _extension(x509.CRLNumber(number)),
    ]
    if chain_heads is not None:
        value = signed.tlv(signed.OCTET_STRING, chain_heads)
        extensions.append(_extension(x509.UnrecognizedExtension(oids.CHAIN_HEADS, value)))
    builder = (
        x509.CertificateRevocationListBuilder(
            extensions=extensions, revoked_certificates=[_revoked(entry) for entry in entries]
        )
        .issuer_name(issuer.name)
        .last_update(datetime_of(this_update_us))
        .next_update(datetime_of(next_update_us))
    )
    twin = builder.sign(signed.THROWAWAY_KEY, SHA256()).tbs_certlist_bytes
    return signed.with_algorithm(twin, _VERSION_2, _TWIN, issuer.algorithm)


def assemble(tbs: bytes, signature: bytes, issuer: Issuer) -> bytes:
    """Join TBSCertList and signature value; gives the DER CRL.

    Raises IntegrityError when the issuer's key did not make the signature over exactly these
    bytes, or when the result does not read back as a CRL with these bytes.
    """
    der = signed.assemble(tbs, signature, issuer.public_key, issuer.algorithm)
    try:
        same = x509.load_der_x509_crl(der).tbs_certlist_bytes == tbs
    except ValueError as error:
        raise IntegrityError("What was signed is not a revocation list.") from error
    if not same:
        raise IntegrityError("The revocation list does not say what was to be signed.")
    return der


def _revoked(entry: CrlEntry) -> x509.RevokedCertificate:
    extensions: list[x509.Extension[x509.ExtensionType]] = []
    if entry.reason != _UNSPECIFIED:  # absent means unspecified (RFC 5280 §5.3.1)
        extensions.append(_extension(x509.CRLReason(reason_flag(entry.reason))))
    moment = datetime_of(entry.revoked_at_us)
    return x509.RevokedCertificateBuilder(entry.serial, moment, extensions).build()


def _extension(value: x509.ExtensionType) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical=False, value=value)
