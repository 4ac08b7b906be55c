"""Open questions and the quarantine by REST: what a person may decide, within his lines."""

from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web
from pydantic import Field

from central.identity.doors import Act, Door
from central.inventory.conflict_reads import FILTERS
from central.inventory.models import CertificateView, ConflictView
from central.questions import Questions
from central.scope import here, lines_of
from shared.enroll.rest import documents, paging
from shared.kernel import limits
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission, Place
from shared.web.auth import Principal
from shared.web.console import Order, Text, read_order

_SEE, _SETTLE = Permission.GATEWAY_READ, Permission.CONFLICT_SETTLE
_QUESTION = r"/conflicts/{id:\d{1,15}}"
FILE_BYTES_MAX = limits.EVENT_BYTES_MAX + 8192
EVENT = "/quarantine/{gateway}/{segment}/{lane}/{sequence}"


class ChoiceOrder(Order):
    """Settle a question; an empty choice changes nothing, and it counts as seen."""

    choice: str = Field(default="", max_length=64)


class ReasonOrder(Order):
    """Why an event is given up."""

    reason: Text


class ImportOrder(Order):
    """Take an exported event back; ``file`` is its bytes in hex."""

    file: str = Field(pattern=r"^([0-9a-f]{2})+$", max_length=2 * FILE_BYTES_MAX)


def console_doors(questions: Questions) -> list[Door]:
    """Give what the console has: pages with the row that the next one is behind."""

    async def listed(request: web.Request, who: Principal) -> Any:
        page = _page(request)
        rows, after = await questions.conflicts(page, lines_of(who, _SEE))
        return {"rows": rows, "after": after}

    return [_listing(listed), *_doors(questions)]


def rest_doors(questions: Questions) -> list[Door]:
    """Give what REST has; each act judges for the gateway that it is about."""

    async def listed(request: web.Request, who: Principal) -> web.Response:
        page = _page(request)
        rows, after = await questions.conflicts(page, lines_of(who, _SEE))
        links = {"self": request.path_qs}
        if after:
            links["next"] = page.link("/conflicts", after)
        data = [{"type": "conflict", "id": row["id"], "attributes": row} for row in rows]
        return documents.answer(documents.encode({"data": data, "links": links}))

    return [_listing(listed), *_doors(questions)]


def place_of(request: web.Request, who: Principal, permission: Permission) -> str:
    """Give the event that an address names, if it is of a line where this is allowed.

    Raises NotFoundError for what one may not even see, else ForbiddenError.
    """
    found = request.match_info
    line = here(found["gateway"])
    if not who.may(_SEE, line):
        raise NotFoundError("There is no such event in quarantine.")
    who.require(permission, on=line)
    return f"{found['gateway']}/{found['segment']}/{found['lane']}/{found['sequence']}"


async def visible(questions: Questions, who: Principal) -> list[dict[str, Any]]:
    """Give the events in quarantine of the lines that somebody may see."""
    lines = lines_of(who, _SEE)
    rows = await questions.quarantined()
    return [row for row in rows if lines is None or row["gateway"] in lines]


async def question_of(
    questions: Questions, number: int, who: Principal
) -> tuple[ConflictView, list[CertificateView]]:
    """Give a question with its sides; NotFoundError also for one that he may not even see."""
    found, certificates = await questions.conflict(number)
    if not who.may(_SEE, here(found.gateway)):
        raise NotFoundError(f"There is no question {number}.")
    return found, certificates


async def settle(questions: Questions, number: int, wanted: str, who: Principal) -> str:
    """Settle a question by a choice; gives what was done, as a sentence.

    Raises NotFoundError, ForbiddenError, ConflictError, BadRequestError.
    """
    found, certificates = await question_of(questions, number, who)
    who.require(_SETTLE, on=here(found.gateway))
    for place in _touched(found, certificates, wanted):  # it may be of another line
        who.require(Permission.CERTIFICATE_REVOKE, on=place)
    return await questions.settle(number, wanted, who.name)


def _touched(
    found: ConflictView, certificates: Sequence[CertificateView], wanted: str
) -> Iterator[Place]:
    """Name the places of the certificates that a choice changes."""
    effects = [effect for one in found.choices if one.name == wanted for effect in one.effects]
    changed = {(effect.ca_id, effect.serial) for effect in effects}
    for one in certificates:
        if (one.line.ca_id, one.line.serial) in changed:
            yield one.place


def _page(request: web.Request) -> paging.Page:
    return paging.read(request.query, FILTERS, size=limits.PAGE_ROWS_MAX, after="[0-9]{1,18}")


def _listing(act: Act) -> Door:
    return Door(_SEE, "GET", "/conflicts", "conflict", act, judges_itself=True)


def _doors(questions: Questions) -> list[Door]:
    async def shown(request: web.Request, who: Principal) -> Any:
        number = int(request.match_info["id"])
        await question_of(questions, number, who)
        return await questions.shown(number)

    async def settled(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, ChoiceOrder)
        number = int(request.match_info["id"])
        return {"id": number, "done": await settle(questions, number, order.choice, who)}

    return [
        Door(_SEE, "GET", _QUESTION, "conflict", shown, judges_itself=True),
        Door(_SETTLE, "POST", f"{_QUESTION}/settle", "conflict", settled, judges_itself=True),
        *_quarantine_doors(questions),
    ]


def _quarantine_doors(questions: Questions) -> list[Door]:
    async def listed(_request: web.Request, who: Principal) -> Any:
        return [{"id": row["place"], **row} for row in await visible(questions, who)]

    async def shown(request: web.Request, who: Principal) -> Any:
        place = place_of(request, who, _SEE)
        return {"id": place, **await questions.event(place)}

    async def export(request: web.Request, who: Principal) -> Any:
        place = place_of(request, who, _SEE)
        return {"id": place, "file": (await questions.export(place)).hex()}

    async def take(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, ImportOrder, 3 * FILE_BYTES_MAX)
        return {"id": await questions.take_back(bytes.fromhex(order.file), who.name)}

    async def discard(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, ReasonOrder)
        await questions.discard(place_of(request, who, _SETTLE), order.reason, who.name)

    async def retry(_request: web.Request, who: Principal) -> Any:
        return {"applied": await questions.retry(who.name)}

    return [
        Door(_SEE, "GET", "/quarantine", "quarantined", listed, judges_itself=True),
        Door(_SETTLE, "POST", "/quarantine/retry", "quarantine", retry),
        Door(_SEE, "GET", EVENT, "quarantined", shown, judges_itself=True),
        Door(_SEE, "GET", f"{EVENT}/export", "quarantined", export, judges_itself=True),
        Door(_SETTLE, "POST", f"{EVENT}/discard", "quarantined", discard, judges_itself=True),
        Door(_SETTLE, "POST", "/quarantine/import", "quarantined", take),
    ]
