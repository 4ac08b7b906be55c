"""Logins of people: Argon2id passwords, a rising delay, sessions that the server can end.

A login always makes a new session and ends the one that the browser came with, so that nobody can
be given a session that somebody else knows.
"""

import asyncio
import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aiohttp import web

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ForbiddenError, UnauthenticatedError
from shared.kernel.ids import Random
from shared.policy.rights import Permission, Right
from shared.web import passwords
from shared.web.access_log import PRINCIPAL
from shared.web.auth import Principal
from shared.web.origin import require_own_page
from shared.web.throttle import Throttle, ThrottledError

#: ``__Host-``: the browser takes it from this very host only, over TLS, for all paths.
COOKIE = "__Host-tma-session"
_NAME_CHARS_MAX = 64
_COOKIE_CHARS_MAX = 64
IDLE_US = 30 * 60 * US_PER_SECOND
_ABSOLUTE_US = 12 * 3600 * US_PER_SECOND
_TOUCH_US = 60 * US_PER_SECOND  # how exact "idle" is: not each page view is a database write
_FREE_FAILURES = 4
_DELAY_MAX_S = 15 * 60
_HASHES_AT_ONCE = 2
_AGENT_CHARS_MAX = 200


_Result = TypeVar("_Result")


class PasswordChangeNeededError(ForbiddenError):
    """Choose a password of your own first: the present one was set by somebody else."""

    code = "password-change-needed"


class UserRow(Protocol):
    """What a login reads of a user; times in UTC µs."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def password_hash(self) -> str: ...  # noqa: D102
    @property
    def disabled(self) -> bool: ...  # noqa: D102
    @property
    def failed_logins(self) -> int: ...  # noqa: D102
    @property
    def locked_until_us(self) -> int | None: ...  # noqa: D102


class SessionRow(Protocol):
    """What a page view reads of a session and its user; times in UTC µs."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def rights(self) -> tuple[Right, ...]: ...  # noqa: D102
    @property
    def must_change(self) -> bool: ...  # noqa: D102
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

    async def login_failed(self, name: str, why: str, address: str) -> None:
        """Write down that a login was refused."""
        ...

    async def improve_hash(self, name: str, old_hash: str, new_hash: str) -> None:
        """Keep the same password under better parameters."""
        ...

    async def open_session(
        self,
        token_hash: bytes,
        *,
        session_id: str,
        user: str,
        how: str,
        address: str,
        agent: str,
        expires_at_us: int,
    ) -> bool:
        """Add a session and forget the user's failed logins; False if the user is disabled."""
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


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has a live session, which one, and whether it only serves to choose a password."""

    principal: Principal
    session_id: str
    must_change: bool


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
        self._nobody = passwords.encode(random(16).hex())  # what an unknown name is checked against

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
        if len(name) <= _NAME_CHARS_MAX and len(password) <= passwords.CHARS_MAX:
            user = await self._accounts.user(name)
        if user is not None:
            await self._book(user)
        known_hash = user.password_hash if user else self._nobody
        matches = await self._in_thread(passwords.matches, known_hash, password)
        if user is None or not matches or user.disabled:
            self._failures.count(address)
            why = "unknown user" if user is None else "disabled" if matches else "wrong password"
            await self._accounts.login_failed(name[:_NAME_CHARS_MAX], why, address)
            raise UnauthenticatedError("Name or password is wrong.")
        if passwords.is_dated(user.password_hash):
            better = await self._in_thread(passwords.encode, password)
            await self._accounts.improve_hash(user.name, user.password_hash, better)
        return await self.open(request, user.name, "password")

    async def open(self, request: web.Request, name: str, how: str) -> str:
        """Open a session for a user who proved who he is; gives the cookie's value.

        Raises UnauthenticatedError when the user is disabled.
        """
        if before := _cookie(request):
            await self._accounts.end_session(_hash(before))
        token = urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()
        opened = await self._accounts.open_session(
            _hash(token),
            session_id=self._random(6).hex(),
            user=name,
            how=how,
            address=request.remote or "",
            agent=request.headers.get("User-Agent", "")[:_AGENT_CHARS_MAX],
            expires_at_us=self._clock.now().utc_us + _ABSOLUTE_US,
        )
        if not opened:
            raise UnauthenticatedError("This user may not log in any more.")
        return token

    async def proves(self, name: str, password: str) -> bool:
        """Check the password of somebody who is logged in; throttled like a login."""
        user = await self._accounts.user(name)
        if user is None or len(password) > passwords.CHARS_MAX:
            return False
        await self._book(user)
        return await self._in_thread(passwords.matches, user.password_hash, password)

    async def hash(self, password: str, name: str) -> str:
        """Hash a new password off the loop; raises BadRequestError when it breaks a rule."""
        passwords.require_good(password, name)
        return await self._in_thread(passwords.encode, password)

    async def signed_in(self, request: web.Request) -> SignedIn:
        """Tell whose live session the cookie names; raises UnauthenticatedError without one.

        Raises ForbiddenError when something is to be changed and the browser does not confirm
        that our own page sent it.
        """
        token = _cookie(request)
        row = await self._accounts.session(_hash(token)) if token else None
        now_us = self._clock.now().utc_us
        if row is None or now_us >= min(row.expires_at_us, row.seen_at_us + IDLE_US):
            raise UnauthenticatedError("Please log in.")
        require_own_page(request)
        if now_us - row.seen_at_us >= _TOUCH_US:
            await self._accounts.touch_session(_hash(token), now_us)
        request[PRINCIPAL] = f"user:{row.user}"
        principal = Principal(f"user:{row.user}", row.rights)
        return SignedIn(principal, row.id, row.must_change)

    async def require(self, request: web.Request, permission: Permission | None) -> Principal:
        """Give who is logged in and has the permission somewhere (None: any user).

        Raises UnauthenticatedError, ForbiddenError, PasswordChangeNeededError. The page itself
        demands the permission for the very object.
        """
        found = await self.signed_in(request)
        if found.must_change:
            raise PasswordChangeNeededError("Please choose a password of your own first.")
        if permission is not None:
            found.principal.require_somewhere(permission)
        return found.principal

    async def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session and take the cookie back."""
        if token := _cookie(request):
            require_own_page(request)
            await self._accounts.end_session(_hash(token))
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")

    async def _in_thread(self, work: Callable[..., _Result], *texts: str) -> _Result:
        """Hash beside the loop, few at once: each hash takes 64 MiB and a core."""
        async with self._hashing:
            return await asyncio.to_thread(work, *texts)

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


def _cookie(request: web.Request) -> str:
    """Give the session's cookie, or nothing if it cannot be one."""
    token = request.cookies.get(COOKIE, "")
    return token if len(token) <= _COOKIE_CHARS_MAX else ""


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
