"""The page of what is held of a gateway: its histories, if it is two, and the comparison."""

from urllib.parse import quote

from aiohttp import web
from pydantic import ValidationError

from central.admin.frame import Frame, form, see_other
from central.comparison_doors import compared
from central.history_doors import DecideOrder, require_may_decide
from central.scope import here, visible
from central.sync.comparing import Comparing
from central.sync.histories import HERE, Histories, undecided
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web.auth import Principal

#: What each state of a history means.
_MEANINGS = {
    HERE: "The history that central holds",
    "open": "Another box: it waits for a decision",
    "outcast": "Set aside",
    "heir": "Chosen: it takes back what is held here, then it goes on",
    "done": "Chosen, and went on",
}


def routes(frame: Frame, histories: Histories, comparing: Comparing) -> list[web.RouteDef]:
    """Give the routes; who may is judged for the line."""

    async def shown(request: web.Request, who: Principal) -> web.Response:
        name = visible(request.match_info["name"], who)
        last = await comparing.last(name)
        found = await histories.of(name)
        context = {
            "name": name,
            "histories": found,
            "undecided": undecided(found),
            "meanings": _MEANINGS,
            "compared": last,
            "outcome": "" if last is None else compared(last),
        }
        return frame.show("histories.html", who, "gateways", context)

    async def decide(request: web.Request, who: Principal) -> web.Response:
        name = visible(request.match_info["name"], who)
        fields = await form(request)
        try:
            order = DecideOrder(
                keep=fields.get("keep", ""),
                reason=fields.get("reason", "").strip(),
                revoke="revoke" in fields,
            )
        except ValidationError as error:
            raise BadRequestError("Choose who goes on, and say why: it is recorded.") from error
        require_may_decide(who, name, revoke=order.revoke)
        await histories.decide(name, order.keep, order.reason, who.name, revoke=order.revoke)
        return see_other(f"/gateways/{quote(name, safe='')}/histories")

    async def compare(request: web.Request, who: Principal) -> web.Response:
        name = visible(request.match_info["name"], who)
        who.require(Permission.GATEWAY_COMMAND, on=here(name))
        await comparing.compare(name, who.name)
        return see_other(f"/gateways/{quote(name, safe='')}/histories")

    return [
        web.post("/gateways/{name}/compare", frame.guarded(Permission.GATEWAY_COMMAND, compare)),
        web.get("/gateways/{name}/histories", frame.guarded(Permission.GATEWAY_READ, shown)),
        web.post("/gateways/{name}/decide", frame.guarded(Permission.CONFLICT_SETTLE, decide)),
    ]
