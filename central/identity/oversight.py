"""Audit log and approvals by REST and at the console's socket (``central.identity.doors``)."""

from typing import Any

from aiohttp import web
from pydantic import Field

from central.identity.approvals import Approvals
from central.identity.audit_log import ROWS_MAX, AuditLog, Wanted
from central.identity.doors import Door
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Permission
from shared.web import problems
from shared.web.auth import Principal
from shared.web.console import Order, Text, read_order

_READ = Permission.AUDIT_READ
_NUMBER_CHARS_MAX = 15
_PAGE_ROWS = 100


class VerifyOrder(Order):
    """Judge the log; ``checkpoints`` were kept elsewhere, as ``audit checkpoint`` prints them."""

    checkpoints: tuple[Text, ...] = Field(default=(), max_length=64)


class DecisionOrder(Order):
    """Why it is agreed to or refused."""

    remark: str = Field(default="", max_length=256)


def wanted(request: web.Request) -> Wanted:
    """Read what is searched for: ``actor``, ``action`` (``gateway.*``), ``subject``, ``before``."""
    query = request.query
    named = {name: query.get(name, "").strip()[:256] for name in ("actor", "action", "subject")}
    return Wanted(**named, before=number(query.get("before", "0")))


def number(text: str) -> int:
    """Read a number of an address; raises BadRequestError."""
    if not text.isascii() or not text.isdigit() or len(text) > _NUMBER_CHARS_MAX:
        raise BadRequestError(f"{text[:32]!r} is not a number.")
    return int(text)


def doors(log: AuditLog, approvals: Approvals) -> list[Door]:
    """Give what both doors have."""
    return [*_audit_doors(log), *_approval_doors(approvals)]


def _audit_doors(log: AuditLog) -> list[Door]:
    """Give what is read of the audit log; the export streams and is REST's alone."""

    async def search(request: web.Request, _who: Principal) -> Any:
        if "after" in request.query:
            return await log.following(number(request.query["after"]))
        rows = min(number(request.query.get("limit", str(_PAGE_ROWS))), ROWS_MAX)
        return await log.search(wanted(request), rows)

    async def verify(request: web.Request, _who: Principal) -> Any:
        given = request.can_read_body
        order = await read_order(request, VerifyOrder) if given else VerifyOrder()
        return await log.verify(order.checkpoints)

    async def checkpoint(_request: web.Request, _who: Principal) -> Any:
        return await log.checkpoint()

    return [
        Door(_READ, "GET", "/audit", "audit", search),
        Door(_READ, "POST", "/audit/verify", "audit-verdict", verify),
        Door(_READ, "POST", "/audit/checkpoint", "audit-checkpoint", checkpoint),
    ]


def export_door(log: AuditLog) -> Door:
    """Give the whole log as JSON lines, streamed."""

    async def export(request: web.Request, _who: Principal) -> web.StreamResponse:
        response = web.StreamResponse(headers=problems.API_HEADERS)
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        async for part in log.exported():
            await response.write(part)
        await response.write_eof()
        return response

    return Door(_READ, "GET", "/audit/export", "audit", export)


def _approval_doors(approvals: Approvals) -> list[Door]:
    """Give what a second person reads and decides; each request says which permission it needs."""

    async def listed(_request: web.Request, who: Principal) -> Any:
        return await approvals.listed(who)

    async def decide(request: web.Request, who: Principal) -> Any:
        given = request.can_read_body
        order = await read_order(request, DecisionOrder) if given else DecisionOrder()
        return await approvals.decide(
            number(request.match_info["id"]),
            who,
            agreed=request.path.endswith("/agree"),
            remark=order.remark,
        )

    anybody = Permission.STATUS_READ
    return [
        Door(anybody, "GET", "/approvals", "approval", listed, judges_itself=True),
        Door(anybody, "POST", "/approvals/{id}/agree", "approval", decide, judges_itself=True),
        Door(anybody, "POST", "/approvals/{id}/refuse", "approval", decide, judges_itself=True),
    ]
