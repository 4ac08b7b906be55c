"""The acts about people by REST (``/api/v2.0``) and at the console's socket: one table for both.

Bodies are the orders of ``central.identity.orders``; REST answers ``{"data": …}``. REST takes
tokens and client certificates only: a session is for pages.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from aiohttp import web

from central.identity.operations import PeopleOperations, everything
from central.identity.orders import (
    AssignmentOrder,
    CertificateOrder,
    PasswordOrder,
    RoleOrder,
    TokenOrder,
    UserOrder,
)
from central.metadata import filters
from shared.enroll.rest import documents
from shared.enroll.rest.rendering import BASE
from shared.policy.rights import Permission
from shared.web import problems
from shared.web.auth import Authenticator, Handler, Principal, needs, open_to_all
from shared.web.console import Order, command, read_order

#: Takes the request and who asks; gives what is answered as JSON (None: nothing to say).
Act = Callable[[web.Request, Principal], Awaitable[Any]]
OrderT = TypeVar("OrderT", bound=Order)


@dataclass(frozen=True, slots=True)
class Door:
    """One act: where it is, who may, and of which type the resources are that it answers."""

    permission: Permission
    method: str
    path: str
    kind: str
    act: Act
    created: bool = False  # the act makes what it answers
    judges_itself: bool = False  # who may is judged by the act, for each object


def console_routes(doors: Sequence[Door]) -> list[web.AbstractRouteDef]:
    """Mount the doors at the socket of the box, where everything is allowed."""
    return [
        web.route(door.method, door.path, command(door.permission, _as_root(door.act)))
        for door in doors
    ]


def rest_routes(doors: Sequence[Door], authenticator: Authenticator) -> list[web.AbstractRouteDef]:
    """Mount the doors below ``/api/v2.0``."""
    return [
        web.route(door.method, BASE + door.path, _by_rest(door, authenticator)) for door in doors
    ]


def _as_root(act: Act) -> Callable[[web.Request, str], Awaitable[Any]]:
    async def run(request: web.Request, actor: str) -> Any:
        return await act(request, everything(actor))

    return run


def _by_rest(door: Door, authenticator: Authenticator) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        who = await authenticator.principal(request)
        if not door.judges_itself:
            who.require(door.permission)
        if request.can_read_body:
            documents.require_json(request)
        answer = await door.act(request, who)
        if answer is None:
            return web.Response(status=204, headers=problems.API_HEADERS)
        if isinstance(answer, web.StreamResponse):
            return answer
        status = 200
        if door.method == "POST":
            status = 202 if "approval" in answer else 201 if door.created else 200
        return documents.answer(
            documents.encode({"data": _resources(door.kind, answer)}), status=status
        )

    if door.judges_itself:
        return open_to_all(handler, "what one may is judged for each object")
    return needs(door.permission, handler)


def _resources(kind: str, answer: Any) -> Any:
    if isinstance(answer, list):
        return [_resources(kind, row) for row in cast("list[Any]", answer)]
    return {"type": kind, "id": answer.get("id"), "attributes": answer}


def people_doors(people: PeopleOperations) -> list[Door]:
    """Give the acts about users, roles, tokens, sessions and certificates."""
    return [*_user_doors(people), *_role_doors(people), *_login_doors(people)]


def _user_doors(people: PeopleOperations) -> list[Door]:
    read, write = Permission.USER_READ, Permission.USER_WRITE

    async def users(request: web.Request, _who: Principal) -> Any:
        return await people.users(filters.wanted(request.query))

    async def user(request: web.Request, _who: Principal) -> Any:
        return await people.user(_name(request))

    async def add(request: web.Request, who: Principal) -> Any:
        return await people.add_user(await read_order(request, UserOrder), who)

    async def password(request: web.Request, who: Principal) -> Any:
        order = await _optional(request, PasswordOrder)
        return await people.set_password(_name(request), order, who)

    async def disable(request: web.Request, who: Principal) -> Any:
        await people.disable(_name(request), who)

    async def enable(request: web.Request, who: Principal) -> Any:
        await people.enable(_name(request), who)

    return [
        Door(read, "GET", "/users", "user", users),
        Door(write, "POST", "/users", "user", add, created=True),
        Door(read, "GET", "/users/{name}", "user", user),
        Door(write, "POST", "/users/{name}/password", "user", password),
        Door(write, "POST", "/users/{name}/disable", "user", disable),
        Door(write, "POST", "/users/{name}/enable", "user", enable),
    ]


def _role_doors(people: PeopleOperations) -> list[Door]:
    read, write = Permission.USER_READ, Permission.USER_WRITE

    async def roles(_request: web.Request, _who: Principal) -> Any:
        return await people.reads.roles()

    async def define(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, RoleOrder)
        return pending(await people.define_role(_name(request), order, who))

    async def drop(request: web.Request, who: Principal) -> Any:
        await people.drop_role(_name(request), who)

    async def assign(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, AssignmentOrder)
        return pending(await people.assign(_name(request), order, who))

    async def withdraw(request: web.Request, who: Principal) -> Any:
        await people.withdraw(_name(request), await read_order(request, AssignmentOrder), who)

    return [
        Door(read, "GET", "/roles", "role", roles),
        Door(write, "PUT", "/roles/{name}", "role", define),
        Door(write, "DELETE", "/roles/{name}", "role", drop),
        Door(write, "POST", "/users/{name}/assign", "user", assign),
        Door(write, "POST", "/users/{name}/withdraw", "user", withdraw),
    ]


def _login_doors(people: PeopleOperations) -> list[Door]:
    read, write = Permission.USER_READ, Permission.USER_WRITE

    async def tokens(request: web.Request, _who: Principal) -> Any:
        return await people.tokens(request.query.get("user"))

    async def add_token(request: web.Request, who: Principal) -> Any:
        return await people.add_token(await read_order(request, TokenOrder), who)

    async def revoke_token(request: web.Request, who: Principal) -> Any:
        await people.revoke_token(request.match_info["id"], who)

    async def sessions(request: web.Request, _who: Principal) -> Any:
        return await people.sessions(request.query.get("user"))

    async def end_sessions(request: web.Request, who: Principal) -> Any:
        await people.end_sessions(_name(request), None, who)

    async def end_session(request: web.Request, who: Principal) -> Any:
        await people.end_sessions(_name(request), request.match_info["id"], who)

    async def bind(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, CertificateOrder)
        return await people.bind_certificate(_name(request), order, who)

    async def unbind(request: web.Request, who: Principal) -> Any:
        await people.unbind_certificate(_name(request), request.match_info["id"], who)

    return [
        Door(read, "GET", "/tokens", "token", tokens),
        Door(write, "POST", "/tokens", "token", add_token, created=True),
        Door(write, "DELETE", "/tokens/{id}", "token", revoke_token),
        Door(read, "GET", "/sessions", "session", sessions),
        Door(write, "DELETE", "/sessions/{name}", "session", end_sessions),
        Door(write, "DELETE", "/sessions/{name}/{id}", "session", end_session),
        Door(write, "POST", "/users/{name}/certificates", "certificate", bind, created=True),
        Door(write, "DELETE", "/users/{name}/certificates/{id}", "certificate", unbind),
    ]


def pending(number: int | None) -> dict[str, Any] | None:
    """Say under which number something waits for a second person, if it does."""
    return None if number is None else {"id": number, "approval": number}


def _name(request: web.Request) -> str:
    return request.match_info["name"]


async def _optional(request: web.Request, model: type[OrderT]) -> OrderT:
    """Read a body that may be left out."""
    if not request.can_read_body:
        return model()
    return await read_order(request, model)
