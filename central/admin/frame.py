"""What all pages of central share: who may see them, the frame around them, forms."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from central.admin import words
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission, Place
from shared.web.app import read_body
from shared.web.auth import Handler, Principal, needs, open_to_all
from shared.web.pages import Pages, age_text
from shared.web.sessions import PasswordChangeNeededError, Sessions, SignedIn

_FORM_BYTES_MAX = 8 * 1024
_NUMBER_CHARS_MAX = 18  # SQLite's integers

PASSWORD_PATH = "/account/password"  # noqa: S105  # an address

Page = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
OwnPage = Callable[[web.Request, SignedIn], Awaitable[web.StreamResponse]]


class Frame:
    """Guards pages by session and permission, and renders them."""

    def __init__(
        self, pages: Pages, sessions: Sessions, clock: Clock, card_port: int | None = None
    ) -> None:
        """Take the templates, the logins, the clock, and the port of logins by card, if any."""
        self.card_port = card_port
        self._pages = pages
        self.sessions = sessions
        self._clock = clock

    def guarded(self, permission: Permission, page: Page) -> Handler:
        """Let in whom a session names and who has the permission somewhere.

        The page itself demands it for the very object. Others go to the login.
        """
        return needs(permission, self._let_in(permission, page))

    def for_users(self, page: Page, why: str) -> Handler:
        """Let in whoever is logged in: the page is about nothing but himself."""
        return open_to_all(self._let_in(None, page), why)

    def for_oneself(self, page: OwnPage, why: str) -> Handler:
        """Let in whoever is logged in, also one who must choose a password of his own first."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return await page(request, await self.sessions.signed_in(request))

        return open_to_all(handler, why)

    def _let_in(self, permission: Permission | None, page: Page) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                who = await self.sessions.require(request, permission)
            except PasswordChangeNeededError:
                return see_other(PASSWORD_PATH)
            return await page(request, who)

        return handler

    def show(
        self,
        template: str,
        who: Principal,
        place: str,
        context: Mapping[str, Any],
        *,
        status: int = 200,
    ) -> web.Response:
        """Render a page in the frame; ``place`` is its name in the navigation."""

        def may(permission: str, **where: str | None) -> bool:
            return who.may(Permission(permission), Place(**where))

        def somewhere(permission: str) -> bool:
            return bool(who.scopes(Permission(permission)))

        common = {
            "who": who.name.removeprefix("user:"),
            "roles": ", ".join(dict.fromkeys(right.role for right in who.rights)) or "no role",
            "may": may,
            "somewhere": somewhere,
            "place": place,
            "remark_of": partial(words.of_certificate, now_us=self.now_us()),
            "ago": self._ago,
            "until": words.until_text,
        }
        return self.bare(template, {**common, **context}, status=status)

    def bare(self, template: str, context: Mapping[str, Any], *, status: int = 200) -> web.Response:
        """Render a page for somebody who is not logged in."""
        return self._pages.render(f"central.admin/{template}", context, status=status)

    def now_us(self) -> int:
        """Give the time in UTC µs."""
        return self._clock.now().utc_us

    def _ago(self, utc_us: int | None) -> str:
        if utc_us is None:
            return "never"
        return f"{age_text((self.now_us() - utc_us) / US_PER_SECOND)} ago"


async def form(request: web.Request, limit: int = _FORM_BYTES_MAX) -> dict[str, str]:
    """Read a form of at most ``limit`` bytes; of a field given twice the first counts."""
    return {name: values[0] for name, values in (await form_lists(request, limit)).items()}


async def form_lists(request: web.Request, limit: int = _FORM_BYTES_MAX) -> dict[str, list[str]]:
    """Read a form whose fields may be given more than once; ``limit`` is its size in bytes."""
    body = await read_body(request, limit)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=64)
    except ValueError as error:
        raise BadRequestError("The form cannot be read.") from error


def number(text: str) -> int:
    """Read a number of a page or an object; raises BadRequestError."""
    if not text.isascii() or not text.isdigit() or len(text) > _NUMBER_CHARS_MAX:
        raise BadRequestError("The page number is not a number.")
    return int(text)


def see_other(address: str) -> web.Response:
    """Send the browser on after a form was carried out."""
    return web.Response(status=303, headers={"Location": address, "HX-Redirect": address})
