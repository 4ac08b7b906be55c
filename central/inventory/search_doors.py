"""Search by REST and at the console's socket."""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from pydantic import Field

from central.identity.doors import Door
from central.inventory.search import ROWS_MAX, Export, Search
from shared.enroll.rest import documents
from shared.enroll.rest.rendering import BASE
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web import problems
from shared.web.auth import Principal
from shared.web.console import Order, Text, read_order

_READ = Permission.CERTIFICATE_READ
_PAGE_ROWS = 50
_TYPES = {
    Export.CSV: "text/csv",
    Export.JSON: "application/x-ndjson",
    Export.PEM: "application/x-pem-file",
}


class KeepOrder(Order):
    """Keep a query; a shared one is offered to everybody."""

    query: str = Field(max_length=512)
    shared: bool = False


class FindOrder(Order):
    """Search; ``after`` is that of the page before."""

    query: str = Field(default="", max_length=512)
    after: Text | None = None
    limit: int = Field(default=_PAGE_ROWS, ge=1, le=ROWS_MAX)


class ExportOrder(Order):
    """Give one part of an export; ``after`` is that of the part before."""

    query: str = Field(default="", max_length=512)
    after: Text | None = None
    form: Export


def console_doors(search: Search) -> list[Door]:
    """Give what the socket has: pages come as one object."""

    async def find(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, FindOrder)
        rows, after = await search.page(
            order.query, who, after=order.after or "", limit=order.limit
        )
        behind = (await search.progress()).behind
        return {"rows": rows, "after": after, "behind": behind}

    async def export(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, ExportOrder)
        part, after = await search.part(order.query, who, order.form, order.after or "")
        return {"written": part.decode(), "after": after}

    return [
        Door(_READ, "POST", "/search", "certificate", find, judges_itself=True),
        Door(_READ, "POST", "/search/export", "certificate", export, judges_itself=True),
        *_saved_doors(search),
    ]


def rest_doors(search: Search) -> list[Door]:
    """Give what REST has: pages are linked, exports stream."""

    async def find(request: web.Request, who: Principal) -> web.Response:
        text, size = request.query.get("q", ""), _size(request)
        after = request.query.get("page[after]", "")
        rows, more = await search.page(text, who, after=after, limit=size)
        links = {"self": request.path_qs}
        if more:
            following = {"q": text, "page[size]": size, "page[after]": more}
            links["next"] = f"{BASE}/search?{urlencode(following)}"
        data = [{"type": "certificate", "id": row["id"], "attributes": row} for row in rows]
        meta = {"not_searchable_yet": (await search.progress()).behind}
        return documents.answer(documents.encode({"data": data, "links": links, "meta": meta}))

    async def export(request: web.Request, who: Principal) -> web.StreamResponse:
        return await stream(request, search, who)

    return [
        Door(_READ, "GET", "/search", "certificate", find, judges_itself=True),
        Door(_READ, "GET", "/search/export", "certificate", export, judges_itself=True),
        *_saved_doors(search),
    ]


async def stream(request: web.Request, search: Search, who: Principal) -> web.StreamResponse:
    """Answer with an export (``q``, ``as``), page by page; raises BadRequestError before."""
    form = _form(request.query.get("as", Export.CSV.value))
    parts = search.exported(request.query.get("q", ""), who, form)
    first = await anext(parts)
    response = web.StreamResponse(headers=problems.API_HEADERS)
    response.content_type = _TYPES[form]
    response.headers["Content-Disposition"] = f'attachment; filename="certificates.{form.value}"'
    await response.prepare(request)
    await response.write(first)
    async for part in parts:
        await response.write(part)
    await response.write_eof()
    return response


def _saved_doors(search: Search) -> list[Door]:
    async def saved(_request: web.Request, who: Principal) -> Any:
        return [{"id": f"{row['owner']}/{row['name']}", **row} for row in await search.saved(who)]

    async def keep(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, KeepOrder)
        await search.keep(request.match_info["name"], order.query, who, shared=order.shared)

    async def drop(request: web.Request, who: Principal) -> Any:
        await search.drop(request.match_info["name"], who)

    return [
        Door(_READ, "GET", "/searches", "saved-search", saved, judges_itself=True),
        Door(_READ, "PUT", "/searches/{name}", "saved-search", keep, judges_itself=True),
        Door(_READ, "DELETE", "/searches/{name}", "saved-search", drop, judges_itself=True),
    ]


def _size(request: web.Request) -> int:
    text = request.query.get("page[size]", str(_PAGE_ROWS))
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:9]) <= ROWS_MAX:
        raise BadRequestError(f"page[size] is a number from 1 to {ROWS_MAX}.")
    return int(text)


def _form(name: str) -> Export:
    try:
        return Export(name)
    except ValueError as error:
        raise BadRequestError(
            f"There is no export as {name[:16]!r}.", remedy="Say as=csv, as=json or as=pem."
        ) from error
