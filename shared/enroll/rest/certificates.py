"""Certificates that exist: fetch, search, revoke, hold, release."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from shared.enroll.rest import documents, downloads, paging
from shared.enroll.rest.finding import find
from shared.enroll.rest.models import Document, HoldAttributes, RevokeAttributes
from shared.enroll.rest.ports import CertificateRow, RestPorts
from shared.enroll.rest.rendering import row_resource
from shared.enroll.rest.scope import scope_of
from shared.kernel.errors import ForbiddenError
from shared.pki import formats
from shared.policy.rights import Permission
from shared.web.app import read_body
from shared.web.auth import Principal

FILTERS = ("cn", "device_id", "profile", "status", "ca_id", "serial", "origin")
_PAGE_ROWS_DEFAULT = 50
_OK = 200
_FILES = ("der", "pem", "pkcs7")

Attributes = TypeVar("Attributes", bound=BaseModel)


class Certificates:
    """Handlers of what happens after issuing."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports

    async def fetch(self, request: web.Request) -> web.Response:
        """Give one certificate: JSON, DER, PEM with its chain or PKCS#7 with its chain."""
        principal = await self._ports.authenticator.principal(request)
        row = await find(request, self._ports.reads, principal, Permission.CERTIFICATE_READ)
        name = downloads.wanted(request, _FILES)
        if row.der is not None and name is not None:
            return downloads.file(name, self._packed(name, row.der, row.ca_id), row.serial)
        document = row_resource(row)
        if row.der is not None:
            chain = formats.pem(self._ports.chain(row.ca_id))
            pem = {"certificate": formats.pem([row.der]), "chain": chain}
            document["data"]["attributes"] |= pem
        return documents.answer(documents.encode(document))

    async def search(self, request: web.Request) -> web.Response:
        """Give certificates newest first, page by page; ``links.next`` leads on."""
        principal = await self._ports.authenticator.principal(request)
        page = paging.read(request.query, FILTERS, size=_PAGE_ROWS_DEFAULT, after="[0-9]{1,18}")
        rows = await self._visible(principal, page.filters, int(page.after or 0), page.size)
        links = {"self": request.path_qs}
        if len(rows) == page.size:
            links["next"] = page.link("/certificates", str(rows[-1].id))
        data = [row_resource(row)["data"] for row in rows]
        return documents.answer(documents.encode({"data": data, "links": links}))

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke for good."""
        status = self._ports.status

        async def revoke(row: CertificateRow, body: RevokeAttributes, actor: str) -> None:
            await status.revoke(row.ca_id, row.serial, body.reason, actor)

        return await self._change(request, Permission.CERTIFICATE_REVOKE, RevokeAttributes, revoke)

    async def hold(self, request: web.Request) -> web.Response:
        """Suspend under a hold id."""
        status = self._ports.status

        async def hold(row: CertificateRow, body: HoldAttributes, actor: str) -> None:
            await status.hold(row.ca_id, row.serial, body.hold_id, actor)

        return await self._change(request, Permission.CERTIFICATE_HOLD, HoldAttributes, hold)

    async def release(self, request: web.Request) -> web.Response:
        """Release one hold id; the certificate is good again when none is left."""
        status = self._ports.status

        async def release(row: CertificateRow, body: HoldAttributes, actor: str) -> None:
            await status.release_hold(row.ca_id, row.serial, body.hold_id, actor)

        return await self._change(request, Permission.CERTIFICATE_HOLD, HoldAttributes, release)

    async def _change(
        self,
        request: web.Request,
        permission: Permission,
        model: type[Attributes],
        change: Callable[[CertificateRow, Attributes, str], Awaitable[None]],
    ) -> web.Response:
        """Change the status of one certificate; each change is idempotent by itself.

        An Idempotency-Key therefore only has to bind its body and to keep the answer.
        """
        principal = await self._ports.authenticator.principal(request)
        documents.require_json(request)
        row = await find(request, self._ports.reads, principal, permission)
        body = await read_body(request)
        attributes = documents.parse(Document[model], body).data.attributes
        scope = scope_of(request, principal.name)
        if scope is not None:
            digest = hashlib.sha256(body).digest()
            kept = await self._ports.kept.bind(*scope.parts, digest)
            if kept is not None:
                return documents.answer(kept.body, status=kept.http_status)
        await change(row, attributes, principal.name)
        self._ports.authenticator.forget()  # it may be somebody's client certificate
        changed = await self._ports.reads.certificate(row.ca_id, row.serial)
        answer = documents.encode(row_resource(changed or row))
        if scope is not None:
            await self._ports.kept.keep_answer(*scope.parts, _OK, answer)
        return documents.answer(answer, status=_OK)

    async def _visible(
        self, principal: Principal, filters: Mapping[str, str], after: int, size: int
    ) -> Sequence[CertificateRow]:
        scopes = principal.scopes(Permission.CERTIFICATE_READ)
        if all(scope.serial is not None for scope in scopes):
            raise ForbiddenError(
                "A device certificate opens its own record only.",
                remedy="Fetch it by its id, or search with a token.",
            )
        return await self._ports.reads.search(filters, scopes, after, size)

    def _packed(self, name: str, der: bytes, ca_id: str) -> bytes:
        if name == "der":
            return der
        path = (der, *self._ports.chain(ca_id))
        return formats.pkcs7(path) if name == "pkcs7" else formats.pem(path).encode()
