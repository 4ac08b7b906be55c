"""Profiles, presets, rules and grants by REST: what the console does, for administrators."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from central.metadata import filters
from central.policy.authoring import Authoring, published
from central.policy.console import compared
from central.policy.lint import Sample
from shared.enroll.rest import documents
from shared.enroll.rest.routes import Route
from shared.policy.rights import Permission
from shared.web.app import read_body
from shared.web.auth import Authenticator, Handler

_DOCUMENT = Annotated[dict[str, Any], Field(default_factory=dict[str, Any])]


class DocumentBody(BaseModel):
    """A document, or fields of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: dict[str, Any]


class PublishBody(BaseModel):
    """Which version to put in force (none: the newest), and what its sample says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Annotated[int, Field(ge=1)] | None = None
    sample: _DOCUMENT


_Work = Callable[[web.Request, str], Awaitable[Any]]


def routes(authoring: Authoring, authenticator: Authenticator) -> list[Route]:
    """Give the operations for ``shared.enroll.rest.routes``."""
    acts = _Acts(authoring)
    add = partial(_route, authenticator)
    return [*_profile_routes(acts, add), *_other_routes(acts, add)]


class _Add(Protocol):
    def __call__(
        self,
        permission: Permission,
        place: str,
        work: _Work,
        summary: str,
        body: type[BaseModel] | None = None,
        *,
        query: tuple[str, ...] = (),
    ) -> Route: ...


def _route(  # noqa: PLR0917 - one per column of the table
    authenticator: Authenticator,
    permission: Permission,
    place: str,
    work: _Work,
    summary: str,
    body: type[BaseModel] | None = None,
    *,
    query: tuple[str, ...] = (),
) -> Route:
    method, path = place.split()
    handler = _guarded(authenticator, permission, work)
    return Route(
        permission, method, path, handler, summary, "Policy", body=body, dry=True, query=query
    )


def _profile_routes(acts: "_Acts", route: _Add) -> list[Route]:
    may = Permission
    return [
        route(
            may.PROFILE_READ,
            "GET /policy/profiles",
            acts.profiles,
            "List every version",
            query=(filters.FILTER,),
        ),
        route(
            may.PROFILE_WRITE,
            "POST /policy/profiles",
            acts.draft,
            "Keep a new version as a draft",
            DocumentBody,
        ),
        route(
            may.PROFILE_READ,
            "GET /policy/profiles/{name}/diff",
            acts.difference,
            "Say what a version changes against another, or against the one in force",
            query=("version", "to"),
        ),
        route(
            may.PROFILE_PUBLISH,
            "POST /policy/profiles/{name}/publish",
            acts.publish,
            "Lint a version and put it in force here and at every gateway",
            PublishBody,
        ),
        route(
            may.PROFILE_PUBLISH,
            "POST /policy/profiles/{name}/withdraw",
            acts.withdraw,
            "Take a profile out of force",
        ),
    ]


def _other_routes(acts: "_Acts", route: _Add) -> list[Route]:
    may = Permission
    return [
        route(
            may.PROFILE_READ,
            "GET /policy/presets/{name}",
            acts.preview,
            "Say what a security preset changes",
        ),
        route(
            may.PROFILE_PUBLISH,
            "POST /policy/presets/{name}",
            acts.apply,
            "Publish what a security preset changes",
        ),
        route(may.PROFILE_READ, "GET /policy/rules", acts.rules, "Fetch the rules in force"),
        route(
            may.PROFILE_PUBLISH,
            "POST /policy/rules",
            acts.put_rules,
            "Replace all rules",
            DocumentBody,
        ),
        route(
            may.PROFILE_READ,
            "GET /policy/rollout",
            acts.roll_out,
            "Say which gateway has applied which bundle",
        ),
        route(
            may.GATEWAY_READ,
            "GET /policy/grants",
            acts.grants,
            "List the grants: used, unused, overdrawn",
        ),
        route(
            may.GRANT_WRITE, "POST /policy/grants/{id}", acts.amend, "Change a grant", DocumentBody
        ),
        route(may.GRANT_WRITE, "POST /policy/grants/{id}/end", acts.end, "Withdraw a grant"),
    ]


class _Acts:
    """The operations as the requester's name and body ask for them."""

    def __init__(self, authoring: Authoring) -> None:
        self._authoring = authoring

    async def profiles(self, request: web.Request, _actor: str) -> Any:
        return await self._authoring.profiles(filters.wanted(request.query))

    async def draft(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.draft(await _document(request), actor)

    async def publish(self, request: web.Request, actor: str) -> Any:
        documents.require_json(request)
        body = documents.parse(PublishBody, await read_body(request))
        sample = Sample.from_document(body.sample)
        name = request.match_info["name"]
        return published(await self._authoring.publish(name, body.version, sample, actor))

    async def difference(self, request: web.Request, _actor: str) -> Any:
        return await compared(self._authoring, request)

    async def withdraw(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.withdraw(request.match_info["name"], actor)

    async def preview(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.preset(request.match_info["name"], actor, apply=False)

    async def apply(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.preset(request.match_info["name"], actor, apply=True)

    async def rules(self, _request: web.Request, _actor: str) -> Any:
        return await self._authoring.rules()

    async def put_rules(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.put_rules(await _document(request), actor)

    async def roll_out(self, _request: web.Request, _actor: str) -> Any:
        return await self._authoring.roll_out()

    async def grants(self, _request: web.Request, _actor: str) -> Any:
        return await self._authoring.grants()

    async def amend(self, request: web.Request, actor: str) -> Any:
        changes = await _document(request)
        return await self._authoring.amend_grant(request.match_info["id"], changes, actor)

    async def end(self, request: web.Request, actor: str) -> Any:
        return await self._authoring.end_grant(request.match_info["id"], actor)


async def _document(request: web.Request) -> dict[str, Any]:
    documents.require_json(request)
    return documents.parse(DocumentBody, await read_body(request)).data


def _guarded(authenticator: Authenticator, permission: Permission, work: _Work) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        principal = await authenticator.principal(request)
        principal.require(permission)
        return documents.answer(documents.encode({"data": await work(request, principal.name)}))

    return handler
