"""REST of central for device records and one-time codes: ``/api/v2.0/devices``, ``/codes``."""

import csv
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import CodesOrder, ImportOrder
from central.enrollment.records import IMPORT_ROWS_MAX
from shared.enroll.rest import documents
from shared.enroll.rest.rendering import BASE
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, TooLargeError
from shared.policy.rights import Permission
from shared.web import problems
from shared.web.app import read_body
from shared.web.auth import Authenticator, needs

_LINE_BYTES_MAX = 32 * 1024
_ROWS_MAX = 1_000_000
_PAGE_ROWS = 100
_READ, _WRITE = Permission.DEVICE_READ, Permission.DEVICE_WRITE


def routes(
    operations: EnrollmentOperations, authenticator: Authenticator
) -> list[web.AbstractRouteDef]:
    """Give the routes; administrators change, auditors read."""
    rest = _Rest(operations, authenticator)
    return [
        web.get(f"{BASE}/devices", needs(_READ, rest.search)),
        web.post(f"{BASE}/devices/import", needs(_WRITE, rest.import_csv)),
        web.get(f"{BASE}/devices/{{serial}}", needs(_READ, rest.fetch)),
        web.delete(f"{BASE}/devices/{{serial}}", needs(_WRITE, rest.remove)),
        web.post(f"{BASE}/codes", needs(_WRITE, rest.codes)),
    ]


class _Rest:
    def __init__(self, operations: EnrollmentOperations, authenticator: Authenticator) -> None:
        self._operations = operations
        self._authenticator = authenticator

    async def search(self, request: web.Request) -> web.Response:
        """Search: ``filter[serial]`` (a beginning), product, order, line; ``page[after]``."""
        await self._require(request, _READ)
        filters = {
            name.removeprefix("filter[").removesuffix("]"): value
            for name, value in request.query.items()
            if name.startswith("filter[")
        }
        found = await self._operations.devices(filters, request.query.get("page[after]", ""))
        links = {}
        if len(found) == _PAGE_ROWS:
            query = {**request.query, "page[after]": found[-1]["serial"]}
            links["next"] = str(request.rel_url.with_query(query))
        data = [_resource(record) for record in found]
        return documents.answer(documents.encode({"data": data, "links": links}))

    async def fetch(self, request: web.Request) -> web.Response:
        """Give one record."""
        await self._require(request, _READ)
        serial = request.match_info["serial"]
        found = await self._operations.devices({"serial": serial}, "")
        if not found or found[0]["serial"] != serial:
            raise NotFoundError(f"The device {serial} is not known.")
        return documents.answer(documents.encode({"data": _resource(found[0])}))

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a device."""
        actor = await self._require(request, _WRITE)
        await self._operations.remove_device(request.match_info["serial"], actor)
        return web.Response(status=204, headers=problems.API_HEADERS)

    async def codes(self, request: web.Request) -> web.Response:
        """Make one-time codes; they are answered this once."""
        actor = await self._require(request, _WRITE)
        documents.require_json(request)
        order = documents.parse(CodesOrder, await read_body(request, 1024 * 1024))
        made = await self._operations.make_codes(order, actor)
        return documents.answer(documents.encode({"data": made}), status=201)

    async def import_csv(self, request: web.Request) -> web.StreamResponse:
        """Take a CSV file as it streams in; a line of JSON per row streams out, at last the sums.

        A row is one line: quoted line breaks are refused. ``?dry_run=true`` keeps nothing. A header
        that cannot be read is a problem document; from then on the answer is 200 and each row
        speaks for itself.
        """
        actor = await self._require(request, _WRITE)
        dry_run = request.query.get("dry_run") == "true"
        header = [name.strip() for name in _cells(await _line(request))]
        rows, ended = await _rows(request)
        verdicts = await self._import(header, rows, 2, dry_run=dry_run, actor=actor)
        response = web.StreamResponse(headers=problems.API_HEADERS)
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        counts = dict.fromkeys(("added", "changed", "same", "refused"), 0)
        first = 2
        try:
            while True:
                for verdict in verdicts:
                    counts[verdict["verdict"]] += 1
                lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in verdicts)
                await response.write("".join(lines).encode())
                first += len(rows)
                if ended:
                    break
                if first > _ROWS_MAX:
                    raise TooLargeError(f"At most {_ROWS_MAX} rows are taken from one file.")
                rows, ended = await _rows(request)
                verdicts = await self._import(header, rows, first, dry_run=dry_run, actor=actor)
            last: dict[str, Any] = {"summary": counts, "dry_run": dry_run}
        except TmaError as error:
            last = {"summary": counts, "error": error.message, "row": first}
        await response.write((json.dumps(last) + "\n").encode())
        await response.write_eof()
        return response

    async def _import(
        self, header: Sequence[str], rows: list[list[str]], first: int, *, dry_run: bool, actor: str
    ) -> list[dict[str, Any]]:
        try:
            order = ImportOrder(
                header=tuple(header),
                rows=tuple(tuple(row) for row in rows),
                first_row=first,
                dry_run=dry_run,
            )
        except ValidationError as error:
            raise BadRequestError("The first line must name up to 64 columns.") from error
        return await self._operations.import_devices(order, actor)

    async def _require(self, request: web.Request, permission: Permission) -> str:
        principal = await self._authenticator.principal(request)
        principal.require(permission)
        return principal.name


async def _rows(request: web.Request) -> tuple[list[list[str]], bool]:
    """Read the next rows; tells whether they are the last ones."""
    rows: list[list[str]] = []
    while len(rows) < IMPORT_ROWS_MAX:
        line = await _line(request)
        if not line:
            return rows, True
        if line.strip():
            rows.append(_cells(line))
    return rows, False


async def _line(request: web.Request) -> str:
    try:
        line = await request.content.readline()
        if len(line) > _LINE_BYTES_MAX:
            raise TooLargeError(f"A line of the file is longer than {_LINE_BYTES_MAX} bytes.")
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequestError("The file is not written in UTF-8.") from error
    except ValueError as error:
        raise TooLargeError(
            f"A line of the file is longer than {_LINE_BYTES_MAX} bytes."
        ) from error


def _cells(line: str) -> list[str]:
    """Split one line; a quote that does not end in it makes the row unreadable, not the file."""
    nothing: list[str] = []
    try:
        return next(csv.reader([line], strict=True), nothing)
    except csv.Error:
        return nothing


def _resource(record: dict[str, Any]) -> dict[str, Any]:
    return {"type": "device", "id": record["serial"], "attributes": record}
