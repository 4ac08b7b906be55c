"""The pages about people: one's own account, users, roles."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web
from pydantic import ValidationError

from central.admin.frame import PASSWORD_PATH, Frame, form, form_lists, see_other
from central.identity.operations import PeopleOperations
from central.identity.orders import (
    AssignmentOrder,
    CertificateOrder,
    PasswordOrder,
    RoleOrder,
    TokenOrder,
    UserOrder,
)
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.console import Order
from shared.web.sessions import SignedIn

OrderT = TypeVar("OrderT", bound=Order)
_OWN = "it is about nobody but the one who is logged in"
_Act = Callable[[str, web.Request, Principal], Awaitable[web.StreamResponse | None]]


def routes(frame: Frame, people: PeopleOperations) -> list[web.RouteDef]:
    """Give every route of these pages."""
    pages = _People(frame, people)
    read, write = Permission.USER_READ, Permission.USER_WRITE
    own = _Own(frame, people)
    return [
        web.get("/account", frame.for_users(own.account, _OWN)),
        web.get(PASSWORD_PATH, frame.for_oneself(own.password_form, _OWN)),
        web.post(PASSWORD_PATH, frame.for_oneself(own.password, _OWN)),
        web.post("/account/tokens", frame.for_users(own.add_token, _OWN)),
        web.post("/account/tokens/{id}/revoke", frame.for_users(own.revoke_token, _OWN)),
        web.post("/account/sessions/{id}/end", frame.for_users(own.end_session, _OWN)),
        web.get("/users", frame.guarded(read, pages.users)),
        web.post("/users", frame.guarded(write, pages.add)),
        web.get("/users/{name}", frame.guarded(read, pages.user)),
        web.post("/users/{name}/{act}", frame.guarded(write, pages.act)),
        web.get("/roles", frame.guarded(read, pages.roles)),
        web.post("/roles", frame.guarded(write, pages.define)),
        web.post("/roles/{name}/remove", frame.guarded(write, pages.drop)),
    ]


class _Own:
    """What everybody does about himself."""

    def __init__(self, frame: Frame, people: PeopleOperations) -> None:
        self._frame = frame
        self._people = people

    async def account(self, _request: web.Request, who: Principal) -> web.Response:
        found = await self._people.user(_name_of(who))
        context = {"user": found, "permissions": sorted(Permission)}
        return self._frame.show("account.html", who, "account", context)

    async def password_form(self, _request: web.Request, signed: SignedIn) -> web.Response:
        return self._password(signed, None)

    async def password(self, request: web.Request, signed: SignedIn) -> web.Response:
        """Change it; who only has a first password proves it again like everybody."""
        fields = await form(request)
        name = _name_of(signed.principal)
        try:
            if not await self._frame.sessions.proves(name, fields.get("present", "")):
                raise BadRequestError("The present password is wrong.")
            if fields.get("new") != fields.get("again"):
                raise BadRequestError("The two new passwords are not the same.")
            if fields.get("new") == fields.get("present"):
                raise BadRequestError("The new password is the present one.")
            new = fields.get("new", "")
            await self._people.change_own_password(name, new, signed.session_id)
        except TmaError as error:
            return self._password(signed, error)
        return see_other("/account")

    async def add_token(self, request: web.Request, who: Principal) -> web.Response:
        fields = await form_lists(request)
        order = ordered(
            TokenOrder,
            user=_name_of(who),
            name=_first(fields, "name"),
            permissions=tuple(fields.get("permission", ())),
            scope=_first(fields, "scope") or "*",
            days=_first(fields, "days") or 90,
        )
        token = (await self._people.add_token(order, who))["token"]
        return _shown_once(self._frame, who, f"API token {order.name}", token, back="/account")

    async def revoke_token(self, request: web.Request, who: Principal) -> web.Response:
        await self._people.revoke_token(request.match_info["id"], who, _name_of(who))
        return see_other("/account")

    async def end_session(self, request: web.Request, who: Principal) -> web.Response:
        await self._people.end_sessions(_name_of(who), request.match_info["id"], who)
        return see_other("/account")

    def _password(self, signed: SignedIn, error: TmaError | None) -> web.Response:
        context = {"error": error, "first": signed.must_change}
        status = 200 if error is None else error.http_status
        return self._frame.show(
            "password.html", signed.principal, "account", context, status=status
        )


class _People:
    """What administrators do about others."""

    def __init__(self, frame: Frame, people: PeopleOperations) -> None:
        self._frame = frame
        self._people = people
        self._acts: Mapping[str, _Act] = {
            "disable": self._disable,
            "enable": self._enable,
            "password": self._password,
            "assign": self._assign,
            "withdraw": self._withdraw,
            "revoke-token": self._revoke_token,
            "end-sessions": self._end_sessions,
            "bind": self._bind,
            "unbind": self._unbind,
        }

    async def users(self, _request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_READ)
        context = {"users": await self._people.users(), "roles": await self._people.reads.roles()}
        return self._frame.show("users.html", who, "users", context)

    async def add(self, request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_WRITE)
        fields = await form(request)
        order = ordered(
            UserOrder,
            name=fields.get("name", "").strip(),
            role=fields.get("role") or None,
            scope=fields.get("scope", "").strip() or "*",
            login="login" in fields,
        )
        made = (await self._people.add_user(order, who))["password"]
        address = _address(order.name)
        if made is None:
            return see_other(address)
        title = f"First password of {order.name}"
        return _shown_once(self._frame, who, title, made, back=address)

    async def user(self, request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_READ)
        context = {
            "user": await self._people.user(request.match_info["name"]),
            "roles": await self._people.reads.roles(),
        }
        return self._frame.show("user.html", who, "users", context)

    async def act(self, request: web.Request, who: Principal) -> web.StreamResponse:
        who.require(Permission.USER_WRITE)
        name = request.match_info["name"]
        act = self._acts.get(request.match_info["act"])
        if act is None:
            raise NotFoundError("There is nothing at this address.")
        return await act(name, request, who) or see_other(_address(name))

    async def roles(self, _request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_READ)
        context = {"roles": await self._people.reads.roles(), "permissions": sorted(Permission)}
        return self._frame.show("roles.html", who, "roles", context)

    async def define(self, request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_WRITE)
        fields = await form_lists(request)
        order = ordered(RoleOrder, permissions=tuple(fields.get("permission", ())))
        waits = await self._people.define_role(_first(fields, "name"), order, who)
        return see_other("/roles" if waits is None else "/approvals")

    async def drop(self, request: web.Request, who: Principal) -> web.Response:
        who.require(Permission.USER_WRITE)
        await self._people.drop_role(request.match_info["name"], who)
        return see_other("/roles")

    async def _disable(self, name: str, _request: web.Request, who: Principal) -> None:
        await self._people.disable(name, who)

    async def _enable(self, name: str, _request: web.Request, who: Principal) -> None:
        await self._people.enable(name, who)

    async def _password(self, name: str, _request: web.Request, who: Principal) -> web.Response:
        made = (await self._people.set_password(name, PasswordOrder(), who))["password"]
        title = f"First password of {name}"
        return _shown_once(self._frame, who, title, made, back=_address(name))

    async def _assign(self, name: str, request: web.Request, who: Principal) -> web.Response | None:
        waits = await self._people.assign(name, await _assignment(request), who)
        return None if waits is None else see_other("/approvals")

    async def _withdraw(self, name: str, request: web.Request, who: Principal) -> None:
        await self._people.withdraw(name, await _assignment(request), who)

    async def _revoke_token(self, name: str, request: web.Request, who: Principal) -> None:
        await self._people.revoke_token((await form(request)).get("id", ""), who, name)

    async def _end_sessions(self, name: str, request: web.Request, who: Principal) -> None:
        await self._people.end_sessions(name, (await form(request)).get("id"), who)

    async def _bind(self, name: str, request: web.Request, who: Principal) -> None:
        order = ordered(CertificateOrder, certificate=(await form(request)).get("certificate", ""))
        await self._people.bind_certificate(name, order, who)

    async def _unbind(self, name: str, request: web.Request, who: Principal) -> None:
        await self._people.unbind_certificate(name, (await form(request)).get("id", ""), who)


def ordered(model: type[OrderT], **values: Any) -> OrderT:
    """Make an order of a form; raises BadRequestError naming the field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise BadRequestError(f"{field}: {first['msg']}.", pointer=f"/{field}") from error


def _shown_once(
    frame: Frame, who: Principal, title: str, secret: str, *, back: str
) -> web.Response:
    """Show a secret that was made; it is nowhere else, and no cache keeps the page."""
    context = {"title": title, "secret": secret, "back": back}
    return frame.show("secret.html", who, "users" if back != "/account" else "account", context)


async def _assignment(request: web.Request) -> AssignmentOrder:
    fields = await form(request)
    scope = fields.get("scope", "").strip() or "*"
    return ordered(AssignmentOrder, role=fields.get("role", ""), scope=scope)


def _name_of(who: Principal) -> str:
    return who.name.removeprefix("user:")


def _address(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


def _first(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[0].strip()
