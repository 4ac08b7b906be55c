"""The sending half's rules over the outbox tables: the chain, what to send next, confirming."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from shared.kernel import cbor, limits
from shared.sync.envelope import BATCH_BYTES_MAX, Batch, batch_of
from shared.sync.events import OPENED, Direction, Lane
from shared.sync.ports import NOTHING, Cursor, Head, OutboxTransaction, OutSegment, Row

#: What precedes sequence 1 of every lane.
GENESIS_HASH = bytes(32)

#: What must be free of the window before a lane goes on.
_ROOM = {
    Lane.URGENT: limits.EVENT_BYTES_MAX + limits.EVENT_OVERHEAD_BYTES,
    Lane.NORMAL: 2 * BATCH_BYTES_MAX,
}
#: Of five normal batches the open segment gets four, sealed ones together the fifth.
_TURNS = 5
_ALL = 1 << 31

Positions = Mapping[tuple[str, Lane], Head]


def chain_hash(  # noqa: PLR0917 - the order of the hashed array
    previous: bytes,
    gateway: str,
    direction: Direction,
    segment: str,
    lane: Lane,
    sequence: int,
    event: bytes,
) -> bytes:
    """Chain one event to its predecessor: SHA-256 over a CBOR array of hash, address and event.

    ``gateway`` is the gateway's name on both sides; ``event`` is the bytes as stored or received.
    """
    address = [previous, gateway, direction.value, segment, int(lane), sequence, event]
    return hashlib.sha256(cbor.encode(address)).digest()


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be picked at once; ``turn`` counts normal batches for the 4 : 1 rule."""

    envelopes: int
    size: int  # weight of events, in bytes
    turn: int
    idle: bool = True  # nothing is under way

    def less(self, batch: Batch) -> "Budget":
        """Give what is left after one batch."""
        turn = self.turn + (batch.lane is Lane.NORMAL)
        return Budget(self.envelopes - 1, self.size - batch.size, turn, idle=False)

    def room(self, lane: Lane) -> int:
        """Give what a batch of this lane may weigh now; 0 if the lane has to wait.

        The end of the window is for urgent batches, and a normal one waits until a whole one fits:
        crumbs would cost a signature and a transaction each.
        """
        if not self.idle and self.size < _ROOM[lane]:
            return 0
        return max(0, min(self.size, BATCH_BYTES_MAX))


def pick(store: OutboxTransaction, sent: Positions, budget: Budget) -> list[Batch]:
    """Choose the next batches: urgent strictly first, open before sealed 4 : 1, oldest first.

    ``sent`` says up to where each lane is on its way; a lane that is not in it goes on from what
    the peer confirmed. The backlog is told with each batch.
    """
    positions = dict(sent)
    segments = store.out_segments(limits.SEGMENTS_IN_HELLO_MAX)
    unsent = store.backlog() - sum(
        position.sequence - store.out_cursor(*lane).applied for lane, position in sent.items()
    )
    batches: list[Batch] = []
    while budget.envelopes > 0:
        found = _next(store, segments, positions, budget)
        if found is None:
            break
        (name, lane), position, rows = found
        unsent -= len(rows)
        batches.append(batch_of(name, lane, position.hash, rows, max(0, unsent)))
        positions[name, lane] = Head(rows[-1].sequence, rows[-1].hash)
        budget = budget.less(batches[-1])
    return batches


def _next(
    store: OutboxTransaction, segments: Sequence[OutSegment], positions: Positions, budget: Budget
) -> tuple[tuple[str, Lane], Head, Sequence[Row]] | None:
    """Find the lane whose turn it is, up to where it was sent, and what follows there."""
    for segment, lane in _order(segments, budget.turn):
        if not (room := budget.room(lane)):
            continue
        name, confirmed = segment.segment.name, segment.confirmed[lane]
        position = positions.get((name, lane), Head(confirmed.applied, confirmed.hash))
        if position.sequence < segment.heads[lane].sequence and (
            rows := store.out_rows(name, lane, position.sequence, limits.ENVELOPE_EVENTS_MAX, room)
        ):
            return (name, lane), position, rows
    return None


def _order(segments: Sequence[OutSegment], turn: int) -> Iterator[tuple[OutSegment, Lane]]:
    """Give lanes in the order of preference; ``segments`` has the open one first."""
    for segment in segments:
        yield segment, Lane.URGENT
    sealed_first = turn % _TURNS == _TURNS - 1
    for segment in sorted(segments, key=lambda one: one.is_open is sealed_first):
        yield segment, Lane.NORMAL


