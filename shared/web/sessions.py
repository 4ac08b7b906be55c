"""Logins of people: Argon2id passwords, a rising delay, sessions that the server can end."""

import asyncio
import hashlib
from base64 import urlsafe_b64encode
from typing import Protocol

from aiohttp import web
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError, UnauthenticatedError
from shared.kernel.ids import Random
from shared.web.access_log import PRINCIPAL
from shared.web.auth import Principal, Role
from shared.web.origin import require_own_page
from shared.web.throttle import Throttle, ThrottledError

#: ``__Host-``: the browser takes it from this very host only, over TLS, for all paths.
COOKIE = "__Host-tma-session"
PASSWORD_CHARS_MIN = 12
_PASSWORD_CHARS_MAX = 256
_NAME_CHARS_MAX = 64
_COOKIE_CHARS_MAX = 64
_IDLE_US = 30 * 60 * US_PER_SECOND
_ABSOLUTE_US = 12 * 3600 * US_PER_SECOND
_TOUCH_US = 60 * US_PER_SECOND  # how exact "idle" is: not each page view is a database write
_FREE_FAILURES = 4
_DELAY_MAX_S = 15 * 60
_HASHES_AT_ONCE = 2  # each takes 64 MiB and a core

_hasher = PasswordHasher()  # Argon2id with the second recommended parameters of RFC 9106


class UserRow(Protocol):
    """What a login reads of a user; times in UTC µs."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def password_hash(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def failed_logins(self) -> int: ...  # noqa: D102
    @property
    def locked_until_us(self) -> int | None: ...  # noqa: D102


class SessionRow(Protocol):
    """What a page view reads of a session and its user; times in UTC µs."""

    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def seen_at_us(self) -> int: ...  # noqa: D102
    @property
    def expires_at_us(self) -> int: ...  # noqa: D102


class Accounts(Protocol):
    """Where users and sessions are kept; each call is one commit or one read."""

    async def user(self, name: str) -> UserRow | None:
        """Find a user."""
        ...

    async def count_attempt(self, name: str, failed_before: int, locked_until_us: int) -> bool:
        """Book one more failed login, if the count is still ``failed_before``; else give False."""
        ...

    async def open_session(
        self, name: str, token_hash: bytes, now_us: int, expires_at_us: int
    ) -> None:
        """Add a session and forget the user's failed logins."""
        ...

    async def session(self, token_hash: bytes) -> SessionRow | None:
        """Find a session."""
        ...

    async def touch_session(self, token_hash: bytes, now_us: int) -> None:
        """Note that the session was used."""
        ...

    async def end_session(self, token_hash: bytes) -> None:
        """Forget a session."""
        ...


def hash_password(password: str) -> str:
    """Hash a password for storage; raises BadRequestError when it is too short or too long."""
    if not PASSWORD_CHARS_MIN <= len(password) <= _PASSWORD_CHARS_MAX:
        raise BadRequestError(
            f"A password has {PASSWORD_CHARS_MIN} to {_PASSWORD_CHARS_MAX} characters."
        )
    return _hasher.hash(password)


class Sessions:
    """Logs people in and out and tells who sends a page request."""

    def __init__(
        self, *, accounts: Accounts, clock: Clock, random: Random, failures: Throttle
    ) -> None:
        """Take the port, clock, randomness and the limit of failed attempts per peer address."""
        self._accounts = accounts
        self._clock = clock
        self._random = random
        self._failures = failures
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._nobody = _hasher.hash(random(16))  # what an unknown name is checked against

    async def log_in(self, request: web.Request, name: str, password: str) -> str:
        """Check name and password and open a session; gives the cookie's value.

        Raises UnauthenticatedError, ThrottledError. The attempt is booked as failed before the
        password is checked, so that parallel guesses cannot outrun the delay. An unknown name
        takes as long as a known one.
        """
        require_own_page(request)
        address = request.remote or ""
        self._failures.require(address)
        user = None
        if len(name) <= _NAME_CHARS_MAX and len(password) <= _PASSWORD_CHARS_MAX:
            user = await self._accounts.user(name)
        if user is not None:
            await self._book(user)
        async with self._hashing:
            matches = await asyncio.to_thread(
                _matches, user.password_hash if user else self._nobody, password
            )
        if user is None or not matches:
            self._failures.count(address)
            raise UnauthenticatedError("Name or password is wrong.")
        token = urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()
        now_us = self._clock.now().utc_us
        await self._accounts.open_session(user.name, _hash(token), now_us, now_us + _ABSOLUTE_US)
        return token

    async def principal(self, request: web.Request) -> Principal | None:
        """Tell whose session the cookie names, if it is still alive.

        Raises ForbiddenError when something is to be changed and the browser does not confirm
        that our own page sent it.
        """
        token = request.cookies.get(COOKIE, "")
        if not token or len(token) > _COOKIE_CHARS_MAX:
            return None
        row = await self._accounts.session(_hash(token))
        now_us = self._clock.now().utc_us
        if row is None or now_us >= min(row.expires_at_us, row.seen_at_us + _IDLE_US):
            return None
        require_own_page(request)
        if now_us - row.seen_at_us >= _TOUCH_US:
            await self._accounts.touch_session(_hash(token), now_us)
        request[PRINCIPAL] = f"user:{row.user}"
        return Principal(f"user:{row.user}", Role(row.role), frozenset("*"))

    async def require(self, request: web.Request, *roles: Role) -> Principal:
        """Give the principal; raises UnauthenticatedError without login, ForbiddenError by role."""
        principal = await self.principal(request)
        if principal is None:
            raise UnauthenticatedError("Please log in.")
        if roles:
            principal.require(*roles)
        return principal

    async def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session and take the cookie back."""
        token = request.cookies.get(COOKIE, "")
        if token:
            require_own_page(request)
            await self._accounts.end_session(_hash(token))
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")

    async def _book(self, user: UserRow) -> None:
        now_us = self._clock.now().utc_us
        if now_us < (user.locked_until_us or 0):
            wait_s = ((user.locked_until_us or 0) - now_us) / US_PER_SECOND
            raise ThrottledError(
                "This user failed to log in too often; the delay rises with each attempt.",
                retry_after_s=wait_s,
            )
        delay_s = _delay_s(user.failed_logins + 1)
        booked = await self._accounts.count_attempt(
            user.name, user.failed_logins, now_us + delay_s * US_PER_SECOND
        )
        if not booked:
            raise ThrottledError("Another login of this user is under way.", retry_after_s=1)


def set_cookie(response: web.StreamResponse, token: str) -> None:
    """Hand the session to the browser; it forgets it when it is closed."""
    response.set_cookie(COOKIE, token, secure=True, httponly=True, samesite="Strict", path="/")


def _delay_s(failures: int) -> int:
    """Nothing for the first four failures in a row, then 1, 2, 4 ... seconds up to 15 minutes."""
    if failures <= _FREE_FAILURES:
        return 0
    return min(1 << min(failures - _FREE_FAILURES - 1, 16), _DELAY_MAX_S)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
