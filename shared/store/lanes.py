"""How far the lanes of our segments are: bounded index reads, never a count."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select, true

from shared.store.database import Database
from shared.store.schema import cursor, outbox, segment
from shared.sync.events import Lane
from shared.sync.standing import LaneStanding

#: What is shown of a peer: the open segment, and the oldest ones that are not archived.
SEGMENTS_MAX = 100
_ORDER = {"open": 0, "sealed": 1, "drained": 2}


def _of(lane: Lane, wanted: ColumnElement[bool]) -> Any:
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
    place = func.row_number().over(
        partition_by=segment.c.peer,
        order_by=(segment.c.state != "open", segment.c.state != "sealed", segment.c.number),
    )
    found = (
        select(
            segment.c.peer,
            segment.c.segment,
            segment.c.state,
            func.coalesce(head.scalar_subquery(), 0).label("head"),
            mark["applied"].label("applied"),
            mark["archived"].label("archived"),
            oldest.scalar_subquery().label("oldest"),
            place.label("place"),
        )
        .where(wanted, segment.c.direction == "out", segment.c.state.in_(_ORDER))
        .subquery()
    )
    return select(found).where(found.c.place <= SEGMENTS_MAX).order_by(found.c.place)


_OF_ONE = {lane: _of(lane, segment.c.peer == bindparam("link")) for lane in Lane}
_OF_ALL = {lane: _of(lane, true()) for lane in Lane}


async def standing(
    database: Database, peer: str, sent: Mapping[tuple[str, Lane], int]
) -> list[LaneStanding]:
    """Give the lanes of our segments to a peer: the open one first, then the oldest undrained.

    ``sent`` says up to where lanes are on their way now.
    """
    found = [
        _standing(row, lane, sent)
        for lane, statement in _OF_ONE.items()
        for row in await database.read(statement, {"link": peer})
    ]
    return sorted(found, key=lambda one: _ORDER[one.state])


async def standings(
    database: Database, sent: Mapping[str, Mapping[tuple[str, Lane], int]]
) -> dict[str, list[LaneStanding]]:
    """Give the same for every peer, in two queries however many they are."""
    found: dict[str, list[LaneStanding]] = {}
    for lane, statement in _OF_ALL.items():
        for row in await database.read(statement):
            standing = _standing(row, lane, sent.get(row.peer, {}))
            found.setdefault(row.peer, []).append(standing)
    return {peer: sorted(of, key=lambda one: _ORDER[one.state]) for peer, of in found.items()}


def _standing(row: Any, lane: Lane, sent: Mapping[tuple[str, Lane], int]) -> LaneStanding:
    return LaneStanding(
        segment=row.segment,
        lane=lane,
        state=row.state,
        head=row.head,
        sent=max(row.applied, sent.get((row.segment, lane), 0)),
        applied=row.applied,
        archived=row.archived,
        oldest_us=row.oldest,
    )
