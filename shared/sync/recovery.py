"""A restored gateway takes its own events back from central and goes on in a new segment.

Its database is an old copy. Central holds what it had reported since; what it wrote since that
central does not hold (issued offline before anybody noticed) is written again behind it. So the
two histories become one again: nothing that either side knows is lost (design.md §5).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError
from shared.sync import events, inbox, outbox, segments
from shared.sync.envelope import BATCH_BYTES_MAX, Batch, Message, batch_of
from shared.sync.errands import Given, Taken, Trouble
from shared.sync.events import OPENED, Lane
from shared.sync.lineage import Finding, Verdict
from shared.sync.messages import HelloSegment, Part
from shared.sync.outbox import GENESIS_HASH
from shared.sync.ports import (
    NOTHING,
    Cursor,
    Head,
    LinkTransaction,
    OutSegment,
    Row,
    Segment,
)

#: Newest segments that an ask names: central goes on from the newest of them that it knows.
_NAMED = 16
_ALL = 1 << 31
_PAGE = 1_000
_POSITION_BYTES_MAX = 8 * 1024
_NONE: Mapping[Lane, Head] = dict.fromkeys(Lane, Head(0, GENESIS_HASH))

AnyMessage = TypeVar("AnyMessage", bound=Message)


class Place(NamedTuple):
    """A segment and how far its lanes are."""

    segment: str
    heads: Mapping[Lane, Head]


class Position(NamedTuple):
    """Where an errand is.

    ``places``: what the gateway names, or where central is, and what is newest last of all.
    ``ends``, with the last part: where the older stretches of its history end, the newest first. A
    restored central may hold several: the gateway's open segment came first, and what lies before
    it never. All of them count, also those that the gateway had taken back before it crashed.
    """

    places: Sequence[Place]
    ends: Sequence[Place] = ()


def begin(store: LinkTransaction) -> bytes:
    """Name our newest segments, and how far central confirmed each of them.

    From here on the database itself remembers that it is an old copy: a crash changes nothing.
    """
    store.set_doubt(Verdict.RESTORED.value)
    named = [
        Place(out.segment.name, {lane: Head(*out.confirmed[lane][:2]) for lane in Lane})
        for out in store.out_newest(_NAMED)
    ]
    return _encode(Position(named))


def give(store: LinkTransaction, position: bytes) -> Given | Finding:
    """Give the next of a gateway's own events; or find that its history is another one than ours.

    From here on nothing that the network kept of its earlier life is taken any more, until it says
    hello with the segment that follows. A database that forgot events may have forgotten
    directives too: they are all written again.
    """
    store.set_fenced(fenced=True)
    if any(cursor.applied for out in store.out_segments(0) for cursor in out.confirmed.values()):
        outbox.reissue(store)
    asked = _decode(position)
    place = _common(store, asked.places)
    if isinstance(place, Finding):
        return place
    if place is None:
        return Given([], _encode(Position([])), done=True)
    return _rows_of(store, place) or _beyond(store, place)


def _rows_of(store: LinkTransaction, place: Place) -> Given | None:
    """Give what follows in this segment; None: no more of it is held."""
    for lane in Lane:
        after = place.heads[lane]
        rows = store.in_rows(
            place.segment, lane, after.sequence, limits.ENVELOPE_EVENTS_MAX, BATCH_BYTES_MAX
        )
        if rows:
            batch = batch_of(place.segment, lane, after.hash, rows, 0)
            moved = Place(place.segment, {**place.heads, lane: _head(rows[-1])})
            content = [cbor.encode(batch.model_dump())]
            return Given(content, _encode(Position([moved])), done=False)
    return None


def _beyond(store: LinkTransaction, place: Place) -> Given:
    """Go on with the segment that follows, or with the next stretch; or say that this is all.

    A segment of which only a hello told is described: without it the gateway could not follow the
    lineage through it.
    """
    older, newer = _other_stretches(store, place.segment)
    following = store.child_of(place.segment) or next(iter(newer), None)
    if following is None:
        ends = [_end(store, beginning) for beginning in older[::-1][:_NAMED]]
        return Given([], _encode(Position([place], ends)), done=True)
    begun = Place(following.name, _NONE)
    if (given := _rows_of(store, begun)) is not None:
        return given
    described = HelloSegment.of(OutSegment(following, is_open=False, heads={}, confirmed={}))
    content = [cbor.encode(described.model_dump())]
    return Given(content, _encode(Position([begun])), done=False)


def _other_stretches(
    store: LinkTransaction, name: str
) -> tuple[Sequence[Segment], Sequence[Segment]]:
    """Give where stretches begin that are older than the one of this segment, and newer ones."""
    beginnings = store.stretches()
    segment = store.in_segment(name) if len(beginnings) > 1 else None
    while segment is not None and segment not in beginnings:
        segment = store.in_segment(segment.parent) if segment.parent else None
    if segment is None:
        return (), ()
    at = beginnings.index(segment)
    return beginnings[:at], beginnings[at + 1 :]


def _end(store: LinkTransaction, segment: Segment) -> Place:
    """Say how far the stretch is held that begins with this segment."""
    while (following := store.child_of(segment.name)) is not None:
        segment = following
    return Place(
        segment.name,
        {lane: Head(*store.in_cursor(segment.name, lane)[:2]) for lane in Lane},
    )


def _common(store: LinkTransaction, places: Sequence[Place]) -> Place | Finding | None:
    """Find the newest of the named segments that is held here, and how far both sides agree."""
    for place in places:
        if store.in_segment(place.segment) is None:
            continue
        heads: dict[Lane, Head] = {}
        for lane, head in place.heads.items():
            cursor = store.in_cursor(place.segment, lane)
            row = store.in_row(place.segment, lane, head.sequence)
            if head.sequence > cursor.applied:  # we are the older one here
                heads[lane] = Head(cursor.applied, cursor.hash)
            elif head.sequence and (row is None or row.hash != head.hash):
                reason = f"Event {head.sequence} of segment {place.segment} is another one here."
                return Finding(Verdict.CLONE, reason)
            else:
                heads[lane] = head
        return Place(place.segment, heads)
    oldest = next(iter(store.stretches()), None)
    return Place(oldest.name, _NONE) if oldest else None


def take(store: LinkTransaction, part: Part, gateway: str) -> Taken | Trouble:
    """Take a part of our own history; with the last one, go on."""
    for content in part.content:
        value = cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX)
        if "events" not in value:
            _take_empty(store, _read(HelloSegment, value).described()[0])
        elif trouble := _take_batch(store, _read(Batch, value), gateway):
            return Trouble(trouble)
    if part.done:
        _go_on(store, _decode(part.position))
    return Taken.YES


def _take_empty(store: LinkTransaction, segment: Segment) -> None:
    if store.out_segment(segment.name) is None:
        store.add_own_segment(segment)
        for lane in Lane:
            store.set_out_cursor(segment.name, lane, NOTHING)


def _take_batch(store: LinkTransaction, batch: Batch, gateway: str) -> str | None:
    """Chain the events behind what is held; what differs here makes room for theirs."""
    name, lane = batch.segment, batch.lane
    rows = inbox.rows_of(batch, gateway)
    confirmed = store.out_cursor(name, lane)
    before = (batch.first_sequence - 1, batch.previous_hash)
    if rows[-1].hash != batch.last_hash or (confirmed.applied, confirmed.hash) != before:
        return f"What central gave back of segment {name} does not follow what is held here."
    if store.out_segment(name) is None:
        store.add_own_segment(segments.opened(events.decode(batch.events[0])))
    missing = [row for row in rows if store.out_hash(name, lane, row.sequence) != row.hash]
    if missing:
        displaced = store.remove(name, lane, missing[0].sequence - 1)
        store.take_back(name, lane, missing)
        for row in missing:
            event = events.decode(row.event)
            if event.type != OPENED:
                store.reapply(event)
        if displaced:
            store.open_segment()
            store.write_again(lane, displaced)
    store.set_out_cursor(name, lane, Cursor(*_head(rows[-1]), confirmed.archived))
    return None


def _go_on(store: LinkTransaction, reached: Position) -> None:
    """Open a segment behind the newest event that central holds, and write the rest again there.

    What central has lost and is pruned here is told again by the comparison that follows
    (``anti_entropy``).
    """
    trunk, frontier = _trunk(store, reached), next(iter(reached.places), None)
    store.rewind()  # central may be an old copy too: what it had confirmed may be off its trunk now
    undrained = [out.segment.name for out in _oldest_first(store.out_segments(_ALL))]
    reset = [name for name in undrained if name not in trunk]
    if frontier is not None:
        reset.append(frontier.segment)
    for name in reset:
        for lane, head in trunk.get(name, _NONE).items():
            archived = min(store.out_cursor(name, lane).archived, head.sequence)
            store.set_out_cursor(name, lane, Cursor(*head, archived))
    moved: dict[Lane, list[Row]] = {lane: [] for lane in Lane}
    for name in undrained:
        for lane, head in trunk.get(name, _NONE).items():
            moved[lane] += store.remove(name, lane, head.sequence)
        if name not in trunk:
            store.abandon(name)
    if frontier is None:
        store.go_on(None, {})
    else:
        store.go_on(*frontier)
    for lane, rows in moved.items():
        written = _written(store, trunk, lane) if rows else set[bytes]()
        store.write_again(lane, _but(written, rows))
    store.set_doubt("")


def _written(store: LinkTransaction, trunk: Iterable[str], lane: Lane) -> set[bytes]:
    """Collect what central's newest segments hold: an earlier recovery may have moved it there."""
    written: set[bytes] = set()
    for name in islice(trunk, limits.SEGMENTS_IN_HELLO_MAX):
        after = max(0, store.out_cursor(name, lane).archived - 1)
        while rows := store.out_rows(name, lane, after, _PAGE, BATCH_BYTES_MAX):
            written.update(map(_digest, rows))
            after = rows[-1].sequence
    return written