def reissue(store: OutboxTransaction) -> None:
    """Write all that is in force for the peer again; what is under way in older segments ends."""
    former = [out.segment.name for out in store.out_segments(_ALL)]
    store.reissue()
    for name in former:
        store.abandon(name)


class Conflict(Enum):
    """How the peer's marks contradict our history."""

    AHEAD = "ahead"  # it holds more than we wrote: our database is an old copy
    FORKED = "forked"  # it holds something else at the same place: two histories
    LOST = "lost"  # it lost what it had archived, and we may have pruned it


class Contradiction(NamedTuple):
    """The peer speaks of a history that is not ours; ``reason`` is a sentence."""

    kind: Conflict
    reason: str


def welcomed(
    store: OutboxTransaction,
    incarnation: str,
    cursors: Mapping[tuple[str, Lane], Cursor],
    floor: Mapping[tuple[str, Lane], int] | None = None,
) -> Contradiction | None:
    """Take over the peer's cursors at the start of a session.

    ``floor`` is what it had confirmed when it was asked first: receipts that came since may be
    newer than this answer, which then was under way for long and proves no loss.
    A new incarnation is a peer restored from a backup, and so is one whose cursor fell: all that
    is not archived counts as unsent again. If it lost what it had archived, hello is to be said
    again.
    """
    if floor is not None and incarnation == store.peer_incarnation():
        cursors = {
            lane: cursor
            for lane, cursor in cursors.items()
            if not floor.get(lane, 0) <= cursor.applied < store.out_cursor(*lane).applied
        }
    fell = any(cursor.applied < store.out_cursor(*lane).applied for lane, cursor in cursors.items())
    if fell or incarnation != store.peer_incarnation():
        store.rewind()
        store.set_peer_incarnation(incarnation)
    lost = [
        (lane, cursor)
        for lane, cursor in cursors.items()
        if cursor.applied < store.out_cursor(*lane).archived
    ]
    if lost:
        return _go_past(store, lost, cursors)
    return confirm(store, cursors)


def _go_past(
    store: OutboxTransaction,
    lost: Sequence[tuple[tuple[str, Lane], Cursor]],
    cursors: Mapping[tuple[str, Lane], Cursor],
) -> Contradiction:
    """Write what is kept of segments with a gap at the peer again, in the open segment.

    What they lack is pruned here: a comparison tells the peer of it (``anti_entropy``).
    """
    opened = store.out_segments(0)[0].segment.name
    names = sorted({segment for (segment, _), _ in lost})
    if opened in names:
        store.open_segment()
    for name in names:
        for lane in Lane:
            applied = cursors.get((name, lane), NOTHING).applied
            kept = [row for row in store.remove(name, lane, applied) if row.type != OPENED]
            store.write_again(lane, kept)
        store.abandon(name)
    (segment, lane), cursor = lost[0]
    return Contradiction(
        Conflict.LOST,
        f"The other side is at {cursor.applied} of segment {segment}, lane {lane.name.lower()}, "
        "although it had archived more: what is kept here goes on behind that.",
    )


def confirm(
    store: OutboxTransaction, cursors: Mapping[tuple[str, Lane], Cursor]
) -> Contradiction | None:
    """Store what the peer applied and archived, and prune what it archived.

    Nothing is stored from marks that contradict our history; older marks change nothing.
    """
    found = (_contradiction(store, lane, cursor) for lane, cursor in cursors.items())
    if contradiction := next(filter(None, found), None):
        return contradiction
    for lane, mark in cursors.items():
        known = store.out_cursor(*lane)
        ahead = max(known, mark)  # the one that is further holds the hash to keep
        archived = min(max(known.archived, mark.archived), ahead.applied)
        if (ahead.applied, archived) != (known.applied, known.archived):
            store.set_out_cursor(*lane, Cursor(ahead.applied, ahead.hash, archived))
            store.prune(*lane, archived - 1)  # its own row stays: ``rewind`` needs the hash
    return None


def _contradiction(
    store: OutboxTransaction, lane: tuple[str, Lane], mark: Cursor
) -> Contradiction | None:
    if mark.applied == 0:
        return None
    place = f"{mark.applied} of segment {lane[0]}, lane {lane[1].name.lower()}"
    ours = store.out_hash(*lane, mark.applied)
    if ours is None and mark.applied > store.out_cursor(*lane).applied:
        return Contradiction(
            Conflict.AHEAD, f"The other side has event {place}, which is not ours."
        )
    if ours is not None and ours != mark.hash:
        return Contradiction(Conflict.FORKED, f"The other side has another event at {place}.")
    return None
