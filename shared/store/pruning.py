"""Deleting events that the peer applied but has in no backup: only where an administrator says so.

What is archived is deleted by the engine itself (``shared.sync.outbox.confirm``). Here goes the
opt-in rule by age and size, with its price: of these events the peer holds the only copy, and that
is shown for as long as it is so (design.md §5). What is not applied is never deleted.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from shared.kernel.clock import US_PER_SECOND
from shared.store.database import Database
from shared.store.schema import cursor, outbox, pruned, segment
from shared.store.transaction import Transaction

_DAY_US = 24 * 3600 * US_PER_SECOND
_ROWS_PER_COMMIT = 100

_CANDIDATES = (
    select(cursor.c.segment, cursor.c.lane, cursor.c.applied, cursor.c.archived)
    .join(
        segment,
        (segment.c.peer == cursor.c.peer)
        & (segment.c.direction == cursor.c.direction)
        & (segment.c.segment == cursor.c.segment),
    )
    .where(
        cursor.c.peer == bindparam("link"),
        cursor.c.direction == "out",
        cursor.c.applied > cursor.c.archived + 1,
    )
    .order_by(segment.c.number, cursor.c.lane)
)
_LANE = (
    (outbox.c.peer == bindparam("link"))
    & (outbox.c.segment == bindparam("name"))
    & (outbox.c.lane == bindparam("lane_number"))
)
_BETWEEN = (outbox.c.sequence > bindparam("after")) & (outbox.c.sequence < bindparam("before"))
_OLD = (
    select(outbox.c.sequence)
    .where(_LANE, _BETWEEN, outbox.c.created_at <= bindparam("until"))
    .order_by(outbox.c.sequence)
    .limit(_ROWS_PER_COMMIT)
)
_DELETE = delete(outbox).where(_LANE, _BETWEEN)
_inserted = insert(pruned)
_NOTE = _inserted.on_conflict_do_update(
    index_elements=list(pruned.primary_key), set_={"through": _inserted.excluded.through}
)
_SAME_LANE = (
    (cursor.c.peer == pruned.c.peer)
    & (cursor.c.direction == "out")
    & (cursor.c.segment == pruned.c.segment)
    & (cursor.c.lane == pruned.c.lane)
)
_ONLY_THERE = select(
    func.coalesce(func.sum(pruned.c.through - cursor.c.archived), 0).label("events")
).join(cursor, _SAME_LANE)
_ONLY_THERE_OF = _ONLY_THERE.where(
    pruned.c.peer == bindparam("link"), pruned.c.through > cursor.c.archived
)
_FORGET = delete(pruned).where(
    pruned.c.peer == bindparam("link"),
    select(cursor.c.archived).where(_SAME_LANE).correlate(pruned).scalar_subquery()
    >= pruned.c.through,
)
_USED = text(
    "SELECT (p.page_count - f.freelist_count) * s.page_size AS used "
    "FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """How long applied events wait for a backup of the peer: days, and size of the database.

    0 means for ever. Both at 0, the default, delete nothing that is not archived.
    """

    days: int = 0
    megabytes: int = 0


async def prune(database: Database, peer: str, rule: Rule, now_us: int) -> int:
    """Apply the rule; gives how many events were deleted. Each commit is a small one."""
    deleted = 0
    while rule.days or rule.megabytes:
        until_us = now_us - rule.days * _DAY_US if rule.days else None
        if rule.megabytes and await _used_bytes(database) > rule.megabytes * 1_000_000:
            until_us = now_us
        if until_us is None:
            break
        count = await database.writer.run(
            lambda tx, until_us=until_us: _delete_some(tx, peer, until_us)
        )
        deleted += count
        if count == 0:
            break
    await database.writer.run(lambda tx: tx.execute(_FORGET, {"link": peer}))
    return deleted


async def held_by_peer_only(database: Database, peer: str) -> int:
    """Count the events that were deleted here and are in no backup there."""
    rows = await database.read(_ONLY_THERE_OF, {"link": peer})
    return rows[0].events


def _delete_some(tx: Transaction, peer: str, until_us: int) -> int:
    """Delete the oldest events of the first lane that has some.

    The rows at *archived* and at *applied* stay: a session resumes by their hashes.
    """
    for lane in tx.all(_CANDIDATES, {"link": peer}):
        place = {"link": peer, "name": lane.segment, "lane_number": lane.lane}
        between = {"after": lane.archived, "before": lane.applied}
        old: list[Any] = tx.all(_OLD, {**place, **between, "until": until_us})
        if old:
            last = old[-1].sequence
            row = {"peer": peer, "segment": lane.segment, "lane": lane.lane, "through": last}
            tx.execute(_NOTE, row)
            return tx.execute(_DELETE, {**place, "after": lane.archived, "before": last + 1})
    return 0


async def _used_bytes(database: Database) -> int:
    return (await database.read(_USED))[0].used
