"""What the console of central's box may ask of the running server (``shared.web.console``)."""

from typing import Annotated, Any, Literal, Protocol

from aiohttp import web
from pydantic import Field

from shared.policy.rights import Permission
from shared.sync.join import GATEWAY_NAME_PATTERN
from shared.web.console import Name, Order, RevokeOrder, Text, command, read_order

GatewayName = Annotated[str, Field(pattern=GATEWAY_NAME_PATTERN)]


class InviteOrder(Order):
    """Make a join token for a gateway of this name."""

    name: GatewayName


class EndOrder(Order):
    """End a gateway for good: it is stolen, broken or no longer needed."""

    name: GatewayName
    reason: Text


class CommandOrder(Order):
    """Have a gateway do one thing; if it hears of it too late, it does not."""

    name: GatewayName
    command: Literal["renew-identity", "renew-authority", "sign-crl"]
    within_hours: Annotated[int, Field(ge=1, le=24 * 366)] = 7 * 24


class StationOrder(Order):
    """Make a station; its token ends after ``days``."""

    name: Name
    role: Literal["station", "admin", "auditor"] = "station"
    profiles: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)] = ("*",)
    days: Annotated[int, Field(ge=1, le=3650)] = 365


class Console(Protocol):
    """The commands; ``actor`` reads ``user:<login>``."""

    async def invite(self, name: str, actor: str) -> str:
        """Give the join token as text."""
        ...

    async def gateways(self) -> list[dict[str, Any]]:
        """List the gateways."""
        ...

    async def end_gateway(self, name: str, reason: str, actor: str) -> int | None:
        """End a gateway, or give the number under which it waits for a second person.

        Raises NotFoundError.
        """
        ...

    async def command_gateway(self, order: CommandOrder, actor: str) -> str:
        """Order one thing of a gateway; gives the command's id; raises NotFoundError."""
        ...

    async def add_station(self, order: StationOrder, actor: str) -> str:
        """Make a station; gives its token, which is kept as a hash only."""
        ...

    async def stations(self) -> list[dict[str, Any]]:
        """List the stations."""
        ...

    async def revoke_station(self, name: str, actor: str) -> None:
        """End a station's token; raises NotFoundError."""
        ...

    async def revoke(self, serial: str, reason: str, actor: str) -> dict[str, str]:
        """Revoke; gives the certificate's ca_id, serial and status."""
        ...


def routes(console: Console) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def invite(request: web.Request, actor: str) -> Any:
        order = await read_order(request, InviteOrder)
        return {"token": await console.invite(order.name, actor)}

    async def gateways(_request: web.Request, _actor: str) -> Any:
        return await console.gateways()

    async def end_gateway(request: web.Request, actor: str) -> Any:
        order = await read_order(request, EndOrder)
        number = await console.end_gateway(order.name, order.reason, actor)
        return None if number is None else {"approval": number}

    async def command_gateway(request: web.Request, actor: str) -> Any:
        order = await read_order(request, CommandOrder)
        return {"command_id": await console.command_gateway(order, actor)}

    async def add_station(request: web.Request, actor: str) -> Any:
        order = await read_order(request, StationOrder)
        return {"token": await console.add_station(order, actor)}

    async def stations(_request: web.Request, _actor: str) -> Any:
        return await console.stations()

    async def revoke_station(request: web.Request, actor: str) -> Any:
        return await console.revoke_station(request.match_info["name"], actor)

    async def revoke(request: web.Request, actor: str) -> Any:
        order = await read_order(request, RevokeOrder)
        return await console.revoke(order.serial, order.reason, actor)

    return [
        web.post("/gateways", command(Permission.GATEWAY_INVITE, invite)),
        web.get("/gateways", command(Permission.GATEWAY_READ, gateways)),
        web.post("/gateways/end", command(Permission.GATEWAY_END, end_gateway)),
        web.post("/gateways/command", command(Permission.GATEWAY_COMMAND, command_gateway)),
        web.post("/stations", command(Permission.STATION_WRITE, add_station)),
        web.get("/stations", command(Permission.STATION_READ, stations)),
        web.delete("/stations/{name}", command(Permission.STATION_WRITE, revoke_station)),
        web.post("/revoke", command(Permission.CERTIFICATE_REVOKE, revoke)),
    ]
