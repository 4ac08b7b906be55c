"""The receiving half's rule: what becomes of an authentic batch. It runs as one transaction.

Verify the chain, skip what is known, append the raw events, apply each in a savepoint, move the
cursor (design.md §5). Only authentic batches get here: see ``envelope.open_``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from shared.kernel.errors import BadRequestError, Kind, TmaError
from shared.sync import events, lineage, segments
from shared.sync.envelope import Address, Batch
from shared.sync.events import Direction, Event, Lane
from shared.sync.lineage import Verdict
from shared.sync.outbox import GENESIS_HASH, chain_hash
from shared.sync.ports import Cursor, Head, InboxTransaction, Lacking, Row

_FENCED = "The gateway takes its history back; until then nothing else of it is taken."


class Outcome(Enum):
    """What became of a batch; the cursor moves on APPLIED only."""

    APPLIED = "applied"
    KNOWN = "known"  # nothing in it is new
    GAP = "gap"  # something before it is missing; it will be sent again
    BROKEN = "broken"  # signed, but it contradicts itself
    REFUSED = "refused"  # the gateway's history is not one history: see the verdict


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Where the lane stands after a batch.

    ``verdict`` is not RESUME when the batch was refused; ``reason`` is a sentence then, and when
    it was broken. ``quarantined`` counts events that were kept but not applied.
    """

    segment: str
    lane: Lane
    outcome: Outcome
    cursor: Cursor
    verdict: Verdict = Verdict.RESUME
    reason: str = ""
    quarantined: int = 0