def _but(written: set[bytes], rows: Iterable[Row]) -> list[Row]:
    """Give each event once: an earlier recovery may have moved it, and both copies are here."""
    events_of = {_digest(row): row for row in rows if row.type != OPENED}
    return [row for digest, row in events_of.items() if digest not in written]


def _digest(row: Row) -> bytes:
    return hashlib.sha256(row.event).digest()


def _oldest_first(found: Sequence[OutSegment]) -> Iterator[OutSegment]:
    yield from found[1:]
    yield from found[:1]


def _trunk(store: LinkTransaction, reached: Position) -> dict[str, Mapping[Lane, Head]]:
    """Say how far each segment belongs to central's history: where a stretch ends, its ancestors.

    The newest stretch goes first: it may lead into one that is cut off from it at central only.
    """
    trunk: dict[str, Mapping[Lane, Head]] = {}
    for end in (*reached.places, *reached.ends):
        name, heads = end.segment, end.heads
        while name is not None and name not in trunk:
            trunk[name] = heads
            segment = store.out_segment(name)
            name = segment.parent if segment else None
            heads = segment.parent_heads if segment else _NONE
    return trunk


def _encode(position: Position) -> bytes:
    places, ends = (_written_down(places) for places in position)
    return cbor.encode({"places": places, "ends": ends} if ends else places)


def _written_down(places: Sequence[Place]) -> list[Any]:
    return [[name, segments.encode_heads(heads)] for name, heads in places]


def _decode(position: bytes) -> Position:
    value: Any = cbor.decode(position, limit=_POSITION_BYTES_MAX)
    try:
        if isinstance(value, Mapping):
            return Position(_read_places(value["places"]), _read_places(value["ends"]))
        return Position(_read_places(value))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise BadRequestError("The position cannot be read.") from error


def _read_places(value: Any) -> list[Place]:
    return [
        Place(
            str(name),
            segments.decode_heads(
                {lane: (int(sequence), bytes(digest)) for lane, (sequence, digest) in heads.items()}
            ),
        )
        for name, heads in value
    ]


def _read(model: type[AnyMessage], value: Any) -> AnyMessage:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRequestError("What was given back cannot be read.") from error


def _head(row: Row) -> Head:
    return Head(row.sequence, row.hash)
