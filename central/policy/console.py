"""What the console of central's box may ask about profiles, rules and grants."""

from typing import Any

from aiohttp import web

from central.policy.authoring import Authoring, published, shown
from central.policy.lint import Sample
from central.policy.orders import DocumentOrder, PublishOrder
from shared.enroll.rest import explain_console
from shared.enroll.rest.explain_console import Explain
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web.console import command, read_order


def routes(authoring: Authoring, explain: Explain) -> list[web.RouteDef]:
    """Give the routes of the unix socket."""
    return [
        *_profile_routes(authoring),
        *_other_routes(authoring),
        *explain_console.routes(explain),
    ]


def _profile_routes(authoring: Authoring) -> list[web.RouteDef]:
    async def profiles(_request: web.Request, _actor: str) -> Any:
        return await authoring.profiles()

    async def profile(request: web.Request, _actor: str) -> Any:
        state, found = await authoring.profile(request.match_info["name"], version_of(request))
        return {"state": state, "sha256": found.sha256, "document": found.to_document()}

    async def draft(request: web.Request, actor: str) -> Any:
        return await authoring.draft((await read_order(request, DocumentOrder)).document, actor)

    async def check(request: web.Request, _actor: str) -> Any:
        order = await read_order(request, PublishOrder)
        sample = Sample.from_document(order.sample)
        return shown(await authoring.check(request.match_info["name"], order.version, sample))

    async def publish(request: web.Request, actor: str) -> Any:
        order = await read_order(request, PublishOrder)
        sample = Sample.from_document(order.sample)
        name = request.match_info["name"]
        return published(await authoring.publish(name, order.version, sample, actor))

    async def withdraw(request: web.Request, actor: str) -> Any:
        return await authoring.withdraw(request.match_info["name"], actor)

    async def difference(request: web.Request, _actor: str) -> Any:
        return await compared(authoring, request)

    return [
        web.get("/profiles", command(Permission.PROFILE_READ, profiles)),
        web.post("/profiles", command(Permission.PROFILE_WRITE, draft)),
        web.get("/profiles/{name}", command(Permission.PROFILE_READ, profile)),
        web.post("/profiles/{name}/check", command(Permission.PROFILE_READ, check)),
        web.post("/profiles/{name}/publish", command(Permission.PROFILE_PUBLISH, publish)),
        web.post("/profiles/{name}/withdraw", command(Permission.PROFILE_PUBLISH, withdraw)),
        web.get("/profiles/{name}/diff", command(Permission.PROFILE_READ, difference)),
    ]


def _other_routes(authoring: Authoring) -> list[web.RouteDef]:
    async def preset(request: web.Request, actor: str) -> Any:
        apply = request.method == "POST"
        return await authoring.preset(request.match_info["name"], actor, apply=apply)

    async def rules(_request: web.Request, _actor: str) -> Any:
        return await authoring.rules()

    async def put_rules(request: web.Request, actor: str) -> Any:
        await authoring.put_rules((await read_order(request, DocumentOrder)).document, actor)

    async def roll_out(_request: web.Request, _actor: str) -> Any:
        return await authoring.roll_out()

    async def grants(_request: web.Request, _actor: str) -> Any:
        return await authoring.grants()

    async def amend(request: web.Request, actor: str) -> Any:
        order = await read_order(request, DocumentOrder)
        return await authoring.amend_grant(request.match_info["id"], order.document, actor)

    async def end(request: web.Request, actor: str) -> Any:
        return await authoring.end_grant(request.match_info["id"], actor)

    return [
        web.get("/presets/{name}", command(Permission.PROFILE_READ, preset)),
        web.post("/presets/{name}", command(Permission.PROFILE_PUBLISH, preset)),
        web.get("/rules", command(Permission.PROFILE_READ, rules)),
        web.post("/rules", command(Permission.PROFILE_PUBLISH, put_rules)),
        web.get("/rollout", command(Permission.PROFILE_READ, roll_out)),
        web.get("/grants", command(Permission.GATEWAY_READ, grants)),
        web.post("/grants/{id}", command(Permission.GRANT_WRITE, amend)),
        web.delete("/grants/{id}", command(Permission.GRANT_WRITE, end)),
    ]


async def compared(authoring: Authoring, request: web.Request) -> list[dict[str, Any]]:
    """Say what ``version`` changes against the version ``to``, or the one in force."""
    after = version_of(request)
    if after is None:
        raise BadRequestError("Name the version to compare.", pointer="/version")
    return await authoring.difference(request.match_info["name"], version_of(request, "to"), after)


def version_of(request: web.Request, name: str = "version") -> int | None:
    """Read a version from the query, None without one; raises BadRequestError."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 - a sane number
        raise BadRequestError("A version is a number.", pointer=f"/{name}")
    return int(text)
