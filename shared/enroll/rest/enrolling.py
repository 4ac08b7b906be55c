"""The POSTs that issue: one certificate, a batch, a renewal."""

import asyncio
from collections.abc import Collection
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json

from shared.enroll.refusing import Refusing
from shared.enroll.rest import documents, pending
from shared.enroll.rest.content import Wish, enrollment, renewal, signing_request
from shared.enroll.rest.finding import find
from shared.enroll.rest.models import (
    Batch,
    Data,
    Document,
    EnrollAttributes,
    Format,
    KeyAttributes,
    RenewAttributes,
)
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import Certified, resource, without_key
from shared.enroll.rest.scope import Scope, scope_of
from shared.enroll.rest.server_keys import ServerKeys
from shared.kernel import limits
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PendingError,
    TmaError,
)
from shared.pki.request import CertificationRequest
from shared.policy.rights import Permission
from shared.web.app import read_body
from shared.web.auth import Principal

#: The brochure's names of two profiles; every other profile ``x`` is ``cert_x``.
BROCHURE_PROFILES = {"server": "tls-server", "client": "tls-client"}
_TYPES = ("certificate", "certificates")
_PROFILE_POINTER = "/data/attributes/profile"
_ITEMS_AT_ONCE = 64  # enough to share commits, few enough that other requests get their turn
_CREATED = 201

_Item = Data[EnrollAttributes] | TmaError


