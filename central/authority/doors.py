"""The hierarchy by REST: what the console's ``ca`` commands do, for administrators' programs."""

from collections.abc import Sequence
from typing import Any, Protocol

from aiohttp import web

from central.authority.orders import (
    CertificatesOrder,
    CreateOrder,
    CrossOrder,
    PartitionOrder,
    RequestOrder,
)
from central.identity.doors import Door
from central.inventory.crl_ages import CrlAges
from central.metadata import filters
from central.metadata.orders import Wanted
from shared.kernel.errors import BadRequestError
from shared.pki import formats
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.console import Order, read_order

_READ, _WRITE = Permission.AUTHORITY_READ, Permission.AUTHORITY_WRITE
ONE = "/authorities/{ca_id:[0-9a-f]{40}}"


class Nothing(Order):
    """An order that needs no words."""


class Authorities(Protocol):
    """What answers (``central.authority.administration``)."""

    async def listed(self, wanted: Wanted) -> list[dict[str, Any]]: ...  # noqa: D102
    async def shown(self, ca_id: str) -> dict[str, Any]: ...  # noqa: D102
    async def create(self, order: CreateOrder, actor: str) -> str: ...  # noqa: D102
    async def request(self, order: RequestOrder, actor: str) -> bytes: ...  # noqa: D102
    async def install(self, ders: Sequence[bytes], actor: str) -> str: ...  # noqa: D102
    async def trust(self, der: bytes, name: str, actor: str) -> str: ...  # noqa: D102
    async def cross_certify(self, order: CrossOrder, actor: str) -> bytes: ...  # noqa: D102
    async def roll_over(self, ca_id: str, actor: str) -> str: ...  # noqa: D102
    async def partition(self, ca_id: str, count: int, actor: str) -> None: ...  # noqa: D102
    async def retire(self, ca_id: str, actor: str) -> None: ...  # noqa: D102
    async def delete(self, ca_id: str, actor: str) -> None: ...  # noqa: D102


def doors(authorities: Authorities) -> list[Door]:
    """Give what REST has."""
    return [*_looking(authorities), *_making(authorities), *_ending(authorities)]


def of_crls(ages: CrlAges) -> Door:
    """Give the CRLs that are served, with how old they are."""

    async def listed(_request: web.Request, _who: Principal) -> Any:
        return [one.shown() for one in await ages.listed()]

    return Door(_READ, "GET", "/crls", "crl", listed)


def one_root(pem: str) -> bytes:
    """Read the one certificate that is to be trusted; raises BadRequestError."""
    ders = formats.certificates(pem.encode())
    if len(ders) != 1:
        raise BadRequestError("Trust one root at a time.")
    return ders[0]


def _looking(authorities: Authorities) -> list[Door]:
    async def listed(request: web.Request, _who: Principal) -> Any:
        rows = await authorities.listed(filters.wanted(request.query))
        return [{"id": row["ca_id"], **row} for row in rows]

    async def shown(request: web.Request, _who: Principal) -> Any:
        return _named(await authorities.shown(_id(request)))

    return [
        Door(_READ, "GET", "/authorities", "authority", listed),
        Door(_READ, "GET", ONE, "authority", shown),
    ]


def _making(authorities: Authorities) -> list[Door]:
    async def create(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, CreateOrder)
        return _named(await authorities.shown(await authorities.create(order, who.name)))

    async def ask(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, RequestOrder)
        csr = await authorities.request(order, who.name)
        return {"id": None, "csr": formats.request_pem(csr)}

    async def install(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, CertificatesOrder)
        ders = formats.certificates(order.pem.encode())
        return _named(await authorities.shown(await authorities.install(ders, who.name)))

    async def trust(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, CertificatesOrder)
        ca_id = await authorities.trust(one_root(order.pem), order.name, who.name)
        return _named(await authorities.shown(ca_id))

    async def cross(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, CrossOrder)
        der = await authorities.cross_certify(order, who.name)
        return {"id": order.ca_id, "certificate": formats.pem([der])}

    return [
        Door(_WRITE, "POST", "/authorities", "authority", create, created=True),
        Door(_WRITE, "POST", "/authorities/request", "authority-request", ask, created=True),
        Door(_WRITE, "POST", "/authorities/install", "authority", install, created=True),
        Door(_WRITE, "POST", "/authorities/trust", "authority", trust, created=True),
        Door(_WRITE, "POST", "/authorities/cross", "certificate", cross, created=True),
    ]


def _ending(authorities: Authorities) -> list[Door]:
    async def roll_over(request: web.Request, who: Principal) -> Any:
        await _nothing(request)
        return _named(await authorities.shown(await authorities.roll_over(_id(request), who.name)))

    async def partition(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, PartitionOrder)
        await authorities.partition(_id(request), order.crl_partitions, who.name)
        return _named(await authorities.shown(_id(request)))

    async def retire(request: web.Request, who: Principal) -> Any:
        await _nothing(request)
        await authorities.retire(_id(request), who.name)
        return _named(await authorities.shown(_id(request)))

    async def delete(request: web.Request, who: Principal) -> Any:
        await authorities.delete(_id(request), who.name)

    return [
        Door(_WRITE, "POST", f"{ONE}/roll-over", "authority", roll_over, created=True),
        Door(_WRITE, "POST", f"{ONE}/partition", "authority", partition),
        Door(_WRITE, "POST", f"{ONE}/retire", "authority", retire),
        Door(_WRITE, "DELETE", ONE, "authority", delete),
    ]


def _named(shown: dict[str, Any]) -> dict[str, Any]:
    return {"id": shown["ca_id"], **shown}


def _id(request: web.Request) -> str:
    return request.match_info["ca_id"]


async def _nothing(request: web.Request) -> None:
    """Take a body that may be left out, and holds nothing."""
    if request.can_read_body:
        await read_order(request, Nothing)
