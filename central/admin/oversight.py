"""The pages of the audit log and of what waits for a second person."""

from urllib.parse import urlencode

from aiohttp import web

from central.admin.frame import Frame, form, number, see_other
from central.identity.approvals import Approvals
from central.identity.audit_log import AuditLog
from central.identity.oversight import wanted
from shared.policy.rights import Permission
from shared.web.auth import Principal

_PAGE_ROWS = 100


def routes(frame: Frame, log: AuditLog, approvals: Approvals) -> list[web.RouteDef]:
    """Give every route of these pages."""
    read = Permission.AUDIT_READ
    each = "what one may decide is judged for each request"

    async def audit(request: web.Request, who: Principal) -> web.Response:
        who.require(read)
        asked = wanted(request)
        found = await log.search(asked, _PAGE_ROWS + 1)
        terms = {"actor": asked.actor, "action": asked.action, "subject": asked.subject}
        older = ""
        if len(found) > _PAGE_ROWS:
            query = {name: value for name, value in terms.items() if value}
            older = urlencode(query | {"before": found[_PAGE_ROWS - 1]["id"]})
        context = {"rows": found[:_PAGE_ROWS], "asked": asked, "older": older, "verdict": None}
        return frame.show("audit.html", who, "audit", context)

    async def verify(request: web.Request, who: Principal) -> web.Response:
        who.require(read)
        context = {
            "rows": await log.search(wanted(request), _PAGE_ROWS),
            "asked": wanted(request),
            "older": "",
            "verdict": await log.verify(),
        }
        return frame.show("audit.html", who, "audit", context)

    async def waiting(_request: web.Request, who: Principal) -> web.Response:
        context = {"requests": await approvals.listed(who)}
        return frame.show("approvals.html", who, "approvals", context)

    async def decide(request: web.Request, who: Principal) -> web.Response:
        await approvals.decide(
            number(request.match_info["id"]),
            who,
            agreed=request.path.endswith("/agree"),
            remark=(await form(request)).get("remark", "").strip(),
        )
        return see_other("/approvals")

    return [
        web.get("/audit", frame.guarded(read, audit)),
        web.post("/audit/verify", frame.guarded(read, verify)),
        web.get("/approvals", frame.for_users(waiting, each)),
        web.post("/approvals/{id}/agree", frame.for_users(decide, each)),
        web.post("/approvals/{id}/refuse", frame.for_users(decide, each)),
    ]
