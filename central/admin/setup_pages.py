"""The page that founds a central: what it is to be, and then, once, its recovery secret.

Nobody can log in yet: who knows the setup code may. Nothing else is served before.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from central.admin.frame import form, see_other
from central.first_order import FirstOrder, usual_name
from central.founding import Founded, Stage
from central.setup_code import SetupCode
from shared.kernel.errors import BadRequestError, ForbiddenError, TmaError, UnavailableError
from shared.kernel.ids import Random
from shared.pki import keys
from shared.web import passwords, problems
from shared.web.auth import open_to_all
from shared.web.pages import Pages
from shared.web.problems import InvalidFieldsError

PATH = "/setup"
_NAMES = ("root_name", "fleet_name", "issuing_name")
_SECRETS = frozenset({"code", "password", "again"})
_PASSWORD_RULE = f"A password has {passwords.CHARS_MIN} to {passwords.CHARS_MAX} characters."
_RULES = {
    "days": "Give 1 to 36525 days, or nothing: then it has no expiry.",
    "key_type": "Choose one of the list.",
    "admin": "A name has letters, digits, dot, dash and underscore, at most 64.",
    "password": _PASSWORD_RULE,
}
_RETRY_S = 60


class Setup:
    """The handlers; ``done`` is set once somebody said that he has the recovery secret."""

    def __init__(
        self,
        pages: Pages,
        code: SetupCode,
        *,
        organization: str,
        stage: Stage,
        look: Callable[[], Awaitable[Stage]],
        found: Callable[[FirstOrder], Awaitable[Founded]],
        confirm: Callable[[], Awaitable[None]],
        random: Random,
    ) -> None:
        """Take what the form begins with, how far central has come, and what founds it."""
        self.pages = pages
        self.done = asyncio.Event()
        self._code = code
        self._defaults = {
            "organization": organization,
            **{name: usual_name(organization, name) for name in _NAMES},
            "days": "",
            "key_type": "ec-p256",
            "admin": "admin",
        }
        self._is_begun = stage is not Stage.NOTHING
        self._stage = look
        self._found = found
        self._confirm = confirm
        self._random = random
        self._shown = ""  # names the secret that was shown last, so that no other is confirmed
        self._one = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Give the routes: the page, and for every other address the way to it."""
        why = "nobody can be known before the founding; what changes something asks for the code"
        return [
            web.get(PATH, open_to_all(self.asked, why)),
            web.post(PATH, open_to_all(self.found, why)),
            web.post(f"{PATH}/confirm", open_to_all(self.confirmed, why)),
            web.route("*", "/{elsewhere:.*}", open_to_all(self.elsewhere, why)),
        ]

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Send a person to the page, and tell a program to wait."""
        if request.path.split("/")[1] != "api":
            return see_other(PATH)
        waits = UnavailableError(
            "This central is not founded yet.",
            remedy=f"Found it by its page {PATH}, or by `tma-central init`.",
            retry_after_s=_RETRY_S,
        )
        return problems.response(waits)

    async def asked(self, _request: web.Request) -> web.Response:
        """Show the form."""
        return self._ended() if self.done.is_set() else self._form(self._defaults)

    async def found(self, request: web.Request) -> web.Response:
        """Found, and show what is shown once."""
        fields = await form(request)
        try:
            self._code.require(fields.get("code", ""), request.remote or "")
            order = self._order(fields)
            async with self._one:
                self._shown = ""  # even if this fails, the secret of before may be worthless
                founded, was_begun = await self._made(order)
                self._shown = self._random(16).hex()
        except TmaError as error:
            return self._form(fields, error)
        if founded.recovery_secret is None:  # confirmed meanwhile, in another window
            return self._ended()
        context = {"founded": founded, "shown": self._shown, "was_begun": was_begun}
        return self.pages.render("central.admin/setup_secret.html", context)

    async def confirmed(self, request: web.Request) -> web.Response:
        """Let central begin: the secret that was shown last is in safe hands."""
        shown = (await form(request)).get("shown", "")
        async with self._one:
            if not self._shown or not hmac.compare_digest(shown.encode(), self._shown.encode()):
                raise ForbiddenError(
                    "This recovery secret is not the one that was shown last: it is worthless.",
                    remedy="Ask for another one on the setup page.",
                )
            await self._confirm()
        self.done.set()
        return self._ended()

    async def _made(self, order: FirstOrder) -> tuple[Founded, bool]:
        """Found; tells too whether there were CAs before."""
        was_begun = await self._stage() is not Stage.NOTHING
        try:
            return await self._found(order), was_begun
        finally:
            self._is_begun = await self._stage() is not Stage.NOTHING

    def _order(self, fields: Mapping[str, str]) -> FirstOrder:
        """Make the order of the form; raises InvalidFieldsError."""
        given = {name: fields.get(name, "").strip() for name in self._defaults}
        if self._is_begun:  # the CAs are named: what could name them is not asked for any more
            given = {"organization": "-", "admin": given["admin"]}
        for name in _NAMES:
            if given.get(name) == self._defaults[name]:
                given[name] = ""  # left as it was: it follows the organization
        wanted: dict[str, Any] = {**given, "days": given.get("days") or None}
        wrong: dict[str, str] = {}
        if fields.get("again") != fields.get("password"):
            wrong["again"] = "The two passwords are not the same."
        try:
            order = FirstOrder.model_validate(wanted | {"password": fields.get("password", "")})
        except ValidationError as error:
            raise InvalidFieldsError(_pointed(wrong | _sentences(error))) from error
        if wrong:
            raise InvalidFieldsError(_pointed(wrong))
        return order

    def _ended(self) -> web.Response:
        return self.pages.render("central.admin/setup_done.html", {})

    def _form(self, fields: Mapping[str, str], error: TmaError | None = None) -> web.Response:
        said = {name: fields.get(name, "") for name in self._defaults}
        context = {
            "fields": said | dict.fromkeys(_SECRETS, ""),
            "wrong": _wrong(error),
            "error": error,
            "is_begun": self._is_begun,
            "key_types": [kind.value for kind in keys.MADE_HERE],
        }
        if error is None:
            return self.pages.render("central.admin/setup.html", context)
        return self.pages.render(
            "central.admin/setup.html",
            context,
            status=error.http_status,
            headers=problems.headers(error),
        )


def _sentences(error: ValidationError) -> dict[str, str]:
    """Say of each field what is wrong with it."""
    found: dict[str, str] = {}
    for one in error.errors():
        field = str(one["loc"][0])
        found[field] = str(one.get("ctx", {}).get("error") or _RULES[field])
    return found


def _pointed(wrong: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"/{field}", sentence) for field, sentence in wrong.items()]


def _wrong(error: TmaError | None) -> dict[str, str]:
    """Give what is wrong with each field of the form."""
    if isinstance(error, InvalidFieldsError):
        return {pointer.removeprefix("/"): sentence for pointer, sentence in error.fields}
    if error is None or not error.pointer:
        return {}
    more = f" {error.remedy}" if isinstance(error, BadRequestError) and error.remedy else ""
    return {error.pointer.removeprefix("/"): error.message + more}
