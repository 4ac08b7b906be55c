"""The pages of conflicts: what disagrees, both sides next to each other, and the decision."""

from urllib.parse import urlencode

from aiohttp import web

from central.admin import words
from central.admin.frame import Frame, form, number, see_other
from central.inventory.conflict_reads import FILTERS
from central.question_doors import question_of, settle
from central.questions import Questions
from central.scope import here, lines_of
from shared.enroll.rest.paging import Page
from shared.policy.rights import Permission
from shared.web.auth import Principal

_SEE, _SETTLE = Permission.GATEWAY_READ, Permission.CONFLICT_SETTLE
_ROWS = 50


def routes(frame: Frame, questions: Questions) -> list[web.RouteDef]:
    """Give the routes; one conflict is judged for the line that it is of."""

    async def listed(request: web.Request, who: Principal) -> web.Response:
        asked = {name: request.query.get(name, "").strip()[:256] for name in FILTERS}
        if "state" not in request.query:
            asked["state"] = "open"
        after = request.query.get("after", "")
        page = Page(asked, str(number(after)) if after else "", _ROWS)
        found, more = await questions.conflicts(page, lines_of(who, _SEE))
        context = {
            "conflicts": found,
            "asked": asked,
            "meanings": words.CONFLICTS,
            "first": f"/conflicts?{urlencode(asked)}" if after else "",
            "next": f"/conflicts?{urlencode({**asked, 'after': more})}" if more else "",
        }
        return frame.show("conflicts.html", who, "conflicts", context)

    async def shown(request: web.Request, who: Principal) -> web.Response:
        found, certificates = await question_of(questions, number(request.match_info["id"]), who)
        context = {
            "conflict": found,
            "certificates": certificates,
            "meaning": words.CONFLICTS.get(found.kind, found.kind),
            "rule": words.RULES.get(str(found.detail.get("rule", "")), ""),
            "may_settle": found.state == "open" and who.may(_SETTLE, here(found.gateway)),
        }
        return frame.show("conflict.html", who, "conflicts", context)

    async def decide(request: web.Request, who: Principal) -> web.Response:
        choice = (await form(request)).get("choice", "")
        conflict_id = number(request.match_info["id"])
        await settle(questions, conflict_id, choice, who)
        return see_other(f"/conflicts/{conflict_id}")

    return [
        web.get("/conflicts", frame.guarded(_SEE, listed)),
        web.get("/conflicts/{id}", frame.guarded(_SEE, shown)),
        web.post("/conflicts/{id}/settle", frame.guarded(_SETTLE, decide)),
    ]
