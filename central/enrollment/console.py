"""What the console of central's box may order about who may enroll."""

from typing import Any

from aiohttp import web

from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import CodesOrder, ImportOrder, LinesOrder, RequesterOrder
from shared.policy.access import Alias, Manufacturer
from shared.policy.rights import Permission
from shared.web.app import read_body
from shared.web.console import command, read_order

_MANUFACTURER_BYTES_MAX = 256 * 1024
_ROWS_BYTES_MAX = 4 * 1024 * 1024


def routes(operations: EnrollmentOperations) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""
    return [*_access_routes(operations), *_device_routes(operations)]


def _access_routes(operations: EnrollmentOperations) -> list[web.AbstractRouteDef]:
    async def put_alias(request: web.Request, actor: str) -> Any:
        alias = Alias.from_document((await read_body(request)).decode())
        return await operations.registry.put("alias", alias, actor)

    async def put_manufacturer(request: web.Request, actor: str) -> Any:
        body = await read_body(request, _MANUFACTURER_BYTES_MAX)
        document = Manufacturer.from_document(body.decode())
        return await operations.put_manufacturer(document, actor)

    async def add_requester(request: web.Request, actor: str) -> Any:
        order = await read_order(request, RequesterOrder)
        return {"secret": await operations.add_requester(order, actor)}

    async def listed(request: web.Request, _actor: str) -> Any:
        return operations.listed(request.match_info["kind"])

    async def remove(request: web.Request, actor: str) -> Any:
        kind = request.match_info["kind"]
        return await operations.registry.remove(kind, request.match_info["name"], actor)

    return [
        web.put("/access/alias", command(Permission.STATION_WRITE, put_alias)),
        web.put("/access/manufacturer", command(Permission.STATION_WRITE, put_manufacturer)),
        web.post("/access/requester", command(Permission.STATION_WRITE, add_requester)),
        web.get("/access/{kind}", command(Permission.STATION_READ, listed)),
        web.delete("/access/{kind}/{name}", command(Permission.STATION_WRITE, remove)),
    ]


def _device_routes(operations: EnrollmentOperations) -> list[web.AbstractRouteDef]:
    async def import_devices(request: web.Request, actor: str) -> Any:
        order = await read_order(request, ImportOrder, _ROWS_BYTES_MAX)
        return await operations.import_devices(order, actor)

    async def devices(request: web.Request, _actor: str) -> Any:
        query = dict(request.query)
        after = query.pop("after", "")
        return await operations.devices(query, after)

    async def remove_device(request: web.Request, actor: str) -> Any:
        return await operations.remove_device(request.query.get("serial", ""), actor)

    async def make_codes(request: web.Request, actor: str) -> Any:
        return await operations.make_codes(await read_order(request, CodesOrder), actor)

    async def lines(request: web.Request, actor: str) -> Any:
        order = await read_order(request, LinesOrder)
        return await operations.distribution.serve_lines(order.name, order.lines, actor)

    return [
        web.post("/devices/import", command(Permission.DEVICE_WRITE, import_devices)),
        web.get("/devices", command(Permission.DEVICE_READ, devices)),
        web.delete("/devices", command(Permission.DEVICE_WRITE, remove_device)),
        web.post("/codes", command(Permission.DEVICE_WRITE, make_codes)),
        web.put("/gateways/lines", command(Permission.GATEWAY_COMMAND, lines)),
    ]
