"""Revocation by query: an estimate, or an operation that runs in the background."""

import hashlib
import os
from typing import Any

from aiohttp import web

from shared.enroll.rest import documents
from shared.enroll.rest.models import Document, RevokeManyAttributes
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import BASE, time_text
from shared.enroll.rest.scope import scope_of
from shared.issuance.revocation_orders import Operation, Wanted
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission
from shared.web.app import read_body
from shared.web.auth import Principal

_ACCEPTED = 202
_ID_BYTES = 16


class Revocations:
    """Handlers."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports
        self._mass = ports.mass_revocation

    async def begin(self, request: web.Request) -> web.Response:
        """Accept the order, or with ``dry_run`` say what it would do."""
        principal = await self._ports.authenticator.principal(request)
        principal.require_somewhere(Permission.CERTIFICATE_REVOKE)
        documents.require_json(request)
        body = documents.parse(Document[RevokeManyAttributes], await read_body(request))
        attributes = body.data.attributes
        wanted = Wanted(
            attributes.filter,
            attributes.reason,
            principal.scopes(Permission.CERTIFICATE_REVOKE),
            principal.name,
        )
        if attributes.dry_run:
            estimates = await self._mass.estimate(wanted)
            data = [
                {
                    "type": "estimate",
                    "id": one.ca_id,
                    "attributes": {"certificates": one.certificates, "crl_bytes": one.crl_bytes},
                }
                for one in estimates
            ]
            return documents.answer(documents.encode({"data": data}))
        scope = scope_of(request, principal.name)
        identifier = (
            hashlib.sha256(scope.text.encode()).digest() if scope else os.urandom(_ID_BYTES)
        )
        operation = await self._mass.begin(identifier[:_ID_BYTES].hex(), wanted)
        return _shown(operation, status=_ACCEPTED)

    async def fetch(self, request: web.Request) -> web.Response:
        """Say how far an operation is."""
        principal = await self._ports.authenticator.principal(request)
        return _shown(await self._visible(request, principal))

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop an operation where it is; what it revoked stays revoked."""
        principal = await self._ports.authenticator.principal(request)
        operation = await self._visible(request, principal)
        return _shown(await self._mass.cancel(operation.operation_id))

    async def _visible(self, request: web.Request, principal: Principal) -> Operation:
        """Find one's own operation; whoever may revoke everything finds every one."""
        operation = await self._mass.find(request.match_info["id"])
        if operation.wanted.actor != principal.name and not principal.may(
            Permission.CERTIFICATE_REVOKE
        ):
            raise NotFoundError("There is no such operation.")
        return operation


def operation_attributes(operation: Operation) -> dict[str, Any]:
    """Show an operation."""
    wanted = operation.wanted
    return {
        "state": operation.state,
        "found": operation.found,
        "revoked": operation.revoked,
        "reason": wanted.reason,
        "filter": wanted.selection.model_dump(mode="json", exclude_defaults=True),
        "actor": wanted.actor,
        "created_at": time_text(operation.created_at_us),
        "updated_at": time_text(operation.updated_at_us),
    }


def _shown(operation: Operation, *, status: int = 200) -> web.Response:
    link = f"{BASE}/operations/{operation.operation_id}"
    data = {
        "type": "operation",
        "id": operation.operation_id,
        "attributes": operation_attributes(operation),
        "links": {"self": link},
    }
    return documents.answer(
        documents.encode({"data": data}), status=status, headers={"Location": link}
    )
