"""Certificate status on request: RFC 6960 in the profile of RFC 5019, with RFC 9654 nonces.

A request may ask for several certificates, but cryptography reads and answers only one, so the
messages are described here. A signature of the request is not looked at (RFC 6960 §4.1.2).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND, datetime_of
from shared.kernel.errors import BadRequestError
from shared.pki import algorithms, keys, oids, signed
from shared.pki.crl import reason_flag
from shared.pki.keys import PrivateKey
from shared.pki.signed import tlv

_NONCE_BYTES_MAX = 128
_HASHES = {oids.SHA1: hashlib.sha1, oids.SHA256: hashlib.sha256}


class Failure(IntEnum):
    """Why there is no answer (OCSPResponseStatus, RFC 6960 §4.2.1)."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


class State(StrEnum):
    """What is known of a certificate (RFC 6960 §2.2); one on hold counts as revoked."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    NEVER_ISSUED = "never_issued"  # answered as revoked, on hold since 1970 (RFC 6960 §2.2)


def never_issued_state(setting: str) -> State:
    """Read the setting ``never_issued``: unknown or revoked."""
    return State.NEVER_ISSUED if setting == "revoked" else State.UNKNOWN


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to one CertID; time (UTC µs) and reason belong to the state ``revoked``.

    ``not_after_us`` is the certificate's end where it is known; ``listed`` False means that the
    answer rests on the serial being in no book, so it may change with the next issue.
    """

    state: State
    revoked_at_us: int = 0
    reason: str = "unspecified"
    not_after_us: int | None = None
    listed: bool = True


class IssuerHash(NamedTuple):
    """How a CertID names a CA: hash algorithm, hash of its name, hash of its key."""

    algorithm: x509.ObjectIdentifier
    name_hash: bytes
    key_hash: bytes


@asn1.sequence
class _Algorithm:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class CertId:
    """CertID of RFC 6960 §4.1.1; it is echoed exactly."""

    hash_algorithm: _Algorithm
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int

    @property
    def issuer(self) -> IssuerHash:
        """The CA that is meant; compare with ``issuer_hashes``."""
        return IssuerHash(
            self.hash_algorithm.algorithm, self.issuer_name_hash, self.issuer_key_hash
        )


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]  # noqa: FBT003
    value: bytes


@asn1.sequence
class _Single:
    cert_id: CertId
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(0)]


@asn1.sequence
class _ToBeSigned:
    version: Annotated[int, asn1.Explicit(0), asn1.Default(0)]
    requests: list[_Single]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(2)]


@asn1.sequence
class _Request:
    to_be_signed: _ToBeSigned
    signature: Annotated[list[asn1.TLV] | None, asn1.Explicit(0)]


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """What a client asks: at least one CertID, and a nonce of 1 to 128 bytes or None."""

    certids: tuple[CertId, ...]
    nonce: bytes | None


def parse(data: bytes) -> OcspRequest:
    """Read a DER OCSPRequest. Raises BadRequestError (answer ``malformedRequest``).

    That is also the answer to too many CertIDs, to critical extensions other than the nonce, and
    to a nonce of a length that RFC 9654 §2.1 forbids.
    """
    if len(data) > limits.OCSP_REQUEST_BYTES_MAX:
        raise BadRequestError("The OCSP request is too long.")
    try:
        asked = asn1.decode_der(_Request, data).to_be_signed
        nonce = _nonce(asked.extensions or [])
    except ValueError as error:
        raise BadRequestError("The OCSP request is malformed.") from error
    if not 1 <= len(asked.requests) <= limits.OCSP_CERTIDS_MAX:
        raise BadRequestError(
            f"The OCSP request must hold 1 to {limits.OCSP_CERTIDS_MAX} certificate ids."
        )
    if any(item.critical for single in asked.requests for item in single.extensions or []):
        raise BadRequestError("The OCSP request holds an unknown critical extension.")
    return OcspRequest(tuple(single.cert_id for single in asked.requests), nonce)


def issuer_hashes(certificate: x509.Certificate) -> tuple[IssuerHash, ...]:
    """Give the names by which CertIDs may call this CA: with SHA-1 and with SHA-256."""
    name = certificate.subject.public_bytes()
    key = _key_bits(certificate)
    return tuple(
        IssuerHash(oid, algorithm(name).digest(), algorithm(key).digest())
        for oid, algorithm in _HASHES.items()
    )


