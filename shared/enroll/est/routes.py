"""All addresses of EST: ``/.well-known/est[/label]/operation``, on the machine port."""

from aiohttp import web

from shared.enroll.est import answers
from shared.enroll.est.enrolling import ALIAS, PROTOCOL, Enrolling
from shared.enroll.est.ports import EstPorts
from shared.enroll.refusing import Refusing
from shared.kernel.errors import TmaError
from shared.policy.rights import Permission
from shared.web.access_log import PRINCIPAL
from shared.web.auth import Handler, needs, open_to_all
from shared.web.throttle import Throttle

BASE = "/.well-known/est"
_OPEN = "a client needs it before it has a login (RFC 7030 §4.1.1, §4.5.1); it holds no secrets"
#: The doorkeeper demands it of stations, and as much of everybody else.
_ENROLL = Permission.CERTIFICATE_ENROLL


def routes(ports: EstPorts) -> list[web.RouteDef]:
    """Give every route, without a label and with one."""
    enrolling = Enrolling(ports)
    refusing = Refusing(PROTOCOL, ports.refusals, Throttle(ports.clock, burst=60, period_s=3600))
    reading = {"cacerts": enrolling.cacerts, "csrattrs": enrolling.csrattrs}
    writing = {
        "simpleenroll": enrolling.simpleenroll,
        "simplereenroll": enrolling.simplereenroll,
        "serverkeygen": enrolling.serverkeygen,
        "fullcmc": enrolling.fullcmc,
    }
    mounted: list[web.RouteDef] = []
    for base in (BASE, f"{BASE}/{{label}}"):
        mounted += [
            web.get(f"{base}/{name}", open_to_all(_plainly(handler, None), _OPEN))
            for name, handler in reading.items()
        ]
        mounted += [
            web.post(f"{base}/{name}", needs(_ENROLL, _plainly(handler, refusing)))
            for name, handler in writing.items()
        ]
    return mounted


def _plainly(handler: Handler, refusing: Refusing | None) -> Handler:
    """Answer errors as EST does; with ``refusing`` it enrolls, and each refusal leaves a trace."""

    async def answering(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except TmaError as error:
            if refusing is not None:
                await refusing.record(error, request.get(PRINCIPAL), request.get(ALIAS, ""))
            return answers.failure(error, enrolling=refusing is not None)

    return answering
