"""Events that could not be applied: kept whole, tried again, or discarded with a reason.

They are authentic, and what came after them was applied already: effects commute, so late is as
good as in time. Each start tries all of them again, because it may be an upgrade.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import bindparam, insert, select, update

from central.inventory import audit
from central.sync.apply import Applier
from central.sync.directive_keys import DirectiveKeys
from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError, Kind, NotFoundError, TmaError
from shared.pki import cose
from shared.store.database import Database
from shared.store.schema import inbox_event, quarantine
from shared.store.transaction import Transaction
from shared.sync import events
from shared.sync.events import Lane

_LOG = logging.getLogger(__name__)
_ROWS_MAX = 10_000
_LISTED_MAX = 500
DISCARDED = "discarded: "
#: The type in the signature of an exported event.
_EXPORT = "tma-quarantine"
_EXPORT_BYTES_MAX = limits.EVENT_BYTES_MAX + 4096
_THIS = (
    (quarantine.c.peer == bindparam("link"))
    & (quarantine.c.segment == bindparam("name"))
    & (quarantine.c.lane == bindparam("lane_number"))
    & (quarantine.c.sequence == bindparam("number"))
)
_ONE = select(quarantine).where(_THIS)
_KEPT_EVENT = select(inbox_event.c.event).where(
    inbox_event.c.peer == bindparam("link"),
    inbox_event.c.segment == bindparam("name"),
    inbox_event.c.lane == bindparam("lane_number"),
    inbox_event.c.sequence == bindparam("number"),
)
_INSERT = insert(quarantine)
_REOPEN = (
    update(quarantine)
    .where(_THIS, quarantine.c.resolution.startswith(DISCARDED))
    .values(resolved_at=None, resolution=None, reason=bindparam("why"))
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
    if not _resolve(transaction, _parsed(place), f"{DISCARDED}{reason}"):
        raise NotFoundError(f"There is no event {place} in quarantine.")
    audit.add(transaction, actor, "quarantine.discarded", place, {"reason": reason})


async def shown(database: Database, place: str) -> dict[str, Any]:
    """Give all of one event: what ``listed`` gives, its body, and what became of it.

    Raises BadRequestError (``place`` is not one), NotFoundError (it never was in quarantine).
    """
    row = await _found(database, place)
    described = _described(row)
    return described | {
        "body": _body(row.event),
        "resolved_us": row.resolved_at,
        "resolution": row.resolution,
    }


async def exported(database: Database, place: str, keys: DirectiveKeys) -> bytes:
    """Give one event as a signed file: its bytes as they came, from where, and why it is kept."""
    row = await _found(database, place)
    document = {**_place(row), "event": row.event, "reason": row.reason, "kept": row.created_at}
    by = keys.current
    return cose.sign1(cbor.encode(document), key=by.key, kid=by.kid, type=_EXPORT, external_aad=b"")


def imported(transaction: Transaction, data: bytes, keys: DirectiveKeys, actor: str) -> str:
    """Take back an event that this central exported; gives its place. Repeats change nothing.

    One that was applied stays so, one that was discarded is kept again. Raises UntrustedError
    (another central's file, or damaged), BadRequestError.
    """
    payload = cose.open1(
        data,
        find_key=keys.find,
        type=_EXPORT,
        external_aad=b"",
        limit=_EXPORT_BYTES_MAX,
    )
    document = cbor.decode(payload, limit=_EXPORT_BYTES_MAX)
    place = {name: document[name] for name in ("link", "name", "lane_number", "number")}
    known: Any = transaction.one(_ONE, place)
    if known is not None:
        transaction.execute(_REOPEN, {**place, "why": document["reason"]})
    elif transaction.one(_KEPT_EVENT, place) is None:
        # A central that was put back from a backup may not know it any more.
        row = {
            "peer": place["link"],
            "segment": place["name"],
            "lane": place["lane_number"],
            "sequence": place["number"],
            "reason": document["reason"],
            "event": document["event"],
            "created_at": document["kept"],
        }
        transaction.execute(_INSERT, row)
    named = _named(place["link"], place["name"], place["lane_number"], place["number"])
    audit.add(transaction, actor, "quarantine.imported", named, {})
    return named


async def _found(database: Database, place: str) -> Any:
    rows = await database.read(_ONE, _parsed(place))
    if not rows:
        raise NotFoundError(f"There never was an event {place} in quarantine.")
    return rows[0]


def _body(data: bytes) -> Any:
    """Give the body of an event for reading: bytes in hex; None when it cannot be read."""
    try:
        return _readable(dict(events.decode(data).body))
    except BadRequestError:
        return None


def _readable(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            items = cast("dict[Any, Any]", value).items()
            return {str(name): _readable(one) for name, one in items}
        case list() | tuple():
            return [_readable(one) for one in cast("Sequence[Any]", value)]
        case _:
            return value


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


def _named(gateway: str, segment: str, lane: int, sequence: int) -> str:
    return f"{gateway}/{segment}/{Lane(lane).name.lower()}/{sequence}"


def _described(row: Any) -> dict[str, Any]:
    try:
        event = events.decode(row.event)
        told: dict[str, Any] = {"type": event.type, "actor": event.actor, "at_us": event.utc_us}
    except BadRequestError:
        told = {"type": "", "actor": "", "at_us": None}
    return {
        "place": _named(row.peer, row.segment, row.lane, row.sequence),
        "gateway": row.peer,
        "reason": row.reason,
        "bytes": len(row.event),
        "kept_since_us": row.created_at,
        **told,
    }
