"""The pages of device records and one-time codes."""

import csv
import io
import shlex
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote, urlencode

from aiohttp import BodyPartReader, web

from central.admin import uploads
from central.admin.frame import Frame, form_lists, number, see_other
from central.enrollment.codes import PAGE_ROWS as CODE_ROWS
from central.enrollment.csv_files import VERDICTS, CsvImport
from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import CodesOrder
from central.inventory.reads import Inventory
from central.inventory.terms import META
from central.scope import here, lines_of, may_of
from shared.kernel.errors import BadRequestError, TmaError
from shared.policy.rights import Permission
from shared.sync.join import CENTRAL_NAME
from shared.web.auth import Principal
from shared.web.console import name_and_value, order_of

_READ, _WRITE = Permission.DEVICE_READ, Permission.DEVICE_WRITE
_PAGE_ROWS = 100
_SHOWN_MAX = 500  # verdicts on one page: refused rows first, they are what a person must look at
_CODES_BYTES_MAX = 1024 * 1024
_FILTERS: Final = ("serial", "product", "order", "line", "metadata")
_CERTIFICATES_SHOWN = 20


def routes(
    frame: Frame, operations: EnrollmentOperations, inventory: Inventory
) -> list[web.RouteDef]:
    """Give every route of these pages."""
    pages = _DevicePages(frame, operations, inventory)
    guarded = frame.guarded
    return [
        web.get("/devices", guarded(_READ, pages.devices)),
        web.post("/devices/import", guarded(_WRITE, pages.import_csv)),
        web.get("/devices/{serial}", guarded(_READ, pages.device)),
        web.post("/devices/{serial}/remove", guarded(_WRITE, pages.remove)),
        web.get("/codes", guarded(_READ, pages.codes)),
        web.post("/codes", guarded(_WRITE, pages.make_codes)),
    ]


