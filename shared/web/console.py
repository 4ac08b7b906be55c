"""Commands from the console of a box: HTTP over a unix socket, for its own user and root only.

The socket's mode and SO_PEERCRED say who asks; no secret is needed and none is kept for it.
"""

import asyncio
import json
import os
import pwd
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from aiohttp import ClientConnectorError, ClientSession, ClientTimeout, UnixConnector, web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.kernel import limits
from shared.kernel.errors import BadRequestError, ForbiddenError, Kind, TmaError
from shared.policy.rights import Permission
from shared.system.processes import address_of, listen_private, peer_uid
from shared.web import app
from shared.web.auth import Handler, needs

_TIMEOUT = ClientTimeout(total=60)


class AbsentError(TmaError):
    """Start the service, for instance with the command `run`, and try again."""

    kind, code = Kind.RETRYABLE, "service-absent"


class AnsweredError(TmaError):
    """Do what the message says: the running service said no."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Take the problem document that the service answered."""
        super().__init__(str(problem["detail"]), remedy=str(problem["remedy"]))
        self.code = str(problem["code"])
        busy = problem["status"] == web.HTTPServiceUnavailable.status_code
        self.kind = Kind.RETRYABLE if busy else Kind.FATAL


class Order(BaseModel):
    """The body of a command: what is not named in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


#: Names of stations, and sentences of people.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=256)]


class RevokeOrder(Order):
    """Revoke a certificate that this box knows; ``serial`` is hex."""

    serial: Text
    reason: Text = "unspecified"


OrderT = TypeVar("OrderT", bound=Order)
#: Takes the request and who asks, ``user:<login>``; what it gives is answered as JSON.
Command = Callable[[web.Request, str], Awaitable[Any]]


@asynccontextmanager
async def serve(path: Path, routes: Iterable[web.AbstractRouteDef]) -> AsyncGenerator[None]:
    """Listen on the socket while the context is open."""
    application = app.create(routes, random=os.urandom)
    runner = web.AppRunner(application, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        listener = listen_private(path, owner_uid=os.geteuid())
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def command(permission: Permission, run: Command) -> Handler:
    """Let root and the service's own user in, and tell the command who it is.

    Both may do everything here, because they could do it to the files as well; the permission is
    the one that the same act needs elsewhere.
    """

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        uid = peer_uid(request.transport.get_extra_info("socket"))
        if uid not in {0, os.geteuid()}:
            raise ForbiddenError("Only root and the service's own user may command it.")
        answer = await run(request, f"user:{_login(uid)}")
        return web.Response(text=json.dumps(answer), content_type="application/json")

    return needs(permission, handler)


async def read_order(
    request: web.Request, model: type[OrderT], limit: int = limits.REQUEST_BODY_BYTES_MAX
) -> OrderT:
    """Read the body of a command; raises BadRequestError naming the field that is wrong."""
    try:
        return model.model_validate_json(await app.read_body(request, limit))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the order"
        raise BadRequestError(f"{field}: {first['msg']}.") from error


def name_and_value(text: str) -> tuple[str, str]:
    """Read a metadata pair that a person typed as ``name=value``; raises BadRequestError."""
    name, sign, value = text.partition("=")
    if not (sign and name.strip()):
        raise BadRequestError(
            f"“{text[:80]}” is no name=value.",
            remedy="Write the name of the pair, = and its value.",
            pointer="/metadata",
        )
    return name.strip(), value.strip()


def order_of(model: type[OrderT], **values: Any) -> OrderT:
    """Make an order of arguments; raises BadRequestError naming the one that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise BadRequestError(f"{field}: {first['msg']}.") from error


def ask(path: Path, method: str, route: str, order: Order | None = None) -> Any:
    """Ask the running service and give its answer.

    Raises AbsentError when nothing listens, AnsweredError when the service says no.
    """
    return asyncio.run(_ask(path, method, route, order))


async def _ask(path: Path, method: str, route: str, order: Order | None) -> Any:
    body = order.model_dump_json() if order else None
    try:
        with address_of(path) as address:
            async with (
                ClientSession(connector=UnixConnector(address), timeout=_TIMEOUT) as session,
                session.request(method, f"http://console{route}", data=body) as response,
            ):
                answer = await response.json(content_type=None)
    except (ClientConnectorError, FileNotFoundError, TimeoutError) as error:
        raise AbsentError(f"No running service answers at {path}.") from error
    if response.status >= web.HTTPBadRequest.status_code:
        raise AnsweredError(answer)
    return answer


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