def respond(
    request: OcspRequest,
    statuses: Sequence[Status],
    *,
    responder_key: PrivateKey,
    responder_certificate: x509.Certificate,
    this_update_us: int,
    next_update_us: int,
    archived_since_us: int | None = None,
) -> bytes:
    """Answer each CertID with the status of the same place; gives a DER OCSPResponse.

    The responder is a delegated one of the CA that all known CertIDs name (RFC 6960 §4.2.2.2).
    Times are UTC µs; ``this_update_us`` is also the time of production.
    ``archived_since_us``: statuses of expired certificates are known from then on, which their
    answers say (RFC 6960 §4.4.4).
    """
    this_update = _time(this_update_us)
    window = this_update + tlv(0xA0, _time(next_update_us))
    singles = b""
    for certid, status in zip(request.certids, statuses, strict=True):
        single = asn1.encode_der(certid) + _status(status) + window
        if archived_since_us is not None and 0 < (status.not_after_us or 0) < this_update_us:
            single += _archive_cutoff(archived_since_us)
        singles += tlv(signed.SEQUENCE, single)
    never_issued = any(status.state is State.NEVER_ISSUED for status in statuses)
    responder_id, certificates = _responder_parts(responder_certificate)
    data = tlv(
        signed.SEQUENCE,
        responder_id
        + this_update
        + tlv(signed.SEQUENCE, singles)
        + _response_extensions(request.nonce, never_issued),
    )
    algorithm = algorithms.usual(responder_key.public_key())
    signature = algorithm.sign(responder_key, data)
    basic = signed.join(data, algorithm, signature, certificates)
    body = _BASIC + tlv(signed.OCTET_STRING, basic)
    return tlv(signed.SEQUENCE, _SUCCESSFUL + tlv(0xA0, tlv(signed.SEQUENCE, body)))


def error(kind: Failure) -> bytes:
    """Give the unsigned DER OCSPResponse that says why there is no answer."""
    return tlv(signed.SEQUENCE, tlv(signed.ENUMERATED, bytes((kind,))))


_SUCCESSFUL = tlv(signed.ENUMERATED, b"\x00")
_BASIC = asn1.encode_der(oids.OCSP_BASIC)
_NULL = b"\x05\x00"


@lru_cache(maxsize=1024)
def _responder_parts(certificate: x509.Certificate) -> tuple[bytes, bytes]:
    """Encode what all answers of a responder have in common: its id by key, and its certificate."""
    key_hash = hashlib.sha1(_key_bits(certificate)).digest()  # noqa: S324  # RFC 6960 §4.2.1
    certificates = tlv(signed.SEQUENCE, certificate.public_bytes(Encoding.DER))
    return tlv(0xA2, tlv(signed.OCTET_STRING, key_hash)), tlv(0xA0, certificates)


def _nonce(extensions: list[_Extension]) -> bytes | None:
    nonces = [item.value for item in extensions if item.oid == oids.OCSP_NONCE]
    if any(item.critical and item.oid != oids.OCSP_NONCE for item in extensions):
        raise ValueError("unknown critical extension")
    if not nonces:
        return None
    nonce = asn1.decode_der(bytes, nonces[0])
    if len(nonces) > 1 or not 1 <= len(nonce) <= _NONCE_BYTES_MAX:
        raise ValueError("nonce twice, empty or too long")
    return nonce


def _response_extensions(nonce: bytes | None, never_issued: bool) -> bytes:
    """Give the responseExtensions: the client's nonce, and what calling a stranger revoked asks."""
    extensions = b""
    if nonce is not None:
        extensions += _extension(oids.OCSP_NONCE, tlv(signed.OCTET_STRING, nonce))
    if never_issued:
        extensions += _extension(oids.OCSP_EXTENDED_REVOKE, _NULL)
    return tlv(0xA1, tlv(signed.SEQUENCE, extensions)) if extensions else b""


def _archive_cutoff(since_us: int) -> bytes:
    """Give the singleExtensions with the time from which on statuses are kept."""
    extension = _extension(oids.OCSP_ARCHIVE_CUTOFF, _time(since_us))
    return tlv(0xA1, tlv(signed.SEQUENCE, extension))


def _extension(oid: x509.ObjectIdentifier, value: bytes) -> bytes:
    return asn1.encode_der(_Extension(oid=oid, critical=False, value=value))


def _status(status: Status) -> bytes:
    """Encode CertStatus: good [0], revoked [1] with time and reason, unknown [2]."""
    match status.state:
        case State.GOOD:
            return tlv(0x80, b"")
        case State.UNKNOWN:
            return tlv(0x82, b"")
        case State.NEVER_ISSUED:
            return _NEVER_ISSUED
        case State.REVOKED:
            reason = x509.CRLReason(reason_flag(status.reason)).public_bytes()
            return tlv(0xA1, _time(status.revoked_at_us) + tlv(0xA0, reason))


def _time(utc_us: int) -> bytes:
    return _encoded_time(utc_us // US_PER_SECOND)


@lru_cache(maxsize=4096)
def _encoded_time(utc_s: int) -> bytes:
    text = f"{datetime_of(utc_s * US_PER_SECOND):%Y%m%d%H%M%SZ}"
    return tlv(signed.GENERALIZED_TIME, text.encode("ascii"))


#: Revoked at 1970-01-01 with certificateHold (6): RFC 6960 §2.2.
_NEVER_ISSUED = tlv(0xA1, _time(0) + tlv(0xA0, tlv(signed.ENUMERATED, b"\x06")))


def _key_bits(certificate: x509.Certificate) -> bytes:
    return keys.key_bits(keys.spki(keys.of_ca(certificate)))
