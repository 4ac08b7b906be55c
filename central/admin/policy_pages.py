"""The page of profiles: what is in force, what could be, who has it, and the grants."""

from urllib.parse import quote

from aiohttp import web
from pydantic import ValidationError

from central.admin.frame import Frame, form, number, see_other
from central.policy.authoring import Authoring
from central.policy.lint import Sample
from shared.enroll.rest import documents
from shared.enroll.rest.explain_console import Explain
from shared.enroll.rest.models import EnrollAttributes
from shared.policy.presets import PRESETS
from shared.policy.rights import Permission
from shared.web.auth import Principal


def routes(frame: Frame, authoring: Authoring, explain: Explain) -> list[web.RouteDef]:
    """Give the routes; each names the permission that it needs."""
    show, guarded, may = frame.show, frame.guarded, Permission

    async def profiles(_request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_READ)
        context = {
            "profiles": await authoring.profiles(),
            "roll_out": await authoring.roll_out(),
            "grants": await authoring.grants(),
        }
        return show("profiles.html", who, "profiles", context)

    async def profile(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_READ)
        name, version = request.match_info["name"], _version(request)
        against = _version(request, "against")
        state, found = await authoring.profile(name, version)
        lines = [line for line in await authoring.profiles() if line["name"] == name]
        context = {
            "state": state,
            "profile": found,
            "document": found.model_dump_json(indent=2, exclude_defaults=True),
            "against": against,
            "others": [line["version"] for line in lines if line["version"] != found.version],
            "metadata": lines[0]["metadata"],
            "changes": await authoring.difference(name, against, found.version),
        }
        return show("profile.html", who, "profiles", context)

    async def explained(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_READ)
        name, fields = request.match_info["name"], await form(request)
        wanted = {
            field: fields[field].strip()
            for field in ("cn", "device_id", "csr")
            if fields.get(field, "").strip()
        }
        try:
            attributes = EnrollAttributes.model_validate(wanted)
        except ValidationError as error:
            raise documents.invalid(documents.details(error)) from error
        told = await explain(name, attributes, who.name)
        return show("explained.html", who, "profiles", {"name": name, "told": told})

    async def publish(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_PUBLISH)
        name, version = request.match_info["name"], _version(request)
        done = await authoring.publish(name, version, Sample.from_document({}), who.name)
        return _to_profile(name) if done.approval is None else see_other("/approvals")

    async def withdraw(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_PUBLISH)
        await authoring.withdraw(request.match_info["name"], who.name)
        return see_other("/profiles")

    return [
        web.get("/profiles", guarded(may.PROFILE_READ, profiles)),
        web.get("/profiles/{name}", guarded(may.PROFILE_READ, profile)),
        web.post("/profiles/{name}/explain", guarded(may.PROFILE_READ, explained)),
        web.post("/profiles/{name}/publish", guarded(may.PROFILE_PUBLISH, publish)),
        web.post("/profiles/{name}/withdraw", guarded(may.PROFILE_PUBLISH, withdraw)),
        *_other_routes(frame, authoring),
    ]


def _other_routes(frame: Frame, authoring: Authoring) -> list[web.RouteDef]:
    show, guarded, may = frame.show, frame.guarded, Permission

    async def grant(request: web.Request, who: Principal) -> web.Response:
        who.require(may.GRANT_WRITE)
        quota = (await form(request)).get("quota", "")
        changes = {"quota": number(quota)}
        await authoring.amend_grant(request.match_info["id"], changes, who.name)
        return see_other("/profiles")

    async def preset(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_READ)
        name = request.match_info["name"]
        context = {
            "preset": PRESETS.get(name),
            "presets": PRESETS.values(),
            "changes": await authoring.preset(name, who.name, apply=False),
        }
        return show("preset.html", who, "profiles", context)

    async def apply_preset(request: web.Request, who: Principal) -> web.Response:
        who.require(may.PROFILE_PUBLISH)
        await authoring.preset(request.match_info["name"], who.name, apply=True)
        return see_other("/profiles")

    return [
        web.get("/presets/{name}", guarded(may.PROFILE_READ, preset)),
        web.post("/presets/{name}", guarded(may.PROFILE_PUBLISH, apply_preset)),
        web.post("/grants/{id}", guarded(may.GRANT_WRITE, grant)),
    ]


def _to_profile(name: str) -> web.Response:
    return see_other(f"/profiles/{quote(name, safe='')}")


def _version(request: web.Request, name: str = "version") -> int | None:
    text = request.query.get(name)
    return None if not text else number(text)
