"""Comparing central with a gateway, by REST and from the console."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from central.identity.doors import Door
from central.scope import here, visible
from central.sync.comparing import Comparing
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission
from shared.web.auth import Principal

_SEE, _COMPARE = Permission.GATEWAY_READ, Permission.GATEWAY_COMMAND


def doors(comparing: Comparing) -> list[Door]:
    """Give what REST and the console have; each act judges for the gateway that it is about."""

    async def last(request: web.Request, who: Principal) -> Any:
        name = visible(request.match_info["name"], who)
        found = await comparing.last(name)
        if found is None:
            raise NotFoundError(
                f"Nothing was compared with the gateway {name} yet.",
                remedy="Compare now, or wait: it is done by itself once it is online and drained.",
            )
        return {"id": name, **found}

    async def compare(request: web.Request, who: Principal) -> Any:
        name = visible(request.match_info["name"], who)
        who.require(_COMPARE, on=here(name))
        return await comparing.compare(name, who.name)

    place = "/gateways/{name}"
    return [
        Door(_SEE, "GET", f"{place}/comparison", "comparison", last, judges_itself=True),
        Door(_COMPARE, "POST", f"{place}/compare", "comparison", compare, judges_itself=True),
    ]


def compared(found: Mapping[str, Any]) -> str:
    """Say in a sentence what came of a comparison."""
    said = [
        sentence.format(found[name])
        for name, sentence in (
            ("repaired", "{:,} became known here."),
            ("ordered", "{:,} were revoked or held here only: the gateway is told again."),
            ("only_here", "{:,} are known here only: see the open questions."),
        )
        if found[name]
    ]
    return " ".join(said) or "Nothing differs."
