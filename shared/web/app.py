"""The application factory: what surrounds every handler of both products.

From the outside in: error rendering, a deadline, the origin check, then the handler. Bodies are
read by ``read_body`` only, which bounds size and time, before anything in them is believed.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext

from aiohttp import web
from aiohttp.typedefs import Handler

from shared.kernel import limits
from shared.kernel.errors import BadRequestError, TmaError, TooLargeError, UnavailableError
from shared.kernel.ids import Random
from shared.web import problems
from shared.web.access_log import JsonAccessLogger
from shared.web.auth import need_of
from shared.web.front import Front, Responder
from shared.web.origin import require_same_origin
from shared.web.pages import Pages

_BODY_READ_S = 30
_KEEPALIVE_S = 60  # also bounds a client that opens a connection and sends no whole header
_SHUTDOWN_S = 10
_LINGER_S = 2  # how long a refused body is still taken in, so that the client reads our answer
_BACKLOG = 512


def create(
    routes: Iterable[web.AbstractRouteDef],
    *,
    random: Random,
    pages: Pages | None = None,
    deadline_s: float = 300,
) -> web.Application:
    """Build an application; no route is served that does not say who may (``shared.web.auth``).

    With ``pages`` a browser gets errors as pages and login redirects. ``deadline_s`` bounds every
    handler: a batch of 1,000 on a slow token is the longest.
    """
    app = web.Application(
        middlewares=[_boundary(pages, random, deadline_s)],
        client_max_size=limits.BATCH_BODY_BYTES_MAX,
    )
    mounted = [*routes, *(pages.routes() if pages is not None else ())]
    unsaid = [
        f"{route.method} {route.path}"
        for route in mounted
        if isinstance(route, web.RouteDef) and need_of(route.handler) is None
    ]
    assert not unsaid, f"{unsaid} must say who may: wrap them in `needs` or `open_to_all`"
    app.add_routes(mounted)
    return app


async def read_body(request: web.Request, limit: int = limits.REQUEST_BODY_BYTES_MAX) -> bytes:
    """Read at most ``limit`` bytes; raises TooLargeError, BadRequestError when it takes too long.

    A Content-Length over the limit is refused before a byte is read.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if request.content.is_eof():  # all of it came with the header: nothing to wait for
        body = request.content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        return body
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_READ_S):
            while part := await request.content.readany():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError as error:
        raise BadRequestError("The request's body did not arrive in time.") from error
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One application on one address; ``port`` 0 takes a free one, ``tls`` None is plain HTTP.

    ``front`` sees what small requests there are on a plain port first.
    """

    app: web.Application
    host: str
    port: int
    tls: SSLContext | None = None
    front: Responder | None = None


@asynccontextmanager
async def serve(endpoints: Sequence[Endpoint]) -> AsyncGenerator[list[int]]:
    """Listen while the context is open; gives the bound ports in order.

    On the way out listening stops at once, running requests get 10 s to finish.
    """
    async with AsyncExitStack() as stack:
        ports = [await _listen(endpoint, stack) for endpoint in endpoints]
        yield ports


async def _listen(endpoint: Endpoint, stack: AsyncExitStack) -> int:
    runner = web.AppRunner(
        endpoint.app,
        handle_signals=False,
        access_log_class=JsonAccessLogger,
        keepalive_timeout=_KEEPALIVE_S,
        lingering_time=_LINGER_S,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if endpoint.front is not None and endpoint.tls is None:
        return await _listen_in_front(endpoint, endpoint.front, runner, stack)
    site = web.TCPSite(
        runner, endpoint.host, endpoint.port, ssl_context=endpoint.tls, backlog=_BACKLOG
    )
    await site.start()
    return site.port


async def _listen_in_front(
    endpoint: Endpoint, respond: Responder, runner: web.AppRunner, stack: AsyncExitStack
) -> int:
    make = runner.server
    assert make is not None
    connections: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: Front(respond, make, connections), endpoint.host, endpoint.port, backlog=_BACKLOG
    )

    def close() -> None:
        server.close()
        for connection in tuple(connections):
            connection.close()

    stack.callback(close)
    return server.sockets[0].getsockname()[1]


def _boundary(pages: Pages | None, random: Random, deadline_s: float):  # noqa: ANN202  # aiohttp's own type
    @web.middleware
    async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
        deadline = asyncio.timeout(deadline_s)
        try:
            async with deadline:
                require_same_origin(request)
                return await handler(request)
        except TmaError as error:
            problem = error
        except web.HTTPException as error:
            if error.status < 400:  # noqa: PLR2004  # a redirect is an answer, not an error
                raise
            problem = problems.from_http(error)
        except Exception as error:  # noqa: BLE001  # the last line of defence
            if deadline.expired():
                problem = UnavailableError("This took too long and was given up.", retry_after_s=5)
            else:
                problem = problems.incident(error, random(6).hex())
        if pages is not None and "text/html" in request.headers.get("Accept", ""):
            return pages.error(request, problem)
        return problems.response(problem)

    return boundary


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The request's body is larger than the {limit} bytes accepted here.")
