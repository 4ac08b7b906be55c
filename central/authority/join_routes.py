"""The HTTPS door for newborn gateways (port 8446): the transport root for all, joining for one."""

from aiohttp import web

from central.authority.join import Joining
from shared.kernel.errors import BadRequestError, TmaError
from shared.sync.join import CONTENT_TYPE, JOIN_PATH, MESSAGE_BYTES_MAX, ROOT_PATH, JoinRequest
from shared.web.app import read_body
from shared.web.auth import open_to_all
from shared.web.throttle import Throttle


def routes(joining: Joining, failures: Throttle) -> list[web.RouteDef]:
    """Give the routes; ``failures`` bounds how often an address may try a wrong token."""

    async def root(_request: web.Request) -> web.Response:
        return web.Response(body=joining.transport_root, content_type="application/pkix-cert")

    async def join(request: web.Request) -> web.Response:
        address = request.remote or ""
        failures.require(address)
        if request.content_type != CONTENT_TYPE:
            raise BadRequestError(f"A join request has the media type {CONTENT_TYPE}.")
        try:
            asked = JoinRequest.decode(await read_body(request, MESSAGE_BYTES_MAX))
            answer = await joining.join(asked)
        except TmaError:
            failures.count(address)
            raise
        return web.Response(body=answer, content_type=CONTENT_TYPE)

    return [
        web.get(
            ROOT_PATH, open_to_all(root, "the transport root is public; its hash is in the token")
        ),
        web.post(JOIN_PATH, open_to_all(join, "the join token in the request is the credential")),
    ]
