"""Who asks: tokens and client certificates become a ``Principal``; deny by default.

Each route says in a table what it needs (``needs``, or ``open_to_all`` with the reason); the app
factory starts no route that does not say it.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ssl import SSLObject
from typing import Protocol

from aiohttp import web

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ForbiddenError, UnauthenticatedError
from shared.kernel.ids import Random
from shared.policy.rights import (
    EVERYWHERE,
    WHOLE,
    Permission,
    Place,
    Right,
    Scope,
    allowed,
    scopes,
)
from shared.web.access_log import PRINCIPAL
from shared.web.throttle import Throttle

_TOKEN_PREFIX = "tma_"  # noqa: S105  # lets secret scanners find a leaked token
_TOKEN_BYTES = 32
_TOKEN_CHARS_MAX = 128
#: A revoked token or certificate stops working at once where ``forget`` is called, and within
#: this time everywhere else (a command line tool wrote into the same database).
_FRESH_US = 2 * US_PER_SECOND
_CACHE_ENTRIES_MAX = 10_000
_NEVER_US = 1 << 62
_EVERYBODY = ""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated requester; ``name`` reads ``station:x``, ``cert:<sha256>``, ``user:x``.

    ``certificate`` is (ca_id, serial text) of the client certificate that was presented, if it is
    one of ours.
    """

    name: str
    rights: tuple[Right, ...] = ()
    certificate: tuple[str, str] | None = None

    def may(self, permission: Permission, on: Place = WHOLE) -> bool:
        """Tell whether this is allowed there; without ``on``, for the whole installation."""
        return allowed(self.rights, permission, on)

    def may_use(self, profile: str) -> bool:
        """Tell whether one may enroll for this profile."""
        return self.may(Permission.CERTIFICATE_ENROLL, Place(profile=profile))

    def require(self, permission: Permission, *, on: Place = WHOLE) -> None:
        """Raise ForbiddenError unless this is allowed there."""
        if not self.may(permission, on):
            raise _forbidden(permission)

    def require_somewhere(self, permission: Permission) -> None:
        """Raise ForbiddenError unless this is allowed anywhere; then filter by ``scopes``."""
        if not self.scopes(permission):
            raise _forbidden(permission)

    def scopes(self, permission: Permission) -> tuple[Scope, ...]:
        """Give where this is allowed: what a list may show. (EVERYWHERE,) for everything."""
        return scopes(self.rights, permission)


def _forbidden(permission: Permission) -> ForbiddenError:
    return ForbiddenError(f"This needs the permission {permission} for it, which you do not have.")


#: Written by whoever authenticates a request, so that it happens once.
WHO: web.RequestKey[Principal] = web.RequestKey("who", Principal)

_NEEDED = "__tma_needs__"


def needs(permission: Permission, handler: Handler) -> Handler:
    """Say which permission a handler demands; the caller makes sure that it does."""
    return _saying(permission, handler)


def open_to_all(handler: Handler, why: str) -> Handler:
    """Say that a handler is for everybody, and why."""
    return _saying(why, handler)


def _saying(need: Permission | str, handler: Handler) -> Handler:
    said = partial(handler)  # a bound method takes no attributes
    setattr(said, _NEEDED, need)
    return said


def need_of(handler: object) -> Permission | str | None:
    """Tell what a route's handler demands: a permission, the reason for none, or None: unsaid."""
    return getattr(handler, _NEEDED, None)


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


