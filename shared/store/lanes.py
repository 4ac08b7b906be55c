"""How far the lanes of our segments are: bounded index reads, never a count."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, select

from shared.store.database import Database
from shared.store.schema import cursor, outbox, segment
from shared.sync.events import Lane
from shared.sync.standing import LaneStanding

#: What is shown at once: the open segment, and the oldest ones that are not archived.
SEGMENTS_MAX = 100


def _of(lane: Lane) -> Any:
    """Select head, marks and age of one lane of each segment that is not archived."""
    mine = (outbox.c.peer == segment.c.peer) & (outbox.c.segment == segment.c.segment)
    mark = {
        name: func.coalesce(
            select(column)
            .where(
                cursor.c.peer == segment.c.peer,
                cursor.c.direction == "out",
                cursor.c.segment == segment.c.segment,
                cursor.c.lane == lane,
            )
            .correlate(segment)
            .scalar_subquery(),
            0,
        )
        for name, column in (("applied", cursor.c.applied), ("archived", cursor.c.archived))
    }
    head = select(func.max(outbox.c.sequence)).where(mine, outbox.c.lane == lane)
    oldest = select(outbox.c.created_at).where(
        mine, outbox.c.lane == lane, outbox.c.sequence == mark["applied"] + 1
    )
    return (
        select(
            segment.c.segment,
            segment.c.state,
            func.coalesce(head.scalar_subquery(), 0).label("head"),
            mark["applied"].label("applied"),
            mark["archived"].label("archived"),
            oldest.scalar_subquery().label("oldest"),
        )
        .where(
            segment.c.peer == bindparam("link"),
            segment.c.direction == "out",
            segment.c.state.in_(("open", "sealed", "drained")),
        )
        .order_by(segment.c.state != "open", segment.c.state != "sealed", segment.c.number)
        .limit(SEGMENTS_MAX)
    )


_BY_LANE = {lane: _of(lane) for lane in Lane}


async def standing(
    database: Database, peer: str, sent: Mapping[tuple[str, Lane], int]
) -> list[LaneStanding]:
    """Give the lanes of our segments to a peer: the open one first, then the oldest undrained.

    ``sent`` says up to where lanes are on their way now.
    """
    found = [
        LaneStanding(
            segment=row.segment,
            lane=lane,
            state=row.state,
            head=row.head,
            sent=max(row.applied, sent.get((row.segment, lane), 0)),
            applied=row.applied,
            archived=row.archived,
            oldest_us=row.oldest,
        )
        for lane, statement in _BY_LANE.items()
        for row in await database.read(statement, {"link": peer})
    ]
    order = {"open": 0, "sealed": 1, "drained": 2}
    return sorted(found, key=lambda one: order[one.state])
