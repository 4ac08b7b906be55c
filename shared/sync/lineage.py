"""One gateway, one history: what its segments must look like from central's side."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from shared.sync.events import Lane
from shared.sync.ports import Head, InboxTransaction, Segment


class Verdict(StrEnum):
    """What central makes of a gateway's history (design.md §5)."""

    RESUME = "resume"
    RESTORED = "restored"  # the gateway's database is an old copy
    CLONE = "clone"  # two histories under one name
    UNKNOWN = "unknown"  # this gateway must join (again)


class Finding(NamedTuple):
    """Why a history cannot go on; ``reason`` is a sentence."""

    verdict: Verdict
    reason: str


def judge(store: InboxTransaction, segment: Segment) -> Finding | None:
    """Tell if a segment cannot follow from what is held of this gateway; None if it can."""
    known = store.in_segment(segment.name)
    if known is not None:
        if known == segment:
            return None
        return Finding(Verdict.CLONE, f"Segment {segment.name} was opened in two ways.")
    if segment.parent is None:
        if store.root() is None:
            return None
        return Finding(
            Verdict.UNKNOWN, f"Segment {segment.name} begins anew: the gateway must join again."
        )
    child = store.child_of(segment.parent)
    if child is not None:
        return Finding(
            Verdict.CLONE, f"Segments {child.name} and {segment.name} have the same parent."
        )
    return behind(store, segment.parent, segment.parent_heads)


def behind(store: InboxTransaction, name: str, heads: Mapping[Lane, Head]) -> Finding | None:
    """Compare the heads that a gateway names for one of its segments with what is held of it."""
    for lane, head in heads.items():
        cursor = store.in_cursor(name, lane)
        place = f"segment {name}, lane {lane.name.lower()}"
        if cursor.applied > head.sequence:
            return Finding(
                Verdict.RESTORED,
                f"The gateway knows {head.sequence} events of {place}; "
                f"{cursor.applied} are held here.",
            )
        if cursor.applied == head.sequence and cursor.applied and cursor.hash != head.hash:
            return Finding(Verdict.CLONE, f"Event {head.sequence} of {place} is another one here.")
    return None
