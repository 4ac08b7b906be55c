"""The pages of revocation by query: what is meant, what it would do, and how far it is."""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from central.admin.frame import Frame, form, see_other
from shared.enroll.rest import documents
from shared.issuance.revocation_orders import Estimate, Operation, Revoking, Wanted
from shared.issuance.status import REASONS
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError, TmaError
from shared.policy.rights import Permission
from shared.policy.selection import Selection
from shared.web.auth import Principal
from shared.web.console import name_and_value

_MAY = Permission.CERTIFICATE_REVOKE
_FORM_BYTES = 1024 * 1024  # ten thousand serial numbers
_ID_BYTES = 16
_TEXTS = ("profile", "ca_id", "origin")
_LISTS = ("device_ids", "serials")
_DATES = ("issued_from", "issued_before", "expires_from", "expires_before")
_FIELDS = (*_TEXTS, *_LISTS, *_DATES, "metadata", "reason")


def routes(frame: Frame, mass: Revoking) -> list[web.RouteDef]:
    """Give the routes; who may revoke in a scope revokes in that scope only."""

    def asked(
        who: Principal, fields: Mapping[str, str], error: TmaError | None = None
    ) -> web.Response:
        given = {name: fields.get(name, "") for name in _FIELDS}
        context = {"asked": given, "reasons": REASONS, "error": error}
        status = 200 if error is None else error.http_status
        return frame.show("revocations.html", who, "certificates", context, status=status)

    async def ask(request: web.Request, who: Principal) -> web.Response:
        return asked(who, request.query)

    async def estimate(request: web.Request, who: Principal) -> web.Response:
        fields = await form(request, _FORM_BYTES)
        try:
            wanted = _wanted(_selection(fields), fields.get("reason", ""), who)
            estimates = await mass.estimate(wanted)
        except TmaError as error:
            return asked(who, fields, error)
        context = _estimated(wanted, estimates, os.urandom(_ID_BYTES).hex(), None)
        return frame.show("revocation_estimate.html", who, "certificates", context)

    async def begin(request: web.Request, who: Principal) -> web.Response:
        fields = await form(request, _FORM_BYTES)
        selection = _parsed(fields.get("selection", ""))
        wanted = _wanted(selection, fields.get("reason", ""), who)
        operation_id = fields.get("operation_id", "")
        if not re.fullmatch("[0-9a-f]{32}", operation_id):
            raise BadRequestError("Begin with the criteria.", pointer="/operation_id")
        estimates = await mass.estimate(wanted)
        if error := _not_confirmed(fields.get("count", ""), estimates):
            context = _estimated(wanted, estimates, operation_id, error)
            return frame.show(
                "revocation_estimate.html", who, "certificates", context, status=error.http_status
            )
        operation = await mass.begin(operation_id, wanted)
        return see_other(f"/revocations/{operation.operation_id}")

    return [
        web.get("/revocations", frame.guarded(_MAY, ask)),
        web.post("/revocations", frame.guarded(_MAY, estimate)),
        web.post("/revocations/begin", frame.guarded(_MAY, begin)),
        *_operation_routes(frame, mass),
    ]


def _operation_routes(frame: Frame, mass: Revoking) -> list[web.RouteDef]:
    async def one(request: web.Request, who: Principal) -> Operation:
        found = await mass.find(request.match_info["id"])
        if found.wanted.actor != who.name and not who.may(_MAY):
            raise NotFoundError("There is no such operation.")
        return found

    async def shown(request: web.Request, who: Principal) -> web.Response:
        context = {"operation": await one(request, who)}
        return frame.show("revocation.html", who, "certificates", context)

    async def panel(request: web.Request, who: Principal) -> web.Response:
        context = {"operation": await one(request, who)}
        return frame.show("revocation_panel.html", who, "certificates", context)

    async def cancel(request: web.Request, who: Principal) -> web.Response:
        done = await mass.cancel((await one(request, who)).operation_id)
        return see_other(f"/revocations/{done.operation_id}")

    return [
        web.get("/revocations/{id}", frame.guarded(_MAY, shown)),
        web.get("/panel/revocations/{id}", frame.guarded(_MAY, panel)),
        web.post("/revocations/{id}/cancel", frame.guarded(_MAY, cancel)),
    ]


def _not_confirmed(count: str, estimates: Sequence[Estimate]) -> TmaError | None:
    """Say what is wrong if not this number was confirmed; it may have grown meanwhile."""
    total = sum(one.certificates for one in estimates)
    if count.replace(",", "").strip() == str(total):
        return None
    return ConflictError(
        f"These criteria mean {total:,} certificates; another number was confirmed.",
        remedy="Look again, and confirm the number below.",
    )


def _estimated(
    wanted: Wanted, estimates: Sequence[Estimate], operation_id: str, error: TmaError | None
) -> dict[str, Any]:
    return {
        "selection": wanted.selection.model_dump_json(exclude_defaults=True),
        "criteria": wanted.selection.model_dump(mode="json", exclude_defaults=True),
        "reason": wanted.reason,
        "estimates": estimates,
        "total": sum(one.certificates for one in estimates),
        "operation_id": operation_id,
        "error": error,
    }


def _wanted(selection: Selection, reason: str, who: Principal) -> Wanted:
    return Wanted(selection, reason or "unspecified", who.scopes(_MAY), who.name)


def _selection(fields: Mapping[str, str]) -> Selection:
    """Read the form; raises BadRequestError for what cannot be read or means everything."""
    given: dict[str, Any] = {name: fields.get(name, "").strip() for name in _TEXTS}
    given |= {name: fields.get(name, "").split() for name in _LISTS}
    given |= {name: _day(fields.get(name, "")) for name in _DATES}
    given["metadata"] = dict(map(name_and_value, fields.get("metadata", "").splitlines()))
    try:
        return Selection.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        raise documents.invalid(documents.details(error)) from error


def _parsed(text: str) -> Selection:
    try:
        return Selection.model_validate_json(text)
    except ValidationError as error:
        raise BadRequestError("Begin with the criteria.", pointer="/selection") from error


def _day(text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadRequestError(f"“{text[:20]}” is no date; write 2026-11-27.") from error
