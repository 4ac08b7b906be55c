"""The pages of the quarantine: events that could not be applied, and what may be done with each."""

import json
from urllib.parse import quote

from aiohttp import web

from central.admin import uploads
from central.admin.frame import Frame, form, see_other
from central.question_doors import EVENT, FILE_BYTES_MAX, place_of, visible
from central.questions import Questions
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web.auth import Principal

_SEE, _SETTLE = Permission.GATEWAY_READ, Permission.CONFLICT_SETTLE
_FORM_BYTES = 8 * 1024


def routes(frame: Frame, questions: Questions) -> list[web.RouteDef]:
    """Give the routes; one event is judged for the line that it is of."""

    async def listed(request: web.Request, who: Principal) -> web.Response:
        gateway = request.query.get("gateway", "").strip()
        rows = await visible(questions, who)
        found = [row for row in rows if not gateway or row["gateway"] == gateway]
        done = request.query.get("applied", "")
        context = {"events": found, "gateway": gateway, "all": len(rows), "applied": done}
        return frame.show("quarantine.html", who, "gateways", context)

    async def shown(request: web.Request, who: Principal) -> web.Response:
        place = place_of(request, who, _SEE)
        event = await questions.event(place)
        body = json.dumps(event["body"], indent=2, ensure_ascii=False)
        context = {"event": event, "body": body, "here": _address(place)}
        return frame.show("quarantined.html", who, "gateways", context)

    async def export(request: web.Request, who: Principal) -> web.Response:
        place = place_of(request, who, _SEE)
        name = place.replace("/", "-")
        return web.Response(
            body=await questions.export(place),
            content_type="application/cose",
            headers={"Content-Disposition": f'attachment; filename="{name}.cose"'},
        )

    async def discard(request: web.Request, who: Principal) -> web.Response:
        reason = (await form(request)).get("reason", "").strip()
        if not reason:
            raise BadRequestError("Say why the event is discarded: it is recorded.")
        await questions.discard(place_of(request, who, _SETTLE), reason, who.name)
        return see_other("/quarantine")

    async def retry(_request: web.Request, who: Principal) -> web.Response:
        who.require(_SETTLE)
        return see_other(f"/quarantine?applied={await questions.retry(who.name)}")

    async def take(request: web.Request, who: Principal) -> web.Response:
        who.require(_SETTLE)
        files = (await uploads.read(request, FILE_BYTES_MAX + _FORM_BYTES)).files.get("file")
        if not files:
            raise BadRequestError("No file was chosen.", remedy="Choose an exported event.")
        return see_other(_address(await questions.take_back(files[0][1], who.name)))

    return [
        web.get("/quarantine", frame.guarded(_SEE, listed)),
        web.post("/quarantine/retry", frame.guarded(_SETTLE, retry)),
        web.post("/quarantine/import", frame.guarded(_SETTLE, take)),
        web.get(EVENT, frame.guarded(_SEE, shown)),
        web.get(f"{EVENT}/export", frame.guarded(_SEE, export)),
        web.post(f"{EVENT}/discard", frame.guarded(_SETTLE, discard)),
    ]


def _address(place: str) -> str:
    return f"/quarantine/{quote(place)}"
