"""Events that could not be applied: kept whole, tried again, or discarded with a reason.

They are authentic, and what came after them was applied already: effects commute, so late is as
good as in time. Each start tries all of them again, because it may be an upgrade.
"""

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select, update

from central.inventory import audit
from central.sync.apply import Applier
from shared.kernel.errors import BadRequestError, Kind, NotFoundError, TmaError
from shared.store.database import Database
from shared.store.schema import quarantine
from shared.store.transaction import Transaction
from shared.sync import events
from shared.sync.events import Lane

_LOG = logging.getLogger(__name__)
_ROWS_MAX = 10_000
_LISTED_MAX = 500
_THIS = (
    (quarantine.c.peer == bindparam("link"))
    & (quarantine.c.segment == bindparam("name"))
    & (quarantine.c.lane == bindparam("lane_number"))
    & (quarantine.c.sequence == bindparam("number"))
)
_OPEN = (
    select(quarantine)
    .where(quarantine.c.resolved_at.is_(None))
    .order_by(quarantine.c.created_at)
    .limit(bindparam("most"))
)
_RESOLVE = (
    update(quarantine)
    .where(_THIS, quarantine.c.resolved_at.is_(None))
    .values(resolved_at=bindparam("now"), resolution=bindparam("how"))
)


async def listed(database: Database) -> list[dict[str, Any]]:
    """Give the oldest events that are kept, with what can be read of them; times are UTC µs."""
    return [_described(row) for row in await database.read(_OPEN, {"most": _LISTED_MAX})]


async def drive_again(database: Database) -> int:
    """Apply what can be applied now; gives how many events left the quarantine."""
    resolved = 0
    for row in await database.read(_OPEN, {"most": _ROWS_MAX}):
        try:
            await database.writer.run(lambda transaction, row=row: _apply(transaction, row))
        except Exception as error:  # one poisonous event must not stop the others
            if isinstance(error, TmaError) and error.kind is Kind.RETRYABLE:
                raise
            continue
        resolved += 1
    if resolved:
        _LOG.info("%d events left the quarantine.", resolved)
    return resolved


def discard(transaction: Transaction, place: str, reason: str, actor: str) -> None:
    """Give an event up, for a reason that is audited; the inbox keeps its bytes all the same.

    Raises BadRequestError (``place`` is not one), NotFoundError (not in quarantine now).
    """
    if not _resolve(transaction, _parsed(place), f"discarded: {reason}"):
        raise NotFoundError(f"There is no event {place} in quarantine.")
    audit.add(transaction, actor, "quarantine.discarded", place, {"reason": reason})


def _apply(transaction: Transaction, row: Any) -> None:
    """Apply an event and let it go, once: whoever comes second finds it gone."""
    if not _resolve(transaction, _place(row), "applied"):
        return
    event = events.decode(row.event)
    events.check(event)
    Applier(row.peer).apply(transaction, event)


def _resolve(transaction: Transaction, place: Mapping[str, Any], how: str) -> bool:
    values = {**place, "now": transaction.now.utc_us, "how": how}
    return transaction.execute(_RESOLVE, values) == 1


def _place(row: Any) -> dict[str, Any]:
    return {
        "link": row.peer,
        "name": row.segment,
        "lane_number": row.lane,
        "number": row.sequence,
    }


def _parsed(place: str) -> dict[str, Any]:
    parts = place.split("/")
    try:
        gateway, segment, lane, sequence = parts
        return {
            "link": gateway,
            "name": segment,
            "lane_number": int(Lane[lane.upper()]),
            "number": int(sequence),
        }
    except (ValueError, KeyError) as error:
        raise BadRequestError(
            "An event in quarantine is named gateway/segment/lane/sequence.",
            remedy="`tma-central quarantine list` gives the names.",
        ) from error


def _described(row: Any) -> dict[str, Any]:
    try:
        event = events.decode(row.event)
        told: dict[str, Any] = {"type": event.type, "actor": event.actor, "at_us": event.utc_us}
    except BadRequestError:
        told = {"type": "", "actor": "", "at_us": None}
    lane = Lane(row.lane).name.lower()
    return {
        "place": f"{row.peer}/{row.segment}/{lane}/{row.sequence}",
        "gateway": row.peer,
        "reason": row.reason,
        "bytes": len(row.event),
        "kept_since_us": row.created_at,
        **told,
    }
