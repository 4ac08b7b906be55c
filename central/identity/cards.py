"""Login by smart card: a port that demands a client certificate, and a ticket for the pages' port.

The pages' port asks for no certificate, or each browser would open a dialog; TLS 1.3 cannot ask
later in asyncio. So the card port only says who holds the key: it mints a ticket that works once,
for seconds, and sends the browser on. Whom a certificate stands for, and whether it still does,
is looked up in our own database each time.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web

from central.config import in_url
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ForbiddenError, UnauthenticatedError
from shared.kernel.ids import Random
from shared.store.access import Access
from shared.store.accounts import Accounts
from shared.web.auth import open_to_all, peer_certificate
from shared.web.sessions import Sessions, set_cookie
from shared.web.throttle import Throttle

_TICKET_BYTES = 32
_TICKET_CHARS_MAX = 64
_TICKET_US = 30 * US_PER_SECOND
_PATH = "/login/card"
_WHY = "whoever is to log in is not logged in yet"


class CardLogin:
    """Both ends of the login by card."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        access: Access,
        sessions: Sessions,
        failures: Throttle,
        clock: Clock,
        random: Random,
    ) -> None:
        """Take where cards, certificates and tickets are kept."""
        self._accounts = accounts
        self._access = access
        self._sessions = sessions
        self._failures = failures
        self._clock = clock
        self._random = random

    def card_routes(self, names: Sequence[str], web_port: int) -> list[web.RouteDef]:
        """Give the route of the card port; ``names`` are those by which central is reached."""

        async def mint(request: web.Request) -> web.Response:
            ticket = await self._mint(request)
            host = request.url.host if request.url.host in names else names[0]
            address = f"https://{in_url(host or names[0])}:{web_port}{_PATH}"
            return _see_other(f"{address}?{urlencode({'ticket': ticket})}")

        return [web.get("/", open_to_all(mint, _WHY))]

    def people_routes(self) -> list[web.RouteDef]:
        """Give the route of the pages' port that turns a ticket into a session."""
        return [web.get(_PATH, open_to_all(self._spend, _WHY))]

    async def _mint(self, request: web.Request) -> str:
        address = request.remote or ""
        self._failures.require(address)
        der = peer_certificate(request)
        digest = hashlib.sha256(der or b"").hexdigest()
        owner = await self._accounts.card_owner(digest)
        ours = await self._access.client_certificate(digest)
        if owner is None or (ours is not None and ours.status != "good"):
            self._failures.count(address)
            why = "unknown card" if owner is None else "revoked card"
            await self._accounts.login_failed(owner or f"card {digest[:16]}", why, address)
            raise UnauthenticatedError(
                "This certificate stands for no user who may log in.",
                remedy="An administrator binds it on the user's page.",
            )
        ticket = urlsafe_b64encode(self._random(_TICKET_BYTES)).rstrip(b"=").decode()
        expires_at_us = self._clock.now().utc_us + _TICKET_US
        await self._accounts.add_ticket(_hash(ticket), owner, expires_at_us)
        return ticket

    async def _spend(self, request: web.Request) -> web.Response:
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise ForbiddenError(  # nobody is to be logged in as somebody else by a link
                "Another site sent you here.", remedy="Begin at the login page of this server."
            )
        ticket = request.query.get("ticket", "")[:_TICKET_CHARS_MAX]
        owner = await self._accounts.take_ticket(_hash(ticket))
        if owner is None:
            self._failures.count(request.remote or "")
            raise UnauthenticatedError("This login was used already or took too long.")
        token = await self._sessions.open(request, owner, "card")
        response = _see_other("/")
        set_cookie(response, token)
        return response


def _see_other(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address})


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
