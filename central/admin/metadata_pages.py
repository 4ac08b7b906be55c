"""The form for metadata on the page of an object: sets one pair, or removes one."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import quote

from aiohttp import web

from central.admin.frame import Frame, form, see_other
from central.metadata.operations import CARRIERS, Metadata
from central.metadata.orders import Kind
from shared.web.auth import Principal

#: The pages of the kinds that have some.
_PAGES: Mapping[Kind, str] = {
    Kind.CA: "/authorities",
    Kind.GATEWAY: "/gateways",
    Kind.PROFILE: "/profiles",
    Kind.USER: "/users",
}


def routes(frame: Frame, metadata: Metadata) -> list[web.RouteDef]:
    """Give the routes; who may is judged for the object."""

    async def change(request: web.Request, who: Principal, kind: Kind) -> web.Response:
        """Set the pair; a form without a value removes it."""
        about, fields = request.match_info["id"], await form(request)
        value = fields.get("value")
        pair = {fields.get("name", "").strip(): None if value is None else value.strip()}
        await metadata.change(kind, about, pair, who)
        return see_other(f"{_PAGES[kind]}/{quote(about, safe='')}")

    return [
        web.post(
            f"/metadata/{kind}/{{id}}",
            frame.guarded(CARRIERS[kind].write, partial(change, kind=kind)),
        )
        for kind in _PAGES
    ]
