"""REST of central for device records and one-time codes: ``/api/v2.0/devices``, ``/codes``."""

import json
from typing import Any

from aiohttp import web

from central.enrollment.csv_files import VERDICTS, CsvImport
from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import CodesOrder
from central.inventory.terms import META
from central.scope import here, lines_of, may_of
from shared.enroll.rest import documents, openapi
from shared.enroll.rest.routes import Route
from shared.kernel.errors import TmaError
from shared.policy.rights import Permission
from shared.web import problems
from shared.web.app import read_body
from shared.web.auth import WHO

_PAGE_ROWS = 100
_CODES_BYTES_MAX = 1024 * 1024
_READ, _WRITE = Permission.DEVICE_READ, Permission.DEVICE_WRITE
_RECORD = {
    **dict.fromkeys(("serial", "product", "order", "line"), openapi.TEXT),
    "metadata": {"type": "object", "additionalProperties": openapi.TEXT},
}
_CODE = {"type": "object", "properties": {"serial": openapi.TEXT, "code": openapi.TEXT}}
_CODES = {"type": "object", "properties": {"data": {"type": "array", "items": _CODE}}}
_VERDICT = {"type": "object", "properties": {"verdict": {"enum": list(VERDICTS)}}}


def routes(operations: EnrollmentOperations) -> list[Route]:
    """Give the routes; each acts within the lines for which one may."""
    rest = _Rest(operations)
    filters = tuple(
        f"filter[{name}]" for name in ("serial", "product", "order", "line", f"{META}NAME")
    )
    devices = openapi.listed(_RECORD, links=True)
    return [
        Route(
            _READ, "GET", "/devices", rest.search, "Search device records by serial number",
            "Devices", query=(*filters, "page[after]"), schema=devices,
        ),
        Route(
            _WRITE, "POST", "/devices/import", rest.import_csv,
            "Import device records from CSV; a line of JSON per row streams out, at last the sums",
            "ImportVerdict", query=("dry_run",), schema=_VERDICT, takes="text/csv",
            gives="application/x-ndjson",
        ),
        Route(
            _READ, "GET", "/devices/{serial}", rest.fetch, "Fetch a device record",
            "Device", schema=openapi.single(_RECORD),
        ),
        Route(
            _WRITE, "DELETE", "/devices/{serial}", rest.remove,
            "Forget a device, at its gateways too", "Device", status=204,
        ),
        Route(
            _WRITE, "POST", "/codes", rest.codes,
            "Make one-time codes of devices for one gateway; they are answered this once",
            "Codes", status=201, body=CodesOrder, schema=_CODES,
        ),
    ]  # fmt: skip


class _Rest:
    def __init__(self, operations: EnrollmentOperations) -> None:
        self._operations = operations

    async def search(self, request: web.Request) -> web.Response:
        """Search: ``filter[serial]`` (a beginning), product, order, line, ``meta.NAME``."""
        filters = {
            name.removeprefix("filter[").removesuffix("]"): value
            for name, value in request.query.items()
            if name.startswith("filter[")
        }
        after, lines = request.query.get("page[after]", ""), lines_of(request[WHO], _READ)
        found = await self._operations.devices(filters, after, lines)
        links = {"self": str(request.rel_url)}
        if len(found) == _PAGE_ROWS:
            query = {**request.query, "page[after]": found[-1]["serial"]}
            links["next"] = str(request.rel_url.with_query(query))
        data = [_resource(record) for record in found]
        return documents.answer(documents.encode({"data": data, "links": links}))

    async def fetch(self, request: web.Request) -> web.Response:
        """Give one record."""
        lines = lines_of(request[WHO], _READ)
        found = await self._operations.device(request.match_info["serial"], lines)
        return documents.answer(documents.encode({"data": _resource(found)}))

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a device."""
        who = request[WHO]
        serial = request.match_info["serial"]
        await self._operations.remove_device(serial, who.name, may_of(who, _WRITE))
        return web.Response(status=204, headers=problems.API_HEADERS)

    async def codes(self, request: web.Request) -> web.Response:
        """Make one-time codes; they are answered this once."""
        documents.require_json(request)
        order = documents.parse(CodesOrder, await read_body(request, _CODES_BYTES_MAX))
        request[WHO].require(_WRITE, on=here(order.gateway))
        made = await self._operations.make_codes(order, request[WHO].name)
        return documents.answer(documents.encode({"data": made}), status=201)

    async def import_csv(self, request: web.Request) -> web.StreamResponse:
        """Take a CSV file as it streams in; a line of JSON per row streams out, at last the sums.

        ``?dry_run=true`` keeps nothing. A header that cannot be read is a problem document; from
        then on the answer is 200 and each row speaks for itself.
        """
        who, dry_run = request[WHO], request.query.get("dry_run") == "true"
        read_line, may = request.content.readline, may_of(who, _WRITE)
        file = CsvImport(self._operations, read_line, who.name, may, dry_run)
        verdicts = file.verdicts()
        found = await anext(verdicts)
        response = web.StreamResponse(headers=problems.API_HEADERS)
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        counts = dict.fromkeys(VERDICTS, 0)
        last: dict[str, Any] = {"summary": counts, "dry_run": dry_run}
        try:
            while found is not None:
                for verdict in found:
                    counts[verdict["verdict"]] += 1
                lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in found)
                await response.write("".join(lines).encode())
                found = await anext(verdicts, None)
        except TmaError as error:
            last = {"summary": counts, "error": error.message, "row": file.row}
        await response.write((json.dumps(last) + "\n").encode())
        await response.write_eof()
        return response


def _resource(record: dict[str, Any]) -> dict[str, Any]:
    return {"type": "device", "id": record["serial"], "attributes": record}
