"""The routes of the pages. Who may look may be an auditor; who changes is an administrator."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote

from aiohttp import web
from pydantic import ValidationError

from central.admin import words
from central.console import EndOrder, InviteOrder
from central.inventory.reads import Inventory
from central.operations import Operations
from shared.issuance.status import REASONS
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, UnauthenticatedError
from shared.pki import formats
from shared.web.app import read_body
from shared.web.auth import Principal, Role
from shared.web.pages import Pages, age_text
from shared.web.sessions import Sessions, set_cookie
from shared.web.throttle import ThrottledError

_FORM_BYTES_MAX = 8 * 1024
_PAGE_ROWS = 50
_AUDIT_ROWS = 200
_QUERY_CHARS_MAX = 128

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Page = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


def routes(
    *,
    pages: Pages,
    sessions: Sessions,
    inventory: Inventory,
    operations: Operations,
    clock: Clock,
) -> list[web.RouteDef]:
    """Give every route of the pages."""
    admin = _Admin(pages, sessions, inventory, operations, clock)
    look = partial(admin.guarded, (Role.ADMIN, Role.AUDITOR))
    change = partial(admin.guarded, (Role.ADMIN,))
    return [
        web.get("/login", admin.login_form),
        web.post("/login", admin.log_in),
        web.post("/logout", admin.log_out),
        web.get("/", look(admin.dashboard)),
        web.get("/panel/dashboard", look(admin.dashboard_panel)),
        web.get("/certificates", look(admin.certificates)),
        web.get("/certificates/{ca_id}/{serial}", look(admin.certificate)),
        web.get("/certificates/{ca_id}/{serial}.pem", look(admin.certificate_pem)),
        web.post("/certificates/{ca_id}/{serial}/revoke", change(admin.revoke)),
        web.get("/gateways", look(admin.gateways)),
        web.post("/gateways", change(admin.invite)),
        web.get("/panel/gateways", look(admin.gateways_panel)),
        web.get("/gateways/{name}", look(admin.gateway)),
        web.get("/panel/gateways/{name}", look(admin.gateway_panel)),
        web.post("/gateways/{name}/end", change(admin.end_gateway)),
        web.post("/gateways/{name}/questions/{id}", change(admin.settle)),
        web.get("/audit", look(admin.audit)),
    ]


class _Admin:
    """The handlers."""

    def __init__(
        self,
        pages: Pages,
        sessions: Sessions,
        inventory: Inventory,
        operations: Operations,
        clock: Clock,
    ) -> None:
        self._pages = pages
        self._sessions = sessions
        self._inventory = inventory
        self._operations = operations
        self._clock = clock

    def guarded(self, roles: tuple[Role, ...], page: _Page) -> _Handler:
        """Let in whom a session with one of the roles names; others go to the login."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return await page(request, await self._sessions.require(request, *roles))

        return handler

    # --- login ------------------------------------------------------------------------------

    async def login_form(self, request: web.Request) -> web.Response:
        return self._login(request.query, None)

    async def log_in(self, request: web.Request) -> web.Response:
        form = await _form(request)
        name, password = form.get("name", ""), form.get("password", "")
        try:
            token = await self._sessions.log_in(request, name, password)
        except (UnauthenticatedError, ThrottledError) as error:
            return self._login(form, error)
        response = web.Response(status=303, headers={"Location": _next(form)})
        set_cookie(response, token)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        response = web.Response(status=303, headers={"Location": "/login"})
        await self._sessions.log_out(request, response)
        return response

    # --- dashboard --------------------------------------------------------------------------

    async def dashboard(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("dashboard.html", who, "dashboard", await self._dashboard())

    async def dashboard_panel(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("dashboard_panel.html", who, "dashboard", await self._dashboard())

    async def _dashboard(self) -> dict[str, Any]:
        seen = await self._inventory.dashboard()
        active = [gateway for gateway in seen.gateways if gateway.state == "active"]
        online = sum(gateway.link == "online" for gateway in active)
        return {
            "totals": seen.totals,
            "questions": words.questions(seen, self._now_us()),
            "online": online,
            "offline": len(active) - online,
            "backlog": sum(gateway.backlog for gateway in active),
            "newest": await self._inventory.search("state:issued", 0, 10),
        }

    # --- certificates -----------------------------------------------------------------------

    async def certificates(self, request: web.Request, who: Principal) -> web.Response:
        text = request.query.get("q", "")[:_QUERY_CHARS_MAX]
        after = _number(request.query.get("after", "0"))
        found = await self._inventory.search(text, after, _PAGE_ROWS + 1)
        more = found[_PAGE_ROWS - 1].id if len(found) > _PAGE_ROWS else None
        context = {"text": text, "found": found[:_PAGE_ROWS], "more": more, "after": after}
        return self._show("certificates.html", who, "certificates", context)

    async def certificate(self, request: web.Request, who: Principal) -> web.Response:
        found = await self._inventory.certificate(*_place(request))
        context = {
            "certificate": found,
            "remark": words.of_certificate(found.line, self._now_us()),
            "reasons": REASONS,
        }
        return self._show("certificate.html", who, "certificates", context)

    async def certificate_pem(self, request: web.Request, _who: Principal) -> web.Response:
        found = await self._inventory.certificate(*_place(request))
        if found.der is None:
            raise NotFoundError("This certificate was never released, or not reported yet.")
        chain = [found.der, *(authority.der for authority in found.chain)]
        name = f'attachment; filename="{found.line.serial}.pem"'
        return web.Response(
            text=formats.pem(chain),
            content_type="application/x-pem-file",
            headers={"Content-Disposition": name, "X-Content-Type-Options": "nosniff"},
        )

    async def revoke(self, request: web.Request, who: Principal) -> web.Response:
        ca_id, serial = _place(request)
        reason = (await _form(request)).get("reason", "")
        await self._operations.revoke_certificate(ca_id, serial, reason, who.name)
        return web.Response(status=303, headers={"Location": f"/certificates/{ca_id}/{serial}"})

    # --- gateways ---------------------------------------------------------------------------

    async def gateways(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("gateways.html", who, "gateways", await self._gateways())

    async def gateways_panel(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("gateways_panel.html", who, "gateways", await self._gateways())

    async def gateway(self, request: web.Request, who: Principal) -> web.Response:
        return self._show("gateway.html", who, "gateways", await self._gateway(request))

    async def gateway_panel(self, request: web.Request, who: Principal) -> web.Response:
        return self._show("gateway_panel.html", who, "gateways", await self._gateway(request))

    async def invite(self, request: web.Request, who: Principal) -> web.Response:
        form = await _form(request)
        try:
            order = InviteOrder(name=form.get("name", "").strip())
        except ValidationError as error:
            raise BadRequestError(
                "A gateway's name has 1 to 64 characters: a-z, 0-9 and dash.", pointer="/name"
            ) from error
        token = await self._operations.invite(order.name, who.name)
        context = {"name": order.name, "token": token}
        return self._show("invited.html", who, "gateways", context)

    async def end_gateway(self, request: web.Request, who: Principal) -> web.Response:
        name = request.match_info["name"]
        try:
            order = EndOrder(name=name, reason=(await _form(request)).get("reason", "").strip())
        except ValidationError as error:
            raise BadRequestError("Say why the gateway is ended.", pointer="/reason") from error
        await self._operations.end_gateway(order.name, order.reason, who.name)
        return web.Response(status=303, headers={"Location": f"/gateways/{order.name}"})

    async def settle(self, request: web.Request, who: Principal) -> web.Response:
        await self._operations.settle(_number(request.match_info["id"]), who.name)
        address = f"/gateways/{quote(request.match_info['name'], safe='')}"
        return web.Response(status=303, headers={"Location": address})

    async def _gateways(self) -> dict[str, Any]:
        now_us = self._now_us()
        found = await self._inventory.gateways()
        return {"gateways": [(gateway, words.of_gateway(gateway, now_us)) for gateway in found]}

    async def _gateway(self, request: web.Request) -> dict[str, Any]:
        name = request.match_info["name"]
        found = await self._inventory.gateway(name)
        return {
            "gateway": found,
            "remark": words.of_gateway(found, self._now_us()),
            "lanes": await self._inventory.lanes(name),
            "conflicts": await self._inventory.conflicts(name),
            "meanings": words.CONFLICTS,
        }

    async def audit(self, _request: web.Request, who: Principal) -> web.Response:
        context = {"rows": await self._inventory.audit(_AUDIT_ROWS)}
        return self._show("audit.html", who, "audit", context)

    # --- helpers ----------------------------------------------------------------------------

    def _login(self, fields: Mapping[str, str], error: TmaError | None) -> web.Response:
        context = {"next": _next(fields), "name": fields.get("name", ""), "error": error}
        status = 200 if error is None else error.http_status
        return self._pages.render("central.admin/login.html", context, status=status)

    def _show(
        self, template: str, who: Principal, place: str, context: Mapping[str, Any]
    ) -> web.Response:
        common = {
            "who": who.name.removeprefix("user:"),
            "may_change": who.role is Role.ADMIN,
            "place": place,
            "remark_of": partial(words.of_certificate, now_us=self._now_us()),
            "ago": self._ago,
            "until": words.until_text,
        }
        return self._pages.render(f"central.admin/{template}", {**common, **context})

    def _ago(self, utc_us: int | None) -> str:
        if utc_us is None:
            return "never"
        return f"{age_text((self._now_us() - utc_us) / US_PER_SECOND)} ago"

    def _now_us(self) -> int:
        return self._clock.now().utc_us


async def _form(request: web.Request) -> dict[str, str]:
    """Read a form; of a field given twice the first counts."""
    body = await read_body(request, _FORM_BYTES_MAX)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise BadRequestError("The form cannot be read.") from error
    return {name: values[0] for name, values in fields.items()}


def _next(fields: Mapping[str, str]) -> str:
    """Give where to go after the login: a page of ours, never another site."""
    wanted = fields.get("next", "/")
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if own else "/"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - SQLite's integers
        raise BadRequestError("The page number is not a number.")
    return int(text)


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["ca_id"], request.match_info["serial"]
