"""The pages of the hierarchy: every CA as a tree, one CA, and what may be made of it."""

from typing import Any, get_args

from aiohttp import web

from central.admin.frame import Frame, form, see_other
from central.authority.administration import Administration
from central.authority.doors import one_root
from central.authority.orders import CertificatesOrder, CreateOrder, PartitionOrder, RequestOrder
from shared.pki import formats
from shared.pki.key_types import KeyType
from shared.pki.partitions import Count
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.console import order_of

_READ, _WRITE = Permission.AUTHORITY_READ, Permission.AUTHORITY_WRITE
_FORM_BYTES_MAX = 96 * 1024
_NUMBERS = frozenset({"days", "path_length", "crl_partitions"})
_ONE = "/authorities/{ca_id:[0-9a-f]{40}}"


def routes(frame: Frame, authorities: Administration) -> list[web.RouteDef]:
    """Give the routes; who may not write sees the tree and no form."""
    pages = _Pages(frame, authorities)
    read, write = frame.guarded, frame.guarded
    return [
        web.get("/authorities", read(_READ, pages.listed)),
        web.post("/authorities", write(_WRITE, pages.create)),
        web.post("/authorities/request", write(_WRITE, pages.request)),
        web.post("/authorities/install", write(_WRITE, pages.install)),
        web.post("/authorities/trust", write(_WRITE, pages.trust)),
        web.get(_ONE, read(_READ, pages.shown)),
        web.get(f"{_ONE}/certificates.pem", read(_READ, pages.pem)),
        web.post(f"{_ONE}/roll-over", write(_WRITE, pages.roll_over)),
        web.post(f"{_ONE}/partition", write(_WRITE, pages.partition)),
        web.post(f"{_ONE}/retire", write(_WRITE, pages.retire)),
        web.post(f"{_ONE}/delete", write(_WRITE, pages.delete)),
    ]


class _Pages:
    """The handlers."""

    def __init__(self, frame: Frame, authorities: Administration) -> None:
        self._frame = frame
        self._authorities = authorities

    async def listed(self, _request: web.Request, who: Principal) -> web.Response:
        who.require(_READ)
        rows = await self._authorities.listed()
        context = {
            "authorities": rows,
            "parents": [
                row
                for row in rows
                if row["state"] == "active" and row["key"] == "here" and row["kind"] != "issuing"
            ],
            "key_types": [kind.value for kind in KeyType],
        }
        return self._frame.show("authorities.html", who, "authorities", context)

    async def shown(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_READ)
        shown = await self._authorities.shown(_id(request))
        context = {"ca": shown, "counts": get_args(Count)}
        return self._frame.show("authority.html", who, "authorities", context)

    async def pem(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_READ)
        ca_id = _id(request)
        return web.Response(
            text=formats.pem(await self._authorities.certificates(ca_id)),
            content_type="application/x-pem-file",
            headers={"Content-Disposition": f'attachment; filename="{ca_id[:16]}.pem"'},
        )

    async def create(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        fields = await _filled(request)
        ca_id = await self._authorities.create(_order(CreateOrder, fields), who.name)
        return see_other(f"/authorities/{ca_id}")

    async def request(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        order = _order(RequestOrder, await _filled(request))
        csr = formats.request_pem(await self._authorities.request(order, who.name))
        context = {"name": order.name, "csr": csr}
        return self._frame.show("authority_request.html", who, "authorities", context)

    async def install(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        order = _order(CertificatesOrder, await _filled(request))
        ders = formats.certificates(order.pem.encode())
        return see_other(f"/authorities/{await self._authorities.install(ders, who.name)}")

    async def trust(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        order = _order(CertificatesOrder, await _filled(request))
        ca_id = await self._authorities.trust(one_root(order.pem), order.name, who.name)
        return see_other(f"/authorities/{ca_id}")

    async def roll_over(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        return see_other(
            f"/authorities/{await self._authorities.roll_over(_id(request), who.name)}"
        )

    async def partition(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        order = _order(PartitionOrder, await _filled(request))
        await self._authorities.partition(_id(request), order.crl_partitions, who.name)
        return see_other(f"/authorities/{_id(request)}")

    async def retire(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        await self._authorities.retire(_id(request), who.name)
        return see_other(f"/authorities/{_id(request)}")

    async def delete(self, request: web.Request, who: Principal) -> web.Response:
        who.require(_WRITE)
        await self._authorities.delete(_id(request), who.name)
        return see_other("/authorities")


def _id(request: web.Request) -> str:
    return request.match_info["ca_id"]


async def _filled(request: web.Request) -> dict[str, Any]:
    """Read a form; what was left empty was not said."""
    fields = await form(request, _FORM_BYTES_MAX)
    return {name: value.strip() for name, value in fields.items() if value.strip()}


def _order(model: Any, fields: dict[str, Any]) -> Any:
    """Make an order of a form's texts; raises BadRequestError naming the field that is wrong."""
    numbers = {
        name: int(value)
        for name, value in fields.items()
        if name in {"days", "path_length", "crl_partitions"}
        and value.isascii()
        and value.isdecimal()
    }
    return order_of(model, **fields | numbers)
