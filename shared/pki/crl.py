"""Certificate revocation lists (RFC 5280 §5): complete, partitions, deltas; in two steps."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509

from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import oids, signed
from shared.pki.certificates import Issuer, encode_extension, encode_time
from shared.pki.partitions import Partition
from shared.pki.signed import tlv

#: What a delta says of a serial that is no longer listed (RFC 5280 §5.3.1); it stands nowhere else.
REMOVED = x509.ReasonFlags.remove_from_crl.name
#: Reasons by their RFC 5280 §5.3.1 names in snake case.
_REASONS = {reason.name: reason for reason in x509.ReasonFlags if reason.name != REMOVED}
REASONS = frozenset(_REASONS)
_VERSION_2 = bytes.fromhex("020101")
_EXTENSIONS_TAG = 0xA0
_DAY_S = 24 * 3600
_MINUTES = [b"%02d%02d" % divmod(minute, 60) for minute in range(24 * 60)]
_SECONDS = [b"%02dZ" % second for second in range(60)]
_LARGEST_SERIAL = 2**128 - 1
_UNSPECIFIED = x509.ReasonFlags.unspecified.name


#: What a ``CrlEntry`` is. Long lists are of plain tuples, which take half of the time to make.
Entry = tuple[int, int, str]


class CrlEntry(NamedTuple):
    """A serial that is revoked or on hold (reason ``certificate_hold``), since when in UTC µs.

    In a delta also one that is no longer listed (reason ``REMOVED``).
    """

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


def entry_bytes(reason: str) -> int:
    """Give how much an entry with this reason adds to a CRL; raises BadRequestError."""
    (encoded,) = _encoded([CrlEntry(_LARGEST_SERIAL, 0, reason)], _encoded_reason)
    return len(encoded)


def unsigned(  # noqa: PLR0917  # the order of a TBSCertList
    issuer: Issuer,
    number: int,
    this_update_us: int,
    next_update_us: int,
    entries: Iterable[Entry],
    chain_heads: bytes | None,
    *,
    base: int | None = None,
    partition: Partition | None = None,
) -> bytes:
    """Build the DER TBSCertList that the issuer is to sign; times are UTC µs.

    With ``base`` it is a delta to the complete CRL of that number (RFC 5280 §5.2.4), and its
    entries are what changed; without, a complete one, which names the address of deltas if the
    issuer makes any (§5.2.6). With ``partition`` it lists that share only, and says so (§5.2.5); it
    names no deltas: those are of all shares, and both must be of one scope (§5.2.4).
    ``chain_heads`` go into the private extension ``oids.CHAIN_HEADS``. The bytes are put together
    here, as those of certificates are: 100,000 entries through cryptography's builder take 1.5 s.
    Many entries still take a while: call it in a thread. Raises BadRequestError for an unknown
    reason.
    """
    extensions = issuer.encoded_key_identifier + encode_extension(x509.CRLNumber(number))
    # Critical: who does not know it must not take a part for the whole.
    if partition is not None:
        extensions += encode_extension(issuer.issuing_point(partition), critical=True)
    elif base is None:
        extensions += issuer.encoded_freshest
    else:
        extensions += encode_extension(x509.DeltaCRLIndicator(base), critical=True)
    if chain_heads is not None:
        value = signed.tlv(signed.OCTET_STRING, chain_heads)
        extensions += encode_extension(x509.UnrecognizedExtension(oids.CHAIN_HEADS, value))
    revoked = b"".join(_encoded(entries, _encoded_reason if base is None else _reason_in_delta))
    fields = (
        _VERSION_2,
        issuer.algorithm.identifier,
        issuer.encoded_name,
        encode_time(this_update_us),
        encode_time(next_update_us),
        tlv(signed.SEQUENCE, revoked) if revoked else b"",  # absent, not empty (RFC 5280 §5.1.2.6)
        tlv(_EXTENSIONS_TAG, tlv(signed.SEQUENCE, extensions)),
    )
    return tlv(signed.SEQUENCE, b"".join(fields))


def assemble(tbs: bytes, signature: bytes, issuer: Issuer) -> bytes:
    """Join TBSCertList and signature value; gives the DER CRL.

    Raises IntegrityError when the issuer's key did not make the signature over exactly these
    bytes, or when the result does not read back as a CRL with these bytes.
    """
    der = signed.assemble(tbs, signature, issuer.public_key, issuer.algorithm)
    # A whole value at the beginning is what is read as the TBSCertList, byte for byte. To have
    # cryptography write that again takes ten times as long as to read it: seconds for a million.
    if not signed.is_sequence(tbs):
        raise IntegrityError("The revocation list does not say what was to be signed.")
    try:
        x509.load_der_x509_crl(der)
    except ValueError as error:
        raise IntegrityError("What was signed is not a revocation list.") from error
    return der


def _encoded(entries: Iterable[Entry], encoded_reason: Callable[[str], bytes]) -> Iterator[bytes]:
    """Encode entries; what several have in common is encoded once."""
    days: dict[int, bytes] = {}
    for serial, revoked_at_us, reason in entries:
        day, second = divmod(revoked_at_us // US_PER_SECOND, _DAY_S)
        date = days.get(day)
        if date is None:  # tag, length and date of the Time
            date = days[day] = encode_time(day * _DAY_S * US_PER_SECOND)[: -len(b"hhmmssZ")]
        minute, second = divmod(second, 60)
        octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
        size, end = len(octets), encoded_reason(reason)
        # Both lengths are below 128: at most 22 + 17 + 14 bytes.
        yield b"0%c\x02%c%b%b%b%b%b" % (
            2 + size + len(date) + len(b"hhmmssZ") + len(end),
            size,
            octets,
            date,
            _MINUTES[minute],
            _SECONDS[second],
            end,
        )


@lru_cache
def _encoded_reason(reason: str) -> bytes:
    """Encode crlEntryExtensions with the reason; absent means unspecified (RFC 5280 §5.3.1)."""
    flag = reason_flag(reason)
    if reason == _UNSPECIFIED:
        return b""
    return tlv(signed.SEQUENCE, encode_extension(x509.CRLReason(flag)))


def _reason_in_delta(reason: str) -> bytes:
    return _ENCODED_REMOVED if reason == REMOVED else _encoded_reason(reason)


_ENCODED_REMOVED = tlv(
    signed.SEQUENCE, encode_extension(x509.CRLReason(x509.ReasonFlags.remove_from_crl))
)
