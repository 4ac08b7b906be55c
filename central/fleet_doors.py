"""Gateways and stations by REST: lists in pages, by name, filtered by their metadata."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from central.identity.doors import Door
from central.inventory.models import GatewayView
from central.inventory.reads import Inventory
from central.metadata import filters
from central.metadata.orders import ADDRESSES, Kind
from central.operations import Operations
from central.scope import lines_of
from shared.enroll.rest import documents
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.pages import utc_text

_GATEWAYS, _STATIONS = Permission.GATEWAY_READ, Permission.STATION_READ


def doors(inventory: Inventory, operations: Operations) -> list[Door]:
    """Give the lists; gateways are those of the lines that one may read."""

    async def gateways(request: web.Request, who: Principal) -> web.Response:
        who.require_somewhere(_GATEWAYS)
        asked = filters.page(request.query)
        found, more = await inventory.metadata.page(
            Kind.GATEWAY,
            filters.of_page(asked),
            after=asked.after,
            size=asked.size,
            within=lines_of(who, _GATEWAYS),
        )
        rows = [_shown(view) for view in await inventory.gateways(frozenset(found))]
        return _answer(request, Kind.GATEWAY, asked, more, rows, found)

    async def stations(request: web.Request, _who: Principal) -> web.Response:
        asked = filters.page(request.query)
        found, more = await inventory.metadata.page(
            Kind.STATION, filters.of_page(asked), after=asked.after, size=asked.size
        )
        rows = await operations.stations(found)
        return _answer(request, Kind.STATION, asked, more, rows, found)

    return [
        Door(_GATEWAYS, "GET", "/gateways", "gateway", gateways, judges_itself=True),
        Door(_STATIONS, "GET", "/stations", "station", stations),
    ]


def _answer(  # noqa: PLR0917 - what a page is made of
    request: web.Request,
    kind: Kind,
    asked: filters.Page,
    more: str,
    rows: list[dict[str, Any]],
    carried: Mapping[str, Mapping[str, str]],
) -> web.Response:
    data = [
        {
            "type": kind,
            "id": row["name"],
            "attributes": {**row, "metadata": carried[row["name"]]},
        }
        for row in rows
    ]
    links = {"self": request.path_qs}
    if more:
        links["next"] = asked.link(ADDRESSES[kind], more)
    return documents.answer(documents.encode({"data": data, "links": links}))


def _shown(gateway: GatewayView) -> dict[str, Any]:
    return {
        "name": gateway.name,
        "state": gateway.state,
        "state_reason": gateway.state_reason,
        "link": gateway.link,
        "link_since": utc_text(gateway.link_since_us),
        "last_contact": utc_text(gateway.last_contact_us),
        "backlog": gateway.backlog,
        "applied": gateway.applied,
        "waiting": gateway.waiting,
        "version": gateway.version,
        "ca_id": gateway.ca_id,
    }
