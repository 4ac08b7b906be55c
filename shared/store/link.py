"""The tables of one link as the engine of ``shared.sync`` sees them."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.kernel import limits
from shared.store import counters, cursors, facts, segments
from shared.store.forks import ForkTables, TakeIn
from shared.store.holdings import HoldingTables, Settle
from shared.store.outbox import Outbox, head, settle
from shared.store.schema import cursor, directive, inbox_event, outbox, quarantine, segment
from shared.store.transaction import Transaction
from shared.store.writer import Writer
from shared.sync.events import Event, Lane
from shared.sync.outbox import GENESIS_HASH
from shared.sync.ports import (
    Cursor,
    Directive,
    Head,
    Lacking,
    Outcome,
    OutSegment,
    Result,
    Row,
    Segment,
    Unit,
)

#: Applies the effects of events of the peer, in order; raises when one cannot be applied.
Apply = Callable[[Transaction, Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class Own:
    """What this side does with its own history when one of the two is an old copy.

    ``reapply`` makes the effects of an event of ours our own again, ``recount`` counts again what
    is counted, ``reissue`` writes all that is in force for the peer again, ``regain`` learns a
    directive of ours that the peer held, ``take_in`` applies what a second box of its name issued,
    ``settle`` compares a certificate that it told of again.
    """

    reapply: Callable[[Transaction, Event], None] = lambda _tx, _event: None
    recount: Callable[[Transaction], None] = lambda _tx: None
    reissue: Callable[[Transaction], None] = lambda _tx: None
    regain: Callable[[Transaction, Directive], None] = lambda _tx, _directive: None
    take_in: TakeIn = lambda _tx, _event, _revoke: None
    settle: Settle = lambda _tx, _holding, _told: Outcome.SAME


#: Fact, with the peer's name: what a restored central does not know again yet of it (Lacking).
LACKING: Final = "lacking/"
#: Fact, with the peer's name: how far it is in lanes of ours that no book here has.
_FOREIGN: Final = "foreign/"
#: Fact: what is thought of this database's own history, a verdict; no row while it may go on.
DOUBT: Final = "doubt"

_ALL = 1 << 31


def _lane(table: Any) -> Any:
    """Name a lane by the parameters link, name and lane_number."""
    return (
        (table.c.peer == bindparam("link"))
        & (table.c.segment == bindparam("name"))
        & (table.c.lane == bindparam("lane_number"))
    )


def _row(table: Any) -> Any:
    return select(table.c.sequence, table.c.event, table.c.hash, table.c.type).where(_lane(table))


_SIZES = (
    select(outbox.c.sequence, func.length(outbox.c.event).label("size"))
    .where(_lane(outbox), outbox.c.sequence > bindparam("after"))
    .order_by(outbox.c.sequence)
    .limit(bindparam("most"))
)
_ROWS = (
    _row(outbox)
    .where(outbox.c.sequence.between(bindparam("first"), bindparam("last")))
    .order_by(outbox.c.sequence)
)
_AFTER = _row(outbox).where(outbox.c.sequence > bindparam("after")).order_by(outbox.c.sequence)
_REMOVE = delete(outbox).where(_lane(outbox), outbox.c.sequence > bindparam("after"))
_TAKE_BACK = insert(outbox)
_HASH = select(outbox.c.hash).where(_lane(outbox), outbox.c.sequence == bindparam("number"))
_PRUNE = delete(outbox).where(_lane(outbox), outbox.c.sequence <= bindparam("through"))
_ISSUED = select(func.count().label("count")).where(
    _lane(outbox),
    outbox.c.sequence > bindparam("after"),
    outbox.c.sequence <= bindparam("through"),
    outbox.c.type == "certificate.issued",
)
_UNARCHIVED = select(cursor.c.segment, cursor.c.lane, cursor.c.archived).where(
    cursor.c.peer == bindparam("link"),
    cursor.c.direction == "out",
    cursor.c.applied > cursor.c.archived,
)
_NEWEST = (
    select(segment.c.segment)
    .where(segment.c.peer == bindparam("link"), segment.c.direction == "in")
    .order_by(segment.c.number.desc())
    .limit(bindparam("most"))
    .subquery()
)
_IN_CURSORS = select(
    cursor.c.segment, cursor.c.lane, cursor.c.applied, cursor.c.hash, cursor.c.archived
).where(
    cursor.c.peer == bindparam("link"),
    cursor.c.direction == "in",
    cursor.c.segment.in_(select(_NEWEST.c.segment)),
)
_IN_ROW = _row(inbox_event).where(inbox_event.c.sequence == bindparam("number"))
_IN_SIZES = (
    select(inbox_event.c.sequence, func.length(inbox_event.c.event).label("size"))
    .where(_lane(inbox_event), inbox_event.c.sequence > bindparam("after"))
    .order_by(inbox_event.c.sequence)
    .limit(bindparam("most"))
)
_IN_ROWS = (
    _row(inbox_event)
    .where(inbox_event.c.sequence.between(bindparam("first"), bindparam("last")))
    .order_by(inbox_event.c.sequence)
)
_DIRECTIVES = (
    select(
        directive.c.number,
        directive.c.kind,
        directive.c.subject,
        directive.c.envelope,
        directive.c.created_at,
    )
    .where(
        directive.c.peer == bindparam("link"),
        tuple_(directive.c.number, directive.c.kind, directive.c.subject)
        > tuple_(bindparam("n"), bindparam("k"), bindparam("s")),
    )
    .order_by(directive.c.number, directive.c.kind, directive.c.subject)
    .limit(bindparam("most"))
)
_RECEIVE = insert(inbox_event)
_QUARANTINE = upsert(quarantine).on_conflict_do_nothing()


class SqlLink:
    """``shared.sync.ports.LinkStore`` of one peer: runs the engine's rules in the one writer."""

    def __init__(
        self, writer: Writer, outbox: Outbox, peer: str, apply: Apply, own: Own | None = None
    ) -> None:
        """Take the writer with its outbox, the peer's name, and what applies its events."""
        self._own = own or Own()
        self._writer = writer
        self._outbox = outbox
        self._peer = peer
        self._apply = apply

    async def run(self, unit: Unit[Result]) -> Result:
        """Run the unit and return once it is durable. Raises UnavailableError: try again."""
        return await self._writer.run(
            lambda tx: unit(LinkTables(tx, self._outbox, self._peer, self._apply, self._own))
        )


