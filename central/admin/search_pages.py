"""The page of certificates: search by any attribute, export, queries that are kept."""

from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from central.admin.frame import Frame, form, see_other
from central.inventory import query, search_doors
from central.inventory.reads import Inventory
from central.inventory.search import Search
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web.auth import Principal

_READ = Permission.CERTIFICATE_READ
_ROWS = 50


def routes(frame: Frame, inventory: Inventory, search: Search) -> list[web.RouteDef]:
    """Give the routes; what somebody keeps is his own business, what he finds is not."""

    async def found(request: web.Request, who: Principal) -> web.Response:
        text = request.query.get("q", "")[: query.CHARS_MAX]
        after = request.query.get("after", "")
        context: dict[str, Any] = {
            "text": text,
            "after": after,
            "found": [],
            "more": "",
            "error": None,
        }
        status = 200
        try:
            context["found"], context["more"] = await inventory.search(
                text, who.scopes(_READ), after, _ROWS
            )
        except BadRequestError as error:
            context["error"], status = error, 400
        context["saved"] = await search.saved(who)
        context["behind"] = (await search.progress()).behind
        context["names"] = query.known_names()
        return frame.show("certificates.html", who, "certificates", context, status=status)

    async def export(request: web.Request, who: Principal) -> web.StreamResponse:
        return await search_doors.stream(request, search, who)

    async def keep(request: web.Request, who: Principal) -> web.Response:
        fields = await form(request)
        name, text = fields.get("name", "").strip(), fields.get("q", "").strip()
        await search.keep(name, text, who, shared="shared" in fields)
        return see_other(f"/certificates?{urlencode({'q': text}, quote_via=quote)}")

    async def drop(request: web.Request, who: Principal) -> web.Response:
        await search.drop((await form(request)).get("name", ""), who)
        return see_other("/certificates")

    return [
        web.get("/certificates", frame.guarded(_READ, found)),
        web.get("/certificates/export", frame.guarded(_READ, export)),
        web.post("/searches", frame.guarded(_READ, keep)),
        web.post("/searches/drop", frame.guarded(_READ, drop)),
    ]