class UserRightsRow(Protocol):
    """What authentication reads of an API token or bound certificate and its user; UTC µs."""

    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def rights(self) -> Sequence[Right]: ...  # noqa: D102
    @property
    def expires_at_us(self) -> int | None: ...  # noqa: D102


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

    async def user_by_token(self, token_hash: bytes) -> UserRightsRow | None:
        """Find the user of a live API token, with what both the user and the token may."""
        ...

    async def user_by_certificate(self, sha256: str) -> UserRightsRow | None:
        """Find the user to whom this client certificate is bound."""
        ...

    async def token_refused(self, kind: str, peer: str) -> None:
        """Note that somebody presented a token or certificate that is not accepted."""
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
        self._noted = Throttle(clock, burst=60, period_s=3600)
        self._known: dict[bytes, _Known] = {}

    async def principal(self, request: web.Request) -> Principal:
        """Authenticate by Bearer token, else by client certificate.

        Raises UnauthenticatedError. An address that failed too often is answered without a look
        into the database, but never one whose credential was good before: many stations may share
        an address, and one of them must not lock out the others.
        """
        if (seen := request.get(WHO)) is not None:
            return seen
        evidence = _bearer(request) or _presented(request)
        if evidence is None:
            raise UnauthenticatedError("The request carries no token and no client certificate.")
        return await self.judge(request, *evidence)

    async def judge(self, request: web.Request, kind: str, secret: bytes) -> Principal:
        """Authenticate by a secret that the caller found; ``kind`` is "token" or names another.

        Raises as ``principal``.
        """
        principal = await self.examine(request, kind, secret)
        request[PRINCIPAL] = principal.name
        request[WHO] = principal
        return principal

    async def examine(self, request: web.Request, kind: str, secret: bytes) -> Principal:
        """Tell whose secret that is, without making him the one who asks; raises as ``judge``."""
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
            if self._noted.allows(_EVERYBODY):  # strangers must not be able to fill the log
                self._noted.count(_EVERYBODY)
                await self._credentials.token_refused(kind, request.remote or "")
            raise UnauthenticatedError(f"The {kind} is unknown, expired or revoked.")
        return known.principal

    def guarded(self, permission: Permission, handler: Handler) -> Handler:
        """Let a handler run only for those who have the permission somewhere.

        The handler itself demands it for the very object, as soon as that is known.
        """

        async def guard(request: web.Request) -> web.StreamResponse:
            (await self.principal(request)).require_somewhere(permission)
            return await handler(request)

        return needs(permission, guard)

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
        station = await self._credentials.station_by_token(digest)
        if station is not None:
            return _station(station, None)
        return _user(await self._credentials.user_by_token(digest), None)

    async def _by_certificate(self, digest: bytes) -> tuple[Principal, int] | None:
        """Let a certificate of ours count while it is good in the ledger."""
        sha256 = digest.hex()
        row = await self._credentials.client_certificate(sha256)
        if row is None or row.status != "good":
            return None
        certificate = (row.ca_id, row.serial)
        bound = _station(
            await self._credentials.station_by_certificate(sha256), certificate
        ) or _user(await self._credentials.user_by_certificate(sha256), certificate)
        if bound is not None:
            return bound[0], min(bound[1], row.not_after_us)
        own = Right.of("device", Scope(ca=row.ca_id, serial=row.serial))
        return Principal(f"cert:{sha256}", (own,), certificate), row.not_after_us


def station_rights(role: str, profiles: Sequence[str]) -> tuple[Right, ...]:
    """Give what a station may: its role for each of its profiles, or everywhere for ``*``."""
    if "*" in profiles:
        return (Right.of(role, EVERYWHERE),)
    return tuple(Right.of(role, Scope(profile=name)) for name in profiles)


def _station(
    row: StationRow | None, certificate: tuple[str, str] | None
) -> tuple[Principal, int] | None:
    if row is None or row.revoked_at_us is not None:
        return None
    rights = station_rights(row.role, row.profiles)
    principal = Principal(f"station:{row.name}", rights, certificate)
    return principal, row.expires_at_us or _NEVER_US


def _user(
    row: UserRightsRow | None, certificate: tuple[str, str] | None
) -> tuple[Principal, int] | None:
    if row is None:
        return None
    principal = Principal(f"user:{row.user}", tuple(row.rights), certificate)
    return principal, row.expires_at_us or _NEVER_US


def _bearer(request: web.Request) -> tuple[str, bytes] | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or len(token) > _TOKEN_CHARS_MAX or not token.isascii():
        raise UnauthenticatedError("The Authorization header is not a Bearer token of this server.")
    return "token", token.encode()


def peer_certificate(request: web.Request) -> bytes | None:
    """Give the client certificate (DER) that TLS let in, if one was presented."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    return tls.getpeercert(binary_form=True) if isinstance(tls, SSLObject) else None


def _presented(request: web.Request) -> tuple[str, bytes] | None:
    der = peer_certificate(request)
    return ("client certificate", der) if der else None