class _DevicePages:
    def __init__(
        self, frame: Frame, operations: EnrollmentOperations, inventory: Inventory
    ) -> None:
        self._frame = frame
        self._operations = operations
        self._inventory = inventory

    # --- records ----------------------------------------------------------------------------

    async def devices(self, request: web.Request, who: Principal) -> web.Response:
        wanted = {
            name: value for name in _FILTERS if (value := request.query.get(name, "").strip())
        }
        after = request.query.get("after", "")
        filters = {name: value for name, value in wanted.items() if name != "metadata"}
        if "metadata" in wanted:
            name, value = name_and_value(wanted["metadata"])
            filters[f"{META}{name}"] = value
        found = await self._operations.devices(filters, after, lines_of(who, _READ))
        last = found[-1]["serial"] if len(found) == _PAGE_ROWS else None
        context = {
            "devices": found,
            "wanted": {name: wanted.get(name, "") for name in _FILTERS},
            "searched": bool(wanted),
            "first": f"/devices?{urlencode(wanted)}" if after else None,
            "next": last and f"/devices?{urlencode({**wanted, 'after': last})}",
        }
        return self._frame.show("devices.html", who, "devices", context)

    async def device(self, request: web.Request, who: Principal) -> web.Response:
        serial = request.match_info["serial"]
        record = await self._operations.device(serial, lines_of(who, _READ))
        codes = await self._codes_of(who, serial=serial)
        certificates, _more = await self._inventory.search(
            f"device:{shlex.quote(serial)}",
            who.scopes(Permission.CERTIFICATE_READ),
            "",
            _CERTIFICATES_SHOWN,
        )
        context = {
            "record": record,
            "certificates": certificates,
            "codes": [one for one in codes if one.serial == serial],
            "may_change": may_of(who, _WRITE)(record["line"]),
        }
        return self._frame.show("device.html", who, "devices", context)

    async def remove(self, request: web.Request, who: Principal) -> web.Response:
        serial = request.match_info["serial"]
        await self._operations.remove_device(serial, who.name, may_of(who, _WRITE))
        return see_other("/devices")

    async def import_csv(self, request: web.Request, who: Principal) -> web.Response:
        """Take the file as it streams in; show what became of its rows, the refused ones first."""
        async for part in uploads.parts(request):
            if part.name == "file" and part.filename:
                return await self._import(request, who, part)
        raise BadRequestError("No file was chosen.", remedy="Choose a CSV file in UTF-8.")

    async def _import(
        self, request: web.Request, who: Principal, part: BodyPartReader
    ) -> web.Response:
        dry_run = request.query.get("dry_run") == "true"
        file = CsvImport(self._operations, part.readline, who.name, may_of(who, _WRITE), dry_run)
        counts = dict.fromkeys(VERDICTS, 0)
        refused: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        error: TmaError | None = None
        try:
            async for verdict in _each(file):
                counts[verdict["verdict"]] += 1
                shown = refused if verdict["verdict"] == "refused" else others
                if len(shown) < _SHOWN_MAX:
                    shown.append(verdict)
        except TmaError as caught:
            error = caught
        context = {
            "name": part.filename,
            "dry_run": dry_run,
            "counts": counts,
            "rows": sum(counts.values()),
            "verdicts": [*refused, *others][:_SHOWN_MAX],
            "error": error,
            "left_at": file.row,
        }
        status = 200 if error is None else error.http_status
        return self._frame.show("imported.html", who, "devices", context, status=status)

    # --- one-time codes ---------------------------------------------------------------------

    async def codes(self, request: web.Request, who: Principal) -> web.Response:
        serial = request.query.get("serial", "").strip()
        gateway = request.query.get("gateway", "").strip()
        after = request.query.get("after", ""), number(request.query.get("number", "0"))
        found = await self._codes_of(who, serial=serial, gateway=gateway, after=after)
        wanted = {"serial": serial, "gateway": gateway}
        more = None
        if len(found) == CODE_ROWS:
            last = {"after": found[-1].serial, "number": found[-1].number}
            more = f"/codes?{urlencode(wanted | last)}"
        seen = await self._inventory.gateways(lines_of(who, _WRITE))
        boxes = [one.name for one in seen if one.state == "active"]
        context = {
            "codes": found,
            "wanted": wanted,
            "searched": bool(serial or gateway),
            "first": f"/codes?{urlencode(wanted)}" if after[0] else None,
            "next": more,
            "boxes": [*boxes, *([CENTRAL_NAME] if who.may(_WRITE) else [])],
            "aliases": [one.name for one in self._operations.registry.everything.aliases],
            "serials": request.query.get("for", ""),
        }
        return self._frame.show("codes.html", who, "devices", context)

    async def make_codes(self, request: web.Request, who: Principal) -> web.Response:
        """Make codes and give them as a file, this once."""
        fields = await form_lists(request, _CODES_BYTES_MAX)
        lines = fields.get("serials", [""])[0].splitlines()
        order = order_of(
            CodesOrder,
            serials=tuple(line.strip() for line in lines if line.strip()),
            gateway=fields.get("gateway", [""])[0],
            alias=fields.get("alias", ["*"])[0],
            days=fields.get("days", ["30"])[0],
        )
        who.require(_WRITE, on=here(order.gateway))
        made = await self._operations.make_codes(order, who.name)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["serial", "code"])
        writer.writerows([one["serial"], one["code"]] for one in made)
        name = quote(f"codes-{order.gateway}.csv")
        return web.Response(
            text=text.getvalue(),
            content_type="text/csv",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    async def _codes_of(self, who: Principal, **wanted: Any) -> list[Any]:
        lines = lines_of(who, _READ)
        return await self._operations.codes.listed(
            **wanted, boxes=lines, now_us=self._frame.now_us()
        )


async def _each(file: CsvImport) -> AsyncIterator[dict[str, Any]]:
    async for verdicts in file.verdicts():
        for verdict in verdicts:
            yield verdict
