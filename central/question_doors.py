"""Open questions and the quarantine by REST: what a person may decide, within his lines."""

from typing import Any

from aiohttp import web
from pydantic import Field

from central.identity.doors import Door
from central.questions import Questions
from central.scope import here, lines_of
from shared.kernel import limits
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission
from shared.web.auth import Principal
from shared.web.console import Order, Text, read_order

_SEE, _SETTLE = Permission.GATEWAY_READ, Permission.CONFLICT_SETTLE
FILE_BYTES_MAX = limits.EVENT_BYTES_MAX + 8192
PLACE = "/quarantine/{gateway}/{segment}/{lane}/{sequence}"


class ChoiceOrder(Order):
    """Settle a question; an empty choice changes nothing, and it counts as seen."""

    choice: str = Field(default="", max_length=64)


class ReasonOrder(Order):
    """Why an event is given up."""

    reason: Text


class ImportOrder(Order):
    """Take an exported event back; ``file`` is its bytes in hex."""

    file: str = Field(pattern=r"^([0-9a-f]{2})+$", max_length=2 * FILE_BYTES_MAX)


def doors(questions: Questions) -> list[Door]:
    """Give what REST has; each act judges for the gateway that it is about."""
    return [*_conflict_doors(questions), *_quarantine_doors(questions)]


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


def _conflict_doors(questions: Questions) -> list[Door]:
    async def listed(_request: web.Request, who: Principal) -> Any:
        lines = lines_of(who, _SEE)
        rows = await questions.conflicts()
        return [row for row in rows if lines is None or row["gateway"] in lines]

    async def settle(request: web.Request, who: Principal) -> Any:
        number = int(request.match_info["id"])
        known = [row for row in await listed(request, who) if row["id"] == number]
        if not known:
            raise NotFoundError(f"There is no open question {number}.")
        who.require(_SETTLE, on=here(known[0]["gateway"]))
        order = await read_order(request, ChoiceOrder)
        return {"id": number, "done": await questions.settle(number, order.choice, who.name)}

    return [
        Door(_SEE, "GET", "/conflicts", "conflict", listed, judges_itself=True),
        Door(
            _SETTLE, "POST", r"/conflicts/{id:\d{1,15}}/settle", "conflict", settle,
            judges_itself=True,
        ),
    ]  # fmt: skip


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
        Door(_SEE, "GET", PLACE, "quarantined", shown, judges_itself=True),
        Door(_SEE, "GET", f"{PLACE}/export", "quarantined", export, judges_itself=True),
        Door(_SETTLE, "POST", f"{PLACE}/discard", "quarantined", discard, judges_itself=True),
        Door(_SETTLE, "POST", "/quarantine/import", "quarantined", take),
    ]
