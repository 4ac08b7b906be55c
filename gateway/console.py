"""What the console of this box may ask of the running agent (``shared.web.console``)."""

from dataclasses import asdict
from typing import Annotated, Any, Protocol

from aiohttp import web
from pydantic import Field

from gateway.snapshot import LineState, Snapshot
from gateway.verdict import verdict
from shared.policy.rights import Permission
from shared.web.console import Name, Order, RevokeOrder, Text, command, read_order


class LineOrder(Order):
    """Stop or continue the line; ``reason`` is shown on the page."""

    state: LineState
    reason: Text


class StationOrder(Order):
    """Make a station; its token ends after ``days``."""

    name: Name
    profiles: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)] = ("*",)
    days: Annotated[int, Field(ge=1, le=3650)] = 365


class HoldOrder(Order):
    """Add or release one hold id of a certificate of this gateway."""

    serial: Text
    hold_id: Text


class GoOnOrder(Order):
    """Let an old copy of the database issue without central, at most ``remaining`` more."""

    remaining: Annotated[int, Field(ge=0, le=1_000_000)]
    reason: Text


class Console(Protocol):
    """The commands; ``actor`` reads ``user:<login>``."""

    async def snapshot(self) -> Snapshot:
        """Give what the page shows."""
        ...

    async def set_line(self, order: LineOrder, actor: str) -> None:
        """Stop or continue the line."""
        ...

    async def go_on(self, order: GoOnOrder, actor: str) -> None:
        """Go on although this database is an old copy; raises ConflictError if it is none."""
        ...

    async def add_station(self, order: StationOrder, actor: str) -> str:
        """Make a station; gives its token, which is kept as a hash only."""
        ...

    async def stations(self) -> list[dict[str, Any]]:
        """List the stations: name, profiles, state and end of each."""
        ...

    async def revoke_station(self, name: str, actor: str) -> None:
        """End a station's token; raises NotFoundError."""
        ...

    async def revoke(self, order: RevokeOrder, actor: str) -> dict[str, str]:
        """Revoke; gives the certificate's ca_id, serial and status."""
        ...

    async def hold(self, order: HoldOrder, actor: str) -> dict[str, str]:
        """Add a hold; gives the certificate's ca_id, serial and status."""
        ...

    async def release_hold(self, order: HoldOrder, actor: str) -> dict[str, str]:
        """Release a hold; gives the certificate's ca_id, serial and status."""
        ...


def routes(console: Console) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def snapshot(_request: web.Request, _actor: str) -> Any:
        shown = await console.snapshot()
        judged = verdict(shown)
        return asdict(shown) | {"verdict": asdict(judged) | {"headline": judged.headline}}

    async def line(request: web.Request, actor: str) -> Any:
        await console.set_line(await read_order(request, LineOrder), actor)

    async def go_on(request: web.Request, actor: str) -> Any:
        await console.go_on(await read_order(request, GoOnOrder), actor)

    async def add_station(request: web.Request, actor: str) -> Any:
        order = await read_order(request, StationOrder)
        return {"token": await console.add_station(order, actor)}

    async def stations(_request: web.Request, _actor: str) -> Any:
        return await console.stations()

    async def revoke_station(request: web.Request, actor: str) -> Any:
        await console.revoke_station(request.match_info["name"], actor)

    async def revoke(request: web.Request, actor: str) -> Any:
        return await console.revoke(await read_order(request, RevokeOrder), actor)

    async def hold(request: web.Request, actor: str) -> Any:
        return await console.hold(await read_order(request, HoldOrder), actor)

    async def release_hold(request: web.Request, actor: str) -> Any:
        return await console.release_hold(await read_order(request, HoldOrder), actor)

    return [
        web.get("/snapshot", command(Permission.STATUS_READ, snapshot)),
        web.post("/line", command(Permission.LINE_WRITE, line)),
        web.post("/history", command(Permission.LINE_WRITE, go_on)),
        web.post("/stations", command(Permission.STATION_WRITE, add_station)),
        web.get("/stations", command(Permission.STATION_READ, stations)),
        web.delete("/stations/{name}", command(Permission.STATION_WRITE, revoke_station)),
        web.post("/revoke", command(Permission.CERTIFICATE_REVOKE, revoke)),
        web.post("/hold", command(Permission.CERTIFICATE_HOLD, hold)),
        web.post("/release", command(Permission.CERTIFICATE_HOLD, release_hold)),
    ]