class _RejectError(Exception):
    """The batch is not used; nothing was written for it."""

    def __init__(
        self, outcome: Outcome, verdict: Verdict = Verdict.RESUME, reason: str = ""
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.verdict = verdict
        self.reason = reason


def accept(store: InboxTransaction, address: Address, batch: Batch) -> Acceptance:
    """Apply what is new in a batch, in order and once.

    Lock and disk errors leave it (UnavailableError): the transaction is rolled back and the unit
    is run again. An event that cannot be applied is quarantined whole and the cursor moves on.
    """
    cursor = store.in_cursor(batch.segment, batch.lane)
    try:
        if store.lacking() is Lacking.DIRECTIVES:
            raise _RejectError(Outcome.GAP)  # noqa: TRY301 - it is sent again
        if store.fenced():
            raise _RejectError(Outcome.REFUSED, Verdict.RESTORED, _FENCED)  # noqa: TRY301 - one place
        arrivals = _new(store, address, batch, cursor)
        if arrivals[0].row.sequence == 1:
            _open(store, address, batch, arrivals[0])
        if address.direction is Direction.UP:
            _require_open(store, batch)
    except _RejectError as rejected:
        return Acceptance(
            batch.segment,
            batch.lane,
            rejected.outcome,
            cursor,
            rejected.verdict,
            rejected.reason,
        )
    store.append(batch.segment, batch.lane, [arrival.row for arrival in arrivals])
    quarantined = _apply(store, batch, arrivals)
    head = Head(arrivals[-1].row.sequence, arrivals[-1].row.hash)
    store.set_in_cursor(batch.segment, batch.lane, head)
    return Acceptance(
        batch.segment,
        batch.lane,
        Outcome.APPLIED,
        Cursor(*head, cursor.archived),
        quarantined=quarantined,
    )


class Arrival(NamedTuple):
    """A row to store, and its event if it is one."""

    row: Row
    event: Event | None


def _new(store: InboxTransaction, address: Address, batch: Batch, cursor: Cursor) -> list[Arrival]:
    """Verify the batch against itself and against what is held; give what is not held yet."""
    if batch.first_sequence > cursor.applied + 1:
        raise _RejectError(Outcome.GAP)
    before = batch.first_sequence - 1
    if _held_hash(store, batch, before) != batch.previous_hash:
        raise _fork(f"{_place(batch, before)} is another event here.")
    arrivals = list(chained(address, batch))
    if arrivals[-1].row.hash != batch.last_hash:
        raise _broken("The hashes of the batch do not fit its events.")
    common = min(cursor.applied, batch.last_sequence)
    if common > before:
        theirs = arrivals[common - batch.first_sequence].row.hash
        if _held_hash(store, batch, common) != theirs:
            raise _fork(f"{_place(batch, common)} is another event here.")
    if batch.last_sequence <= cursor.applied:
        raise _RejectError(Outcome.KNOWN)
    return arrivals[cursor.applied + 1 - batch.first_sequence :]


def chained(address: Address, batch: Batch) -> Iterator[Arrival]:
    """Chain the events; an authentic one that cannot be decoded is kept all the same."""
    previous = batch.previous_hash
    for sequence, event in enumerate(batch.events, batch.first_sequence):
        previous = chain_hash(
            previous,
            address.gateway,
            address.direction,
            batch.segment,
            batch.lane,
            sequence,
            event,
        )
        decoded = _decoded(event)
        row = Row(sequence, event, previous, decoded.type if decoded else "")
        yield Arrival(row, decoded)


def rows_of(batch: Batch, gateway: str) -> list[Row]:
    """Give the rows of a batch of a gateway's own events, wherever it comes from."""
    return [arrival.row for arrival in chained(Address(gateway, Direction.UP), batch)]


def _decoded(event: bytes) -> Event | None:
    try:
        return events.decode(event)
    except BadRequestError:
        return None


def _held_hash(store: InboxTransaction, batch: Batch, sequence: int) -> bytes | None:
    if sequence == 0:
        return GENESIS_HASH
    row = store.in_row(batch.segment, batch.lane, sequence)
    return row.hash if row else None


def _open(store: InboxTransaction, address: Address, batch: Batch, arrival: Arrival) -> None:
    """Take the opening event of a lane: both lanes open with the same segment.

    Only a gateway's lineage is judged. Central may come back from a backup and go on in a segment
    whose parent is behind what was received: its directives are ordered by incarnation instead.
    """
    if arrival.event is None:
        raise _broken("The opening event cannot be read.")
    try:
        segment = segments.opened(arrival.event)
    except BadRequestError as error:
        raise _broken(error.message) from error
    if segment.name != batch.segment:
        raise _broken("The opening event names another segment.")
    if address.direction is Direction.UP and (finding := lineage.judge(store, segment)):
        raise _RejectError(Outcome.REFUSED, finding.verdict, finding.reason)
    if store.in_segment(segment.name) is None:
        store.add_segment(segment)


def _require_open(store: InboxTransaction, batch: Batch) -> None:
    """Refuse what lies past the head at which a child closed the segment."""
    child = store.child_of(batch.segment)
    if child is not None and batch.last_sequence > child.parent_heads[batch.lane].sequence:
        place = _place(batch, batch.last_sequence)
        raise _fork(f"{place} lies past the end that segment {child.name} names.")


def _apply(store: InboxTransaction, batch: Batch, arrivals: list[Arrival]) -> int:
    """Apply events, all at once; if one of them cannot be applied, each for itself.

    What can never be applied by this version is quarantined. Gives how many that were.
    """
    if _trouble(store, arrivals) is None:
        return 0
    quarantined = 0
    for arrival in arrivals:
        if (error := _trouble(store, [arrival])) is not None:
            store.quarantine(batch.segment, batch.lane, arrival.row, _reason(error))
            quarantined += 1
    return quarantined


def _trouble(store: InboxTransaction, arrivals: list[Arrival]) -> Exception | None:
    """Apply events in one savepoint and give what was in the way; nothing of them is done then.

    Lock and disk errors leave it: they are no fault of an event.
    """
    try:
        effective = [event for event in map(_readable, arrivals) if event.type != events.OPENED]
        with store.savepoint():
            store.apply(effective)
    except Exception as error:
        if isinstance(error, TmaError) and error.kind is Kind.RETRYABLE:
            raise
        return error
    return None


def _readable(arrival: Arrival) -> Event:
    """Give the event, of a type and with a body that this version knows. BadRequestError."""
    if arrival.event is None:
        raise BadRequestError("The event cannot be read.")
    events.check(arrival.event)
    return arrival.event


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, TmaError) else f"defect: {type(error).__name__}"


def _broken(reason: str) -> _RejectError:
    return _RejectError(Outcome.BROKEN, reason=reason)


def _fork(reason: str) -> _RejectError:
    return _RejectError(Outcome.REFUSED, Verdict.CLONE, reason)


def _place(batch: Batch, sequence: int) -> str:
    return f"Event {sequence} of segment {batch.segment}, lane {batch.lane.name.lower()},"
