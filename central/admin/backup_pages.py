"""The page of backups: what could be put back, how far a running one is, and *back up now*."""

from typing import Any

from aiohttp import web

from central.admin.frame import Frame, see_other
from central.backup_doors import RUN, SEE, BackupActs
from shared.kernel.errors import TmaError
from shared.web.auth import Principal


def routes(frame: Frame, acts: BackupActs) -> list[web.RouteDef]:
    """Give the routes."""

    async def context(request: web.Request, who: Principal) -> dict[str, Any]:
        who.require(SEE)
        return {
            "standing": await acts.standing(),
            "directory": acts.directory,
            "verified": request.query.get("verified", ""),
            "error": None,
        }

    async def shown(request: web.Request, who: Principal) -> web.Response:
        return frame.show("backups.html", who, "backups", await context(request, who))

    async def panel(request: web.Request, who: Principal) -> web.Response:
        return frame.show("backups_panel.html", who, "backups", await context(request, who))

    async def begin(request: web.Request, who: Principal) -> web.Response:
        who.require(RUN)
        try:
            await acts.begin(who.name)
        except TmaError as error:
            refused = await context(request, who) | {"error": error}
            return frame.show("backups.html", who, "backups", refused, status=error.http_status)
        return see_other("/backups")

    async def verify(request: web.Request, who: Principal) -> web.Response:
        who.require(RUN)
        backup_id = request.match_info["id"]
        try:
            await acts.verify(backup_id, who.name)
        except TmaError as error:
            refused = await context(request, who) | {"error": error}
            return frame.show("backups.html", who, "backups", refused, status=error.http_status)
        return see_other(f"/backups?verified={backup_id}")

    return [
        web.get("/backups", frame.guarded(SEE, shown)),
        web.get("/panel/backups", frame.guarded(SEE, panel)),
        web.post("/backups", frame.guarded(RUN, begin)),
        web.post("/backups/{id}/verify", frame.guarded(RUN, verify)),
    ]
