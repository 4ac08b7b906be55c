"""When a segment opens, what its opening says, and the witness that remembers it.

A segment is a stretch of history that one start of an agent, or one return of a link, wrote. It
names its parent, so that resuming, a restored copy and a clone can be told apart (design.md §5).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.kernel import cbor
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError
from shared.sync.events import OPENED, Event, Lane, SegmentOpened, check
from shared.sync.ports import Head, Segment

OUTAGE_US = 60 * US_PER_SECOND
OUTAGE_EVENTS = 1_000
WITNESS_INTERVAL_US = 600 * US_PER_SECOND
_WITNESS_BYTES_MAX = 1024


def reusable(heads: Mapping[Lane, Head]) -> bool:
    """Tell if a start may go on in the open segment: it holds only its opening event."""
    return all(head.sequence == 1 for head in heads.values())


def opens_after_outage(outage_us: int, unsent: int) -> bool:
    """Tell if a returned link opens a segment: after 60 s *and* 1,000 unsent events."""
    return outage_us > OUTAGE_US and unsent > OUTAGE_EVENTS


def opening_body(segment: Segment) -> dict[str, Any]:
    """Write the body of a segment's ``segment.opened`` event."""
    return {
        "segment": segment.name,
        "parent": segment.parent,
        "parent_heads": encode_heads(segment.parent_heads),
        "start_counter": segment.start_counter,
        "boot_id": segment.boot_id,
        "version": segment.version,
    }


def opened(event: Event) -> Segment:
    """Read a segment's opening event. Raises BadRequestError if the event is none."""
    body = check(event)
    if event.type != OPENED or not isinstance(body, SegmentOpened):
        raise BadRequestError(f"A segment opens with {OPENED!r}, not with {event.type!r}.")
    heads = decode_heads(body.parent_heads)
    return Segment(body.segment, body.parent, heads, body.start_counter, body.boot_id, body.version)


def encode_heads(heads: Mapping[Lane, Head]) -> dict[str, list[Any]]:
    """Write heads for CBOR: lane names to [sequence, hash]."""
    return {lane.name.lower(): [head.sequence, head.hash] for lane, head in heads.items()}


def decode_heads(value: Mapping[str, tuple[int, bytes]]) -> dict[Lane, Head]:
    """Read what ``encode_heads`` wrote: both lanes or none. Raises BadRequestError."""
    if value and value.keys() != _LANE_NAMES.keys():
        raise BadRequestError("The heads of a segment name other lanes than urgent and normal.")
    return {_LANE_NAMES[name]: Head(*head) for name, head in value.items()}


_LANE_NAMES = {lane.name.lower(): lane for lane in Lane}


@dataclass(frozen=True, slots=True)
class Witness:
    """What is kept outside the database: it tells a restored copy from the living one."""

    start_counter: int
    segment: str
    heads: Mapping[Lane, Head]

    def encode(self) -> bytes:
        """Give the bytes to store in a token object, TPM NV or a second file."""
        return cbor.encode(
            {
                "start_counter": self.start_counter,
                "segment": self.segment,
                "heads": encode_heads(self.heads),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Witness":
        """Read what ``encode`` wrote. Raises BadRequestError."""
        value = cbor.decode(data, limit=_WITNESS_BYTES_MAX)
        try:
            heads = decode_heads(value["heads"])
            return cls(int(value["start_counter"]), str(value["segment"]), heads)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadRequestError("The witness cannot be read.") from error


def is_restored_copy(
    witness: Witness | None, newest: Segment | None, heads: Mapping[Lane, Head]
) -> bool:
    """Tell if the database is an old copy: the witness has seen more than the database holds.

    ``newest`` is the open segment of the database (None: an empty one), ``heads`` are its heads.
    Call it at start, before a segment is opened. The database may be one opening ahead of the
    witness: a crash between the commit and the witness's writing.
    """
    if witness is None:
        return False
    if newest is None or newest.start_counter < witness.start_counter:
        return True
    if newest.start_counter > witness.start_counter:
        return False
    if newest.name != witness.segment:
        return newest.parent != witness.segment
    return any(heads[lane].sequence < head.sequence for lane, head in witness.heads.items())
