"""The histories of a gateway that is two, by REST: seen side by side, and decided once."""

from typing import Any

from aiohttp import web
from pydantic import Field

from central.identity.doors import Door
from central.scope import here, visible
from central.sync.histories import Histories
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.console import Order, Text, read_order

_SEE, _DECIDE = Permission.GATEWAY_READ, Permission.CONFLICT_SETTLE
_PLACE = "/gateways/{name}"


class DecideOrder(Order):
    """Let one history go on: ``here``, the one that central holds, or the id of another one.

    ``revoke``: what the others issued is revoked.
    """

    keep: str = Field(pattern=r"^(here|[0-9a-f]{16})$")
    reason: Text
    revoke: bool = False


def require_may_decide(who: Principal, name: str, *, revoke: bool) -> None:
    """Raise ForbiddenError unless somebody may decide for this gateway."""
    who.require(_DECIDE, on=here(name))
    if revoke:
        who.require(Permission.CERTIFICATE_REVOKE, on=here(name))


def doors(histories: Histories) -> list[Door]:
    """Give what REST and the console have; each act judges for the gateway that it is about."""

    async def listed(request: web.Request, who: Principal) -> Any:
        return await histories.of(visible(request.match_info["name"], who))

    async def decide(request: web.Request, who: Principal) -> Any:
        name = visible(request.match_info["name"], who)
        order = await read_order(request, DecideOrder)
        require_may_decide(who, name, revoke=order.revoke)
        return await histories.decide(name, order.keep, order.reason, who.name, revoke=order.revoke)

    return [
        Door(_SEE, "GET", f"{_PLACE}/histories", "history", listed, judges_itself=True),
        Door(_DECIDE, "POST", f"{_PLACE}/decide", "decision", decide, judges_itself=True),
    ]
