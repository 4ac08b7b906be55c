"""Who asks: station tokens and client certificates become a ``Principal``; deny by default."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLObject
from typing import Protocol

from aiohttp import web

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ForbiddenError, UnauthenticatedError
from shared.kernel.ids import Random
from shared.web.access_log import PRINCIPAL
from shared.web.throttle import Throttle

_TOKEN_PREFIX = "tma_"  # noqa: S105  # lets secret scanners find a leaked token
_TOKEN_BYTES = 32
_TOKEN_CHARS_MAX = 128
#: A revoked token or certificate stops working at once where ``forget`` is called, and within
#: this time everywhere else (a command line tool wrote into the same database).
_FRESH_US = 2 * US_PER_SECOND
_CACHE_ENTRIES_MAX = 10_000


class Role(StrEnum):
    """What a principal may do, from most to least."""

    ADMIN = "admin"
    AUDITOR = "auditor"  # reads everything, changes nothing
    STATION = "station"  # enrolls and manages certificates of its profiles
    DEVICE = "device"  # reads, renews and revokes the one certificate it presents


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated requester; ``name`` reads ``station:x``, ``cert:<sha256>``, ``user:x``.

    ``profiles`` holds names, or ``*`` for all. ``certificate`` is (ca_id, serial text) of the
    client certificate that was presented, if it is one of ours.
    """

    name: str
    role: Role
    profiles: frozenset[str] = frozenset()
    certificate: tuple[str, str] | None = None

    def may_use(self, profile: str) -> bool:
        """Tell whether certificates of this profile are this requester's business."""
        return profile in self.profiles or "*" in self.profiles

    def require(self, *roles: Role) -> None:
        """Raise ForbiddenError unless the requester has one of these roles."""
        if self.role not in roles:
            allowed = " or ".join(roles)
            raise ForbiddenError(f"This needs the role {allowed}; you have {self.role}.")


class StationRow(Protocol):
    """What authentication reads of a station; times in UTC µs."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def profiles(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def expires_at_us(self) -> int | None: ...  # noqa: D102
    @property
    def revoked_at_us(self) -> int | None: ...  # noqa: D102


class ClientCertificateRow(Protocol):
    """What authentication reads of a certificate in the ledger; times in UTC µs."""

    @property
    def ca_id(self) -> str: ...  # noqa: D102
    @property
    def serial(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def not_after_us(self) -> int: ...  # noqa: D102


class Credentials(Protocol):
    """Where stations and issued certificates are looked up."""

    async def station_by_token(self, token_hash: bytes) -> StationRow | None:
        """Find the station by SHA-256 of its token."""
        ...

    async def station_by_certificate(self, sha256: str) -> StationRow | None:
        """Find the station that is bound to this client certificate (hex SHA-256 of its DER)."""
        ...

    async def client_certificate(self, sha256: str) -> ClientCertificateRow | None:
        """Find an issued certificate by hex SHA-256 of its DER."""
        ...


def new_token(random: Random) -> tuple[str, bytes]:
    """Make a token of 256 random bits; gives it and its hash, of which only the hash is stored."""
    token = _TOKEN_PREFIX + urlsafe_b64encode(random(_TOKEN_BYTES)).rstrip(b"=").decode()
    return token, token_hash(token)


def token_hash(token: str) -> bytes:
    """Hash a token as it is stored and looked up.

    SHA-256 suffices, because 256 random bits cannot be guessed; and because the index compares
    hashes, the time of a look-up tells nothing about a token.
    """
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    valid_until_us: int
    checked_at_us: int


class Authenticator:
    """Turns a request into a principal, at a few µs per request for those seen just now."""

    def __init__(self, *, credentials: Credentials, clock: Clock, failures: Throttle) -> None:
        """Take the port, the clock, and the limit of failed attempts per peer address."""
        self._credentials = credentials
        self._clock = clock
        self._failures = failures
        self._known: dict[bytes, _Known] = {}

    async def principal(self, request: web.Request) -> Principal:
        """Authenticate by Bearer token, else by client certificate.

        Raises UnauthenticatedError. An address that failed too often is answered without a look
        into the database, but never one whose credential was good before: many stations may share
        an address, and one of them must not lock out the others.
        """
        evidence = _bearer(request) or _peer_certificate(request)
        if evidence is None:
            raise UnauthenticatedError("The request carries no token and no client certificate.")
        return await self.judge(request, *evidence)

    async def judge(self, request: web.Request, kind: str, secret: bytes) -> Principal:
        """Authenticate by a secret that the caller found; ``kind`` is "token" or names another.

        Raises as ``principal``.
        """
        digest = hashlib.sha256(secret).digest()
        now_us = self._clock.now().utc_us
        known = self._known.get(digest)
        if known is None or not known.checked_at_us <= now_us < known.checked_at_us + _FRESH_US:
            if known is None:
                self._failures.require(request.remote or "")
            known = await self._look_up(kind, digest, now_us)
        if known is None or now_us >= known.valid_until_us:
            self._known.pop(digest, None)
            self._failures.count(request.remote or "")
            raise UnauthenticatedError(f"The {kind} is unknown, expired or revoked.")
        request[PRINCIPAL] = known.principal.name
        return known.principal

    def forget(self) -> None:
        """Look everybody up again; call after a token or a certificate was revoked."""
        self._known.clear()

    async def _look_up(self, kind: str, digest: bytes, now_us: int) -> _Known | None:
        find = self._by_token if kind == "token" else self._by_certificate
        found = await find(digest)
        if found is None:
            return None
        if len(self._known) >= _CACHE_ENTRIES_MAX:
            self._known.pop(next(iter(self._known)))
        known = self._known[digest] = _Known(*found, checked_at_us=now_us)
        return known

    async def _by_token(self, digest: bytes) -> tuple[Principal, int] | None:
        return _station(await self._credentials.station_by_token(digest), None)

    async def _by_certificate(self, digest: bytes) -> tuple[Principal, int] | None:
        """Let a certificate of ours count while it is good in the ledger."""
        sha256 = digest.hex()
        row = await self._credentials.client_certificate(sha256)
        if row is None or row.status != "good":
            return None
        certificate = (row.ca_id, row.serial)
        station = _station(await self._credentials.station_by_certificate(sha256), certificate)
        if station is not None:
            return station[0], min(station[1], row.not_after_us)
        device = Principal(f"cert:{sha256}", Role.DEVICE, certificate=certificate)
        return device, row.not_after_us


def _station(
    row: StationRow | None, certificate: tuple[str, str] | None
) -> tuple[Principal, int] | None:
    if row is None or row.revoked_at_us is not None:
        return None
    principal = Principal(
        f"station:{row.name}", Role(row.role), frozenset(row.profiles), certificate
    )
    return principal, row.expires_at_us or 1 << 62


def _bearer(request: web.Request) -> tuple[str, bytes] | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or len(token) > _TOKEN_CHARS_MAX or not token.isascii():
        raise UnauthenticatedError("The Authorization header is not a Bearer token of this server.")
    return "token", token.encode()


def _peer_certificate(request: web.Request) -> tuple[str, bytes] | None:
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    der = tls.getpeercert(binary_form=True) if isinstance(tls, SSLObject) else None
    return ("client certificate", der) if der else None
