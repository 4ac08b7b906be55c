"""The routes of the pages: what is seen and done. Every one names the permission it needs."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from central.admin import words
from central.admin.frame import Frame, form, see_other
from central.console import EndOrder, InviteOrder
from central.inventory.models import CertificateView
from central.inventory.reads import Inventory
from central.metadata.orders import Kind
from central.operations import Operations
from central.scope import lines_of, visible
from shared.issuance.status import REASONS
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, UnauthenticatedError
from shared.pki import formats
from shared.policy.rights import Permission, Place
from shared.web.auth import Principal, open_to_all
from shared.web.sessions import set_cookie
from shared.web.throttle import ThrottledError

_CONFLICTS_SHOWN = 20


def routes(frame: Frame, inventory: Inventory, operations: Operations) -> list[web.RouteDef]:
    """Give every route of the pages."""
    admin = _Admin(frame, inventory, operations)
    who = Permission
    guarded = frame.guarded
    nobody = "whoever is to log in is not logged in yet"
    return [
        web.get("/login", open_to_all(admin.login_form, nobody)),
        web.post("/login", open_to_all(admin.log_in, nobody)),
        web.post("/logout", open_to_all(admin.log_out, "it ends the session it is sent with")),
        web.get("/", frame.for_users(admin.dashboard, "it shows what one may read")),
        web.get(
            "/panel/dashboard",
            frame.for_users(admin.dashboard_panel, "it shows what one may read"),
        ),
        web.get("/certificates/{ca_id}/{serial}", guarded(who.CERTIFICATE_READ, admin.certificate)),
        web.get(
            "/certificates/{ca_id}/{serial}.pem",
            guarded(who.CERTIFICATE_READ, admin.certificate_pem),
        ),
        web.post(
            "/certificates/{ca_id}/{serial}/revoke", guarded(who.CERTIFICATE_REVOKE, admin.revoke)
        ),
        web.get("/gateways", guarded(who.GATEWAY_READ, admin.gateways)),
        web.post("/gateways", guarded(who.GATEWAY_INVITE, admin.invite)),
        web.get("/panel/gateways", guarded(who.GATEWAY_READ, admin.gateways_panel)),
        web.get("/gateways/{name}", guarded(who.GATEWAY_READ, admin.gateway)),
        web.get("/panel/gateways/{name}", guarded(who.GATEWAY_READ, admin.gateway_panel)),
        web.post("/gateways/{name}/end", guarded(who.GATEWAY_END, admin.end_gateway)),
    ]


class _Admin:
    """The handlers."""

    def __init__(self, frame: Frame, inventory: Inventory, operations: Operations) -> None:
        self._frame = frame
        self._sessions = frame.sessions
        self._show = frame.show
        self._inventory = inventory
        self._operations = operations

    # --- login ------------------------------------------------------------------------------

    async def login_form(self, request: web.Request) -> web.Response:
        return self._login(request, request.query, None)

    async def log_in(self, request: web.Request) -> web.Response:
        fields = await form(request)
        name, password = fields.get("name", ""), fields.get("password", "")
        try:
            token = await self._sessions.log_in(request, name, password)
        except (UnauthenticatedError, ThrottledError) as error:
            return self._login(request, fields, error)
        response = see_other(_next(fields))
        set_cookie(response, token)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        response = see_other("/login")
        await self._sessions.log_out(request, response)
        return response

    # --- dashboard --------------------------------------------------------------------------

    async def dashboard(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("dashboard.html", who, "dashboard", await self._dashboard(who))

    async def dashboard_panel(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("dashboard_panel.html", who, "dashboard", await self._dashboard(who))

    async def _dashboard(self, who: Principal) -> dict[str, Any]:
        seen = await self._inventory.dashboard(lines_of(who, Permission.GATEWAY_READ))
        active = [gateway for gateway in seen.gateways if gateway.state == "active"]
        online = sum(gateway.link == "online" for gateway in active)
        return {
            "totals": seen.totals,
            "questions": words.questions(seen, self._frame.now_us()),
            "online": online,
            "offline": len(active) - online,
            "backlog": sum(gateway.backlog for gateway in active),
            "newest": (
                await self._inventory.search(
                    "state:issued", who.scopes(Permission.CERTIFICATE_READ), "", 10
                )
            )[0],
        }

    # --- certificates -----------------------------------------------------------------------

    async def certificate(self, request: web.Request, who: Principal) -> web.Response:
        found = await self._readable(request, who)
        context = {
            "certificate": found,
            "remark": words.of_certificate(found.line, self._frame.now_us()),
            "reasons": REASONS,
            "may_revoke": who.may(Permission.CERTIFICATE_REVOKE, found.place),
        }
        return self._show("certificate.html", who, "certificates", context)

    async def certificate_pem(self, request: web.Request, who: Principal) -> web.Response:
        found = await self._readable(request, who)
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
        who.require(Permission.CERTIFICATE_REVOKE, on=(await self._readable(request, who)).place)
        reason = (await form(request)).get("reason", "")
        await self._operations.revoke_certificate(ca_id, serial, reason, who.name)
        return see_other(f"/certificates/{ca_id}/{serial}")

    async def _readable(self, request: web.Request, who: Principal) -> CertificateView:
        """Find a certificate; what one may not read is not there."""
        ca_id, serial = _place(request)
        found = await self._inventory.certificate(ca_id, serial)
        if not who.may(Permission.CERTIFICATE_READ, found.place):
            raise NotFoundError(f"No certificate with serial number {serial} of this CA is known.")
        return found

    # --- gateways ---------------------------------------------------------------------------

    async def gateways(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("gateways.html", who, "gateways", await self._gateways(who))

    async def gateways_panel(self, _request: web.Request, who: Principal) -> web.Response:
        return self._show("gateways_panel.html", who, "gateways", await self._gateways(who))

    async def gateway(self, request: web.Request, who: Principal) -> web.Response:
        return self._show("gateway.html", who, "gateways", await self._gateway(request, who))

    async def gateway_panel(self, request: web.Request, who: Principal) -> web.Response:
        return self._show("gateway_panel.html", who, "gateways", await self._gateway(request, who))

    async def invite(self, request: web.Request, who: Principal) -> web.Response:
        fields = await form(request)
        try:
            order = InviteOrder(name=fields.get("name", "").strip())
        except ValidationError as error:
            raise BadRequestError(
                "A gateway's name has 1 to 64 characters: a-z, 0-9 and dash.", pointer="/name"
            ) from error
        who.require(Permission.GATEWAY_INVITE, on=Place(line=order.name))
        token = await self._operations.invite(order.name, who.name)
        context = {"name": order.name, "token": token}
        return self._show("invited.html", who, "gateways", context)

    async def end_gateway(self, request: web.Request, who: Principal) -> web.Response:
        name = request.match_info["name"]
        who.require(Permission.GATEWAY_END, on=Place(line=name))
        try:
            order = EndOrder(name=name, reason=(await form(request)).get("reason", "").strip())
        except ValidationError as error:
            raise BadRequestError("Say why the gateway is ended.", pointer="/reason") from error
        waits = await self._operations.end_gateway(order.name, order.reason, who.name)
        return see_other(f"/gateways/{order.name}" if waits is None else "/approvals")

    async def _gateways(self, who: Principal) -> dict[str, Any]:
        now_us = self._frame.now_us()
        found = await self._inventory.gateways(lines_of(who, Permission.GATEWAY_READ))
        return {"gateways": [(gateway, words.of_gateway(gateway, now_us)) for gateway in found]}

    async def _gateway(self, request: web.Request, who: Principal) -> dict[str, Any]:
        name = visible(request.match_info["name"], who)
        found = await self._inventory.gateway(name)
        conflicts, more = await self._inventory.conflicts.find(
            {"gateway": name}, limit=_CONFLICTS_SHOWN
        )
        return {
            "gateway": found,
            "remark": words.of_gateway(found, self._frame.now_us()),
            "lanes": await self._inventory.lanes(name),
            "metadata": await self._inventory.metadata.of(Kind.GATEWAY, name),
            "conflicts": conflicts,
            "more_conflicts": bool(more),
            "meanings": words.CONFLICTS,
        }

    # --- helpers ----------------------------------------------------------------------------

    def _login(
        self, request: web.Request, fields: Mapping[str, str], error: TmaError | None
    ) -> web.Response:
        port = self._frame.card_port
        by_card = "" if port is None else str(request.url.origin().with_port(port))
        context = {
            "next": _next(fields),
            "name": fields.get("name", ""),
            "error": error,
            "by_card": by_card,
        }
        status = 200 if error is None else error.http_status
        return self._frame.bare("login.html", context, status=status)


def _next(fields: Mapping[str, str]) -> str:
    """Give where to go after the login: a page of ours, never another site."""
    wanted = fields.get("next", "/")
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if own else "/"


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["ca_id"], request.match_info["serial"]