class Enrolling:
    """Handlers of the issuing routes."""

    def __init__(self, ports: RestPorts, refusing: Refusing) -> None:
        """Take the ports and where refusals are written down."""
        self._ports = ports
        self._refusing = refusing
        self._server_keys = ServerKeys(ports)

    async def issue(self, request: web.Request) -> web.Response:
        """Issue one certificate for the profile that the attributes name."""
        return await self._issue(request, _TYPES, None)

    async def issue_for_profile(self, request: web.Request) -> web.Response:
        """Issue one certificate for the profile that the address names."""
        name = request.match_info["profile"]
        return await self._issue(request, (f"cert_{name}",), BROCHURE_PROFILES.get(name, name))

    async def batch(self, request: web.Request) -> web.Response:
        """Issue up to 1,000 certificates; each gets its own result, in the order of the wishes."""
        principal = await self._ports.authenticator.principal(request)
        documents.require_json(request)
        items = _items(await read_body(request, limits.BATCH_BODY_BYTES_MAX))
        scope = scope_of(request, principal.name)
        turns = asyncio.Semaphore(_ITEMS_AT_ONCE)

        async def result(index: int, item: _Item) -> dict[str, Any]:
            async with turns:
                return await self._result(principal, index, item, scope)

        results = await asyncio.gather(*(result(*item) for item in enumerate(items)))
        return documents.answer(documents.encode({"data": results}))

    async def renew(self, request: web.Request) -> web.Response:
        """Issue a successor; by a token, or by the certificate that is to be renewed."""
        principal = await self._ports.authenticator.principal(request)
        documents.require_json(request)
        row = await find(request, self._ports.reads, principal, Permission.CERTIFICATE_RENEW)
        if row.der is None or row.status != "good":
            raise ConflictError("Only a good certificate can be renewed.")
        data = documents.parse(Document[RenewAttributes], await read_body(request)).data
        wish = renewal(
            data.attributes,
            row.der,
            profile=row.profile or "",
            device_id=row.device_id,
            replaces=(row.ca_id, row.serial),
        )
        scope = scope_of(request, principal.name)
        csr = signing_request(data.attributes)
        certified = await self._certify(principal, wish, data.attributes, csr, scope)
        return _created(certified, data.type)

    async def _issue(
        self, request: web.Request, types: Collection[str], profile: str | None
    ) -> web.Response:
        principal = await self._ports.authenticator.principal(request)
        documents.require_json(request)
        data = documents.parse(Document[EnrollAttributes], await read_body(request)).data
        if data.type not in types:
            known = "” or “".join(sorted(types))
            raise BadRequestError(f"The type here is “{known}”.", pointer="/data/type")
        scope = scope_of(request, principal.name)
        return _created(await self._enroll(principal, data.attributes, profile, scope), data.type)

    async def _result(
        self, principal: Principal, index: int, item: _Item, scope: Scope | None
    ) -> dict[str, Any]:
        """Do one item of a batch; what is wrong with it stays with it."""
        profile = ""
        try:
            if isinstance(item, TmaError):
                raise item
            profile = item.attributes.profile or ""
            if item.type not in _TYPES:
                raise BadRequestError(f"The type here is “{_TYPES[0]}”.", pointer="/data/type")
            item_scope = scope.item(index) if scope else None
            certified = await self._enroll(principal, item.attributes, None, item_scope)
        except PendingError as error:
            return {"status": error.http_status, **pending.document(error)}
        except TmaError as error:
            await self._refusing.record(error, principal.name, profile)
            return {"status": error.http_status, "problem": documents.item_problem(error, index)}
        return {"status": _CREATED, **resource(certified, item.type)}

    async def _enroll(
        self,
        principal: Principal,
        attributes: EnrollAttributes,
        profile: str | None,
        scope: Scope | None,
    ) -> Certified:
        name = profile or attributes.profile
        if name is None:
            raise BadRequestError("Name the profile.", pointer=_PROFILE_POINTER)
        if attributes.profile not in {None, name}:
            raise BadRequestError(
                f"This address issues for the profile {name} only.", pointer=_PROFILE_POINTER
            )
        if not principal.may_use(name):
            raise ForbiddenError(
                f"You may not enroll for the profile {name}.", pointer=_PROFILE_POINTER
            )
        csr = signing_request(attributes)
        wish = enrollment(attributes, name, csr)
        try:
            return await self._certify(principal, wish, attributes, csr, scope)
        except NotFoundError as error:
            if profile is not None:
                raise
            raise BadRequestError(error.message, pointer=_PROFILE_POINTER) from error

    async def _certify(
        self,
        principal: Principal,
        wish: Wish,
        attributes: KeyAttributes,
        csr: CertificationRequest | None,
        scope: Scope | None,
    ) -> Certified:
        if csr is None:
            return await self._server_keys.certify(principal.name, wish, attributes, scope)
        if attributes.format in {Format.PKCS8, Format.PKCS12} or attributes.password is not None:
            raise BadRequestError(
                "With a CSR the key stays with you: there is nothing to encrypt.",
                pointer="/data/attributes/format",
            )
        if attributes.key_type is not None:
            raise BadRequestError(
                "With a CSR the key stays with you: its type is that of the CSR.",
                pointer="/data/attributes/key_type",
            )
        key = scope.text if scope else None
        request = wish.by(principal.name, csr.public_key, key, csr.signature_hash)
        issued = await self._ports.issuance.issue(request)
        return without_key(issued, self._ports.chain(issued.ca_id), attributes.format)


def _created(certified: Certified, type_name: str) -> web.Response:
    document = resource(certified, type_name)
    headers = {"Location": document["data"]["links"]["self"]}
    return documents.answer(documents.encode(document), status=_CREATED, headers=headers)


def _items(body: bytes) -> list[_Item]:
    """Parse a batch at once, or item by item if one of them is wrong."""
    try:
        return list(Batch.model_validate_json(body).data)
    except ValidationError as error:
        wrong = documents.details(error)
        if any(len(detail["loc"]) < 2 for detail in wrong):  # noqa: PLR2004  # not inside an item
            raise documents.invalid(wrong) from error
    return [_item(item) for item in from_json(body)["data"]]


def _item(item: Any) -> _Item:
    try:
        return Data[EnrollAttributes].model_validate(item)
    except ValidationError as error:
        return documents.invalid(documents.details(error), "/data")
