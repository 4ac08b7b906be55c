"""How far each lane is, as both products show it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.kernel.clock import datetime_of
from shared.sync.events import Direction, Lane


class Waits(StrEnum):
    """Why the events of a lane are not confirmed yet."""

    NOTHING = ""  # all of it is confirmed
    HISTORY = "history"  # this database may not go on: nothing is sent
    LINK = "link"  # the other side is out of reach
    RECEIPT = "receipt"  # sent; the other side has not confirmed it
    TURN = "turn"  # the window is full, or another lane goes first


@dataclass(frozen=True, slots=True)
class LaneStanding:
    """One lane of one segment of ours. Sequences are of its last event in that state; 0: none.

    ``oldest_us`` is when the oldest unconfirmed event was written.
    """

    segment: str
    lane: Lane
    state: str  # open, sealed, drained
    head: int
    sent: int
    applied: int
    archived: int
    oldest_us: int | None
    waits: Waits = Waits.NOTHING

    @property
    def waiting(self) -> int:
        """Events that are lost if this box dies now."""
        return self.head - self.applied

    @property
    def unarchived(self) -> int:
        """Events that are lost if this box and the other side's disk die now."""
        return self.head - self.archived


class Rate:
    """Events per second, as an exponentially weighted mean over about a minute."""

    _SPAN_S = 60.0

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._count = 0
        self._at_ns: int | None = None
        self.per_second = 0.0

    def observe(self, count: int, mono_ns: int) -> None:
        """Take how many events there are by now; a count that fell begins anew."""
        if self._at_ns is not None and mono_ns > self._at_ns:
            elapsed_s = (mono_ns - self._at_ns) / 1e9
            rate = max(0, count - self._count) / elapsed_s
            weight = min(1.0, elapsed_s / self._SPAN_S)
            self.per_second += weight * (rate - self.per_second)
        self._count, self._at_ns = count, mono_ns


def shown(gateway: str, direction: Direction, lane: LaneStanding) -> Mapping[str, Any]:
    """Write a lane for REST."""
    oldest_us = lane.oldest_us
    return {
        "gateway": gateway,
        "direction": direction.value,
        "segment": lane.segment,
        "lane": lane.lane.name.lower(),
        "state": lane.state,
        "head": lane.head,
        "sent": lane.sent,
        "applied": lane.applied,
        "archived": lane.archived,
        "waiting": lane.waiting,
        "unarchived": lane.unarchived,
        "oldest_at": None
        if oldest_us is None
        else f"{datetime_of(oldest_us):%Y-%m-%dT%H:%M:%S.%fZ}",
        "waits": lane.waits.value,
    }