class LinkTables:
    """``shared.sync.ports.LinkTransaction`` (see there) inside one transaction."""

    def __init__(
        self, tx: Transaction, outbox: Outbox, peer: str, apply: Apply, own: Own | None = None
    ) -> None:
        self._own = own or Own()
        self._tx = tx
        self._outbox = outbox
        self._peer = peer
        self._apply = apply
        self.forks = ForkTables(tx, peer, self._own.take_in)
        self.holdings = HoldingTables(tx, self._own.settle)

    # --- ours -----------------------------------------------------------------------------------

    def open_segment(self) -> Segment:
        """Seal the open segment and open its child."""
        return self._outbox.open_segment(self._tx, self._peer)

    def out_segments(self, sealed: int, drained: int = 0) -> Sequence[OutSegment]:
        """Give the open segment, then the oldest undrained and the oldest unarchived ones."""
        return [
            self._out_segment(found, is_open=state == "open")
            for state, most in (("open", 1), ("sealed", sealed), ("drained", drained))
            for found in segments.in_state(self._tx, self._peer, state, most)
        ]

    def out_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        """Read events of ours after a sequence, bounded in number and bytes."""
        return self._bounded((_SIZES, _ROWS), (segment, lane, after), events, size)

    def out_hash(self, segment: str, lane: Lane, sequence: int) -> bytes | None:
        """Give the chain hash of one of our events; None if there is no row."""
        row = self._tx.one(_HASH, {**self._place(segment, lane), "number": sequence})
        return row and row.hash

    def out_cursor(self, segment: str, lane: Lane) -> Cursor:
        """Give what the peer confirmed."""
        return cursors.get(self._tx, self._peer, "out", segment, lane)

    def set_out_cursor(self, segment: str, lane: Lane, cursor: Cursor) -> None:
        """Store what the peer confirmed, and count the certificates it holds."""
        former = self.out_cursor(segment, lane)
        self._count_replicated(segment, lane, former.applied, cursor.applied)
        cursors.put(self._tx, self._peer, "out", (segment, lane), cursor)
        opened = self._outbox.heads(self._tx, self._peer)
        if opened is None or opened[0].name != segment:
            settle(self._tx, self._peer, segment)

    def prune(self, segment: str, lane: Lane, through: int) -> None:
        """Delete the rows up to and including ``through``."""
        self._tx.execute(_PRUNE, {**self._place(segment, lane), "through": through})

    def rewind(self) -> None:
        """Let what is not archived count as unsent again."""
        for row in self._tx.all(_UNARCHIVED, {"link": self._peer}):
            lane = Lane(row.lane)
            kept = self.out_hash(row.segment, lane, row.archived) or GENESIS_HASH
            self.set_out_cursor(row.segment, lane, Cursor(row.archived, kept, row.archived))

    def out_segment(self, name: str) -> Segment | None:
        """Give one of our segments."""
        return segments.find(self._tx, self._peer, "out", name)

    def out_newest(self, most: int) -> Sequence[OutSegment]:
        """Give our newest segments, the newest first."""
        opened = self._outbox.heads(self._tx, self._peer)
        return [
            self._out_segment(found, is_open=opened is not None and opened[0].name == found.name)
            for found in segments.newest(self._tx, self._peer, most)
        ]

    def doubt(self) -> str:
        """Give what is thought of our own history."""
        return facts.get(self._tx, DOUBT) or ""

    def set_doubt(self, doubt: str) -> None:
        """Remember what is thought of our own history."""
        facts.put(self._tx, DOUBT, str(doubt) or None)

    def add_own_segment(self, segment: Segment) -> None:
        """Take back a forgotten segment of ours."""
        segments.add(self._tx, self._peer, "out", segment, "sealed")

    def take_back(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Store events of ours that the peer gave back."""
        for row in rows:
            values = self._values(segment, lane, row) | {
                "type": row.type,
                "hash": row.hash,
                "created_at": self._tx.now.utc_us,
            }
            self._tx.execute(_TAKE_BACK, values)

    def reapply(self, event: Event) -> None:
        """Make the effects of an event of ours our own again."""
        self._own.reapply(self._tx, event)

    def remove(self, segment: str, lane: Lane, after: int) -> Sequence[Row]:
        """Delete the rows after a sequence and give them."""
        place = {**self._place(segment, lane), "after": after}
        rows = [Row(*row) for row in self._tx.all(_AFTER, place)]
        if rows:
            self._tx.execute(_REMOVE, place)
            self._outbox.reload(self._tx)
        return rows

    def abandon(self, segment: str) -> None:
        """End a segment of ours."""
        segments.set_state(self._tx, self._peer, segment, "ended")

    def go_on(self, parent: str | None, heads: Mapping[Lane, Head]) -> Segment:
        """Open a segment behind one that the peer holds, and count again what is counted."""
        opened = self._outbox.go_on(self._tx, self._peer, parent, heads)
        self._own.recount(self._tx)
        return opened

    def write_again(self, lane: Lane, rows: Sequence[Row]) -> None:
        """Write events of abandoned segments again."""
        self._outbox.write_again(self._tx, self._peer, lane, rows)

    def reissue(self) -> None:
        """Write all that is in force for the peer again, in a new segment."""
        self._outbox.open_segment(self._tx, self._peer)
        self._own.reissue(self._tx)

    def regain(self, directive: Directive) -> None:
        """Learn a directive of ours that the peer holds."""
        self._own.regain(self._tx, directive)

    def backlog(self) -> int:
        """Count the events that the peer did not confirm as applied."""
        return sum(
            out.heads[lane].sequence - out.confirmed[lane].applied
            for out in self.out_segments(_ALL)
            for lane in Lane
        )

    def peer_incarnation(self) -> str:
        """Give the peer's incarnation at the last welcome."""
        return facts.get(self._tx, self._incarnation_fact()) or ""

    def set_peer_incarnation(self, incarnation: str) -> None:
        """Remember the peer's incarnation."""
        facts.put(self._tx, self._incarnation_fact(), incarnation)

    # --- the peer's -----------------------------------------------------------------------------

    def in_cursor(self, segment: str, lane: Lane) -> Cursor:
        """How far the peer's lane is applied here."""
        return cursors.get(self._tx, self._peer, "in", segment, lane)

    def in_cursors(self, newest: int) -> Mapping[tuple[str, Lane], Cursor]:
        """Give the cursors of the peer's newest segments."""
        rows = self._tx.all(_IN_CURSORS, {"link": self._peer, "most": newest})
        return {
            (row.segment, Lane(row.lane)): Cursor(row.applied, row.hash, row.archived)
            for row in rows
        }

    def in_row(self, segment: str, lane: Lane, sequence: int) -> Row | None:
        """Give a received event; None if it is not held."""
        row = self._tx.one(_IN_ROW, {**self._place(segment, lane), "number": sequence})
        return row and Row(*row)

    def in_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        """Read received events after a sequence, bounded in number and bytes."""
        return self._bounded((_IN_SIZES, _IN_ROWS), (segment, lane, after), events, size)

    def fenced(self) -> bool:
        """Tell if no events of the peer are taken."""
        return facts.get(self._tx, f"fenced/{self._peer}") is not None

    def set_fenced(self, *, fenced: bool) -> None:
        """Take no events of the peer, or take them again."""
        facts.put(self._tx, f"fenced/{self._peer}", "yes" if fenced else None)

    def lacking(self) -> Lacking:
        """Tell what is to be given back."""
        return Lacking(facts.get(self._tx, LACKING + self._peer) or "")

    def set_lacking(self, lacking: Lacking) -> None:
        """Remember what is to be given back."""
        facts.put(self._tx, LACKING + self._peer, lacking.value or None)

    def foreign(self) -> Mapping[tuple[str, Lane], int]:
        """Read how far the peer is in lanes that are not in our books."""
        kept = facts.get(self._tx, _FOREIGN + self._peer)
        return {(name, Lane(lane)): applied for name, lane, applied in json.loads(kept or "[]")}

    def set_foreign(self, foreign: Mapping[tuple[str, Lane], int]) -> None:
        """Remember how far the peer is in lanes that are not in our books."""
        kept = [[name, int(lane), applied] for (name, lane), applied in foreign.items()]
        facts.put(self._tx, _FOREIGN + self._peer, json.dumps(kept))

    def directives(self, after: tuple[int, str, str], most: int) -> Sequence[Directive]:
        """Read directives of the peer."""
        number, kind, subject = after
        place = {"link": self._peer, "n": number, "k": kind, "s": subject, "most": most}
        return [Directive(*row) for row in self._tx.all(_DIRECTIVES, place)]

    def in_segment(self, name: str) -> Segment | None:
        """Give a segment of the peer."""
        return segments.find(self._tx, self._peer, "in", name)

    def child_of(self, name: str) -> Segment | None:
        """Give the segment of the peer that closes this one."""
        return segments.child_of(self._tx, self._peer, "in", name)

    def root(self) -> str | None:
        """Name the peer's segment without a parent."""
        return segments.root(self._tx, self._peer, "in")

    def stretches(self) -> Sequence[Segment]:
        """Read the peer's segments whose parent is not held."""
        return segments.stretches(self._tx, self._peer, "in")

    def add_segment(self, segment: Segment) -> None:
        """Remember a segment of the peer."""
        segments.add(self._tx, self._peer, "in", segment)

    def append(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Store raw events as received; one that is there already is an error."""
        for row in rows:
            values = self._values(segment, lane, row) | {
                "type": row.type,
                "hash": row.hash,
                "received_at": self._tx.now.utc_us,
            }
            self._tx.execute(_RECEIVE, values)

    def set_in_cursor(self, segment: str, lane: Lane, head: Head) -> None:
        """Move applied and its hash."""
        archived = self.in_cursor(segment, lane).archived
        moved = Cursor(head.sequence, head.hash, archived)
        cursors.put(self._tx, self._peer, "in", (segment, lane), moved)

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo the statements of the block when an exception leaves it."""
        return self._tx.savepoint()

    def apply(self, events: Sequence[Event]) -> None:
        """Apply the effects of events, in order."""
        self._apply(self._tx, events)

    def quarantine(self, segment: str, lane: Lane, row: Row, reason: str) -> None:
        """Keep an event that could not be applied."""
        values = self._values(segment, lane, row) | {
            "reason": reason,
            "created_at": self._tx.now.utc_us,
            "resolved_at": None,
        }
        self._tx.execute(_QUARANTINE, values)

    # --- helpers --------------------------------------------------------------------------------

    def _bounded(
        self, statements: tuple[Any, Any], place: tuple[str, Lane, int], events: int, size: int
    ) -> list[Row]:
        segment, lane, after = place
        bound = self._place(segment, lane)
        sizes = self._tx.all(statements[0], {**bound, "after": after, "most": events})
        if not sizes or sizes[0].sequence != after + 1:
            return []
        sums = accumulate(row.size + limits.EVENT_OVERHEAD_BYTES for row in sizes)
        fitting = sum(total <= size for total in sums) or 1
        chosen = {"first": after + 1, "last": after + fitting}
        return [Row(*row) for row in self._tx.all(statements[1], {**bound, **chosen})]

    def _out_segment(self, found: Segment, *, is_open: bool) -> OutSegment:
        return OutSegment(
            found,
            is_open,
            {lane: head(self._tx, self._peer, found.name, lane) for lane in Lane},
            {lane: self.out_cursor(found.name, lane) for lane in Lane},
        )

    def _count_replicated(self, segment: str, lane: Lane, former: int, now: int) -> None:
        """Follow how many of our certificates the peer holds: a fallen cursor takes some back."""
        after, through = sorted((former, now))
        between = {**self._place(segment, lane), "after": after, "through": through}
        count: Any = self._tx.one(_ISSUED, between)
        if count[0]:
            counters.add(self._tx, "replicated", by=count[0] if now > former else -count[0])

    def _place(self, segment: str, lane: Lane) -> dict[str, Any]:
        return {"link": self._peer, "name": segment, "lane_number": int(lane)}

    def _values(self, segment: str, lane: Lane, row: Row) -> dict[str, Any]:
        return {
            "peer": self._peer,
            "segment": segment,
            "lane": int(lane),
            "sequence": row.sequence,
            "event": row.event,
        }

    def _incarnation_fact(self) -> str:
        return f"incarnation/{self._peer}"
