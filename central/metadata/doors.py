"""Metadata by REST, below each object, and at the console's socket."""

from functools import partial
from typing import Any

from aiohttp import web

from central.identity.doors import Door
from central.metadata import filters
from central.metadata.operations import CARRIERS, Metadata
from central.metadata.orders import ADDRESSES, Kind, MetadataOrder
from shared.enroll.rest import documents
from shared.web.app import read_body
from shared.web.auth import Principal


def doors(metadata: Metadata) -> list[Door]:
    """Give what REST and the console have; each act judges for the object that it is about."""

    async def shown(request: web.Request, who: Principal, kind: Kind) -> Any:
        about = request.match_info["id"]
        return {"id": about, "metadata": await metadata.shown(kind, about, who)}

    async def change(request: web.Request, who: Principal, kind: Kind) -> Any:
        about = request.match_info["id"]
        order = documents.parse(MetadataOrder, await read_body(request))
        return {"id": about, "metadata": await metadata.change(kind, about, order.metadata, who)}

    return [
        Door(
            permission,
            method,
            f"{ADDRESSES[kind]}/{{id}}/metadata",
            "metadata",
            partial(act, kind=kind),
            judges_itself=True,
        )
        for kind, carrier in CARRIERS.items()
        for permission, method, act in (
            (carrier.read, "GET", shown),
            (carrier.write, "PATCH", change),
        )
    ]


def console_doors(metadata: Metadata) -> list[Door]:
    """Give what the console has: besides, what finds objects of one kind, page by page."""

    async def find(request: web.Request, _who: Principal, kind: Kind) -> Any:
        asked = filters.page(request.query)
        found, more = await metadata.page(kind, filters.of_page(asked), after=asked.after)
        return {
            "rows": [{"id": about, "metadata": pairs} for about, pairs in found.items()],
            "after": more,
        }

    finding = [
        Door(carrier.read, "GET", f"/metadata/{kind}", "metadata", partial(find, kind=kind))
        for kind, carrier in CARRIERS.items()
    ]
    return [*doors(metadata), *finding]
