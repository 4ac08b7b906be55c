"""Requests that wait for central: 202 and where to ask (RFC 9110 §15.3.3)."""

from typing import Any

from aiohttp import web

from shared.enroll.rest import documents
from shared.enroll.rest.ports import Forwarded, RestPorts
from shared.enroll.rest.rendering import BASE, resource, without_key
from shared.issuance.service import Issued, replay_of
from shared.kernel.errors import NotFoundError, PendingError
from shared.policy.rights import Permission, Place
from shared.web import problems
from shared.web.auth import Handler, Principal


def document(error: PendingError) -> dict[str, Any]:
    """Show a request that waits."""
    data = {
        "type": "enrollment",
        "id": error.reference,
        "attributes": {"state": "waiting", "detail": error.message},
        "links": {"self": _address(error)},
    }
    return {"data": data}


def around(handler: Handler) -> Handler:
    """Answer for a request that waits; its requester asks again, or looks under ``Location``."""

    async def answering(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except PendingError as error:
            headers = {**problems.headers(error), "Location": _address(error)}
            body = documents.encode(document(error))
            return documents.answer(body, status=error.http_status, headers=headers)

    return answering


class Pending:
    """Handler of the addresses that such answers name."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports

    async def fetch(self, request: web.Request) -> web.Response:
        """Give what the request would get if it were sent again: it waits, or what came of it.

        Raises PendingError, RefusedError, and NotFoundError for what is not one's own business.
        """
        principal = await self._ports.authenticator.principal(request)
        forwards, reference = self._ports.forwards, request.match_info["id"]
        found = await forwards.find(reference) if forwards else None
        if found is None or not _concerns(found, principal):
            raise NotFoundError("There is no such request here.")
        outcome = replay_of(found.outcome)
        if not isinstance(outcome, Issued):
            raise outcome
        certified = without_key(outcome, self._ports.chain(outcome.ca_id))
        return documents.answer(documents.encode(resource(certified, "certificate")))


def _concerns(found: Forwarded, principal: Principal) -> bool:
    on = Place(profile=found.profile)
    return found.principal == principal.name or principal.may(Permission.CERTIFICATE_READ, on)


def _address(error: PendingError) -> str:
    return f"{BASE}/enrollments/{error.reference}"
