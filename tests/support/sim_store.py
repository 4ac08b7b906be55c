"""Storage of the simulator: one link's tables in memory, with a state before and after a commit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from shared.issuance.ports import Intent
from shared.kernel.clock import Instant
from shared.kernel.errors import ConflictError
from shared.kernel.ids import Random
from shared.store import ledger
from shared.sync import events
from shared.sync.events import OPENED, Direction, Event, Lane
from shared.sync.outbox import GENESIS_HASH, chain_hash
from shared.sync.ports import (
    NOTHING,
    Claim,
    Cursor,
    Directive,
    ForkRow,
    Head,
    HoldingTransaction,
    Lacking,
    LinkTransaction,
    OutSegment,
    Row,
    Segment,
    weight,
)
from shared.sync.segments import opening_body, reusable

Result = TypeVar("Result")
Place = tuple[str, Lane, int]
LaneName = tuple[str, Lane]
GATEWAY = "gw-07"
#: What ends an intent when it comes back.
DONE = ("certificate.issued", "certificate.voided")


@dataclass
class State:
    """Everything that is durable on one side of a link."""

    out_segments: dict[str, Segment] = field(default_factory=dict)
    outbox: dict[Place, Row] = field(default_factory=dict)
    heads: dict[LaneName, Head] = field(default_factory=dict)
    out_cursors: dict[LaneName, Cursor] = field(default_factory=dict)
    in_segments: dict[str, Segment] = field(default_factory=dict)
    inbox: dict[Place, Row] = field(default_factory=dict)
    in_cursors: dict[LaneName, Cursor] = field(default_factory=dict)
    quarantined: dict[Place, Row] = field(default_factory=dict)
    effects: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    abandoned: set[str] = field(default_factory=set)
    #: Of a gateway: what it has decided to sign and not completed yet, by serial.
    intents: dict[str, Intent] = field(default_factory=dict)
    #: Of central: what it ordered, by serial; a directive's number.
    orders: dict[str, int] = field(default_factory=dict)
    #: Of central: other boxes of the gateway's name, and what they wrote.
    claims: dict[str, Claim] = field(default_factory=dict)
    fork_rows: tuple[tuple[str, ForkRow], ...] = ()
    #: Of central: how far the gateway is in lanes that it does not know (any more).
    foreign: dict[LaneName, int] = field(default_factory=dict)
    #: Name of the open segment.
    opened: str | None = None

    def copy(self) -> "State":
        return State(
            self.out_segments.copy(),
            self.outbox.copy(),
            self.heads.copy(),
            self.out_cursors.copy(),
            self.in_segments.copy(),
            self.inbox.copy(),
            self.in_cursors.copy(),
            self.quarantined.copy(),
            self.effects.copy(),
            self.facts.copy(),
            self.abandoned.copy(),
            self.intents.copy(),
            self.orders.copy(),
            self.claims.copy(),
            self.fork_rows,
            self.foreign.copy(),
            self.opened,
        )


@dataclass
class MemoryTransaction(LinkTransaction):
    """The port over a working copy of the state."""

    state: State
    direction: Direction  # of our own events
    now: Instant
    random: Random
    apply_to: Callable[[dict[str, Any], Event], None]
    reapply_to: Callable[[dict[str, Any], Event], None] = lambda _effects, _event: None
    gateway: str = GATEWAY

    @property
    def forks(self) -> "MemoryForks":
        return MemoryForks(self.state, self.reapply_to)

    @property
    def holdings(self) -> HoldingTransaction:
        raise NotImplementedError  # certificates themselves are compared on real databases only

    def emit(
        self,
        type_name: str,
        body: Mapping[str, Any],
        lane: Lane | None = None,
        actor: str = "sim",
    ) -> None:
        known = type_name in events.CATALOGUE
        maker = events.create if known else unknown
        event = maker(type_name, body, actor=actor, now=self.now, random=self.random)
        name = self.state.opened or self.open_segment().name
        self._write(name, events.lane_of(type_name) if lane is None else lane, event)

    def own(self, status: str, value: str) -> None:
        """What the gateway knows of its own certificates: revoked stays revoked."""
        if self.state.effects.get(status) != "revoked":
            self.state.effects[status] = value

    def intend(self, intent: Intent) -> None:
        """What is durable before the key is used."""
        self.require_open()
        self.state.intents[intent.serial] = intent

    def complete(self, intent: Intent, der: bytes) -> None:
        """Release a certificate: only of an intent that is still open, on a line that runs."""
        self.require_open()
        if self.state.intents.pop(intent.serial, None) is None:
            raise ConflictError("The intent is not open any more.")
        body = ledger._issued_body(intent, der)
        self.emit("certificate.issued", body, actor=intent.request.principal)
        self.own(f"status:{intent.serial}", "good")

    def void(self, intent: Intent) -> None:
        """Give up an intent whose key may have been used: its serial counts as revoked."""
        if self.state.intents.pop(intent.serial, None) is not None:
            body = {
                "ca_id": intent.ca_id,
                "serial": intent.serial,
                "reason": "crash",
                "profile": intent.plan.profile,
                "device_id": intent.request.device,
                "grant_id": intent.grant_id,
            }
            self.emit("certificate.voided", body, actor="system")
            self.own(f"status:{intent.serial}", "revoked")

    def stop_line(self, *, stopped: bool) -> None:
        """What an operator may do at the box."""
        self.state.facts["line"] = "stopped" if stopped else ""

    def require_open(self) -> None:
        """Raise ConflictError while the line is stopped."""
        if self.state.facts.get("line"):
            raise ConflictError("The line is stopped.")

    def ordered(self, serial: str) -> int:
        """Number an order of central."""
        number = 1 + max(self.state.orders.values(), default=0)
        self.state.orders[serial] = number
        return number

    def start(self) -> Segment:
        """What an agent does at its start: open a segment unless the open one is unused."""
        name = self.state.opened
        if name and reusable({lane: self.state.heads[name, lane] for lane in Lane}):
            return self.state.out_segments[name]
        return self.open_segment(1)

    def open_segment(self, starts: int = 0) -> Segment:
        parent = self.state.opened
        heads = {lane: self.state.heads[parent, lane] for lane in Lane} if parent else {}
        counter = starts + (self.state.out_segments[parent].start_counter if parent else 0)
        return self._open(parent, heads, counter)

    def _open(self, parent: str | None, heads: Mapping[Lane, Head], counter: int) -> Segment:
        state = self.state
        name = self.random(16).hex()
        segment = Segment(name, parent, heads, counter, self.now.boot_id, "sim")
        state.out_segments[name] = segment
        state.opened = name
        event = events.create(
            OPENED, opening_body(segment), actor="system", now=self.now, random=self.random
        )
        for lane in Lane:
            state.heads[name, lane] = Head(0, GENESIS_HASH)
            self._write(name, lane, event)
        return segment

    def _write(self, name: str, lane: Lane, event: Event) -> None:
        self._chain(name, lane, events.encode(event), event.type)

    def _chain(self, name: str, lane: Lane, data: bytes, type_name: str) -> None:
        head = self.state.heads[name, lane]
        number = head.sequence + 1
        digest = chain_hash(head.hash, self.gateway, self.direction, name, lane, number, data)
        self.state.outbox[name, lane, number] = Row(number, data, digest, type_name)
        self.state.heads[name, lane] = Head(number, digest)

    def out_segments(self, sealed: int, drained: int = 0) -> Sequence[OutSegment]:
        opened = [self._out(self.state.opened)] if self.state.opened else []
        others = [
            self._out(name)
            for name in self.state.out_segments
            if name != self.state.opened and name not in self.state.abandoned
        ]
        undrained = [
            out
            for out in others
            if any(out.confirmed[lane].applied < out.heads[lane].sequence for lane in Lane)
        ]
        unarchived = [
            out
            for out in others
            if out not in undrained
            and any(out.confirmed[lane].archived < out.heads[lane].sequence for lane in Lane)
        ]
        return opened + undrained[:sealed] + unarchived[:drained]

    def _out(self, name: str) -> OutSegment:
        return OutSegment(
            self.state.out_segments[name],
            name == self.state.opened,
            {lane: self.state.heads[name, lane] for lane in Lane},
            {lane: self.out_cursor(name, lane) for lane in Lane},
        )

    def out_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        return _bounded(self.state.outbox, (segment, lane, after), events, size)

    def out_hash(self, segment: str, lane: Lane, sequence: int) -> bytes | None:
        row = self.state.outbox.get((segment, lane, sequence))
        return row.hash if row else None

    def out_cursor(self, segment: str, lane: Lane) -> Cursor:
        return self.state.out_cursors.get((segment, lane), NOTHING)

    def set_out_cursor(self, segment: str, lane: Lane, cursor: Cursor) -> None:
        self.state.out_cursors[segment, lane] = cursor

    def prune(self, segment: str, lane: Lane, through: int) -> None:
        for place in [p for p in self.state.outbox if p[:2] == (segment, lane)]:
            if place[2] <= through:
                del self.state.outbox[place]

    def rewind(self) -> None:
        for (segment, lane), cursor in self.state.out_cursors.items():
            digest = self.out_hash(segment, lane, cursor.archived) or GENESIS_HASH
            self.state.out_cursors[segment, lane] = Cursor(cursor.archived, digest, cursor.archived)

    def out_segment(self, name: str) -> Segment | None:
        return self.state.out_segments.get(name)

    def out_newest(self, most: int) -> Sequence[OutSegment]:
        kept = [name for name in self.state.out_segments if name not in self.state.abandoned]
        return [self._out(name) for name in kept[::-1][:most]]

    def doubt(self) -> str:
        return self.state.facts.get("doubt", "")

    def set_doubt(self, doubt: str) -> None:
        self.state.facts["doubt"] = doubt

    def add_own_segment(self, segment: Segment) -> None:
        self.state.out_segments[segment.name] = segment
        for lane in Lane:
            self.state.heads[segment.name, lane] = Head(0, GENESIS_HASH)

    def take_back(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        for row in rows:
            self.state.outbox[segment, lane, row.sequence] = row
        self.state.heads[segment, lane] = Head(rows[-1].sequence, rows[-1].hash)

    def reapply(self, event: Event) -> None:
        self.reapply_to(self.state.effects, event)
        if event.type in DONE:
            self.state.intents.pop(event.body["serial"], None)

    def remove(self, segment: str, lane: Lane, after: int) -> Sequence[Row]:
        places = sorted(p for p in self.state.outbox if p[:2] == (segment, lane) and p[2] > after)
        rows = [self.state.outbox.pop(place) for place in places]  # the first may be pruned
        if rows:
            kept = self.state.outbox.get((segment, lane, after))
            self.state.heads[segment, lane] = Head(after, kept.hash if kept else GENESIS_HASH)
        return rows

    def abandon(self, segment: str) -> None:
        self.state.abandoned.add(segment)

    def go_on(self, parent: str | None, heads: Mapping[Lane, Head]) -> Segment:
        counts = [one.start_counter for one in self.state.out_segments.values()]
        return self._open(parent, heads, 1 + max(counts, default=0))

    def write_again(self, lane: Lane, rows: Sequence[Row]) -> None:
        name = self.state.opened
        assert name is not None
        for row in rows:
            self._chain(name, lane, row.event, row.type)

    def reissue(self) -> None:
        self.open_segment()
        for number, name in sorted((n, name) for name, n in self.state.orders.items()):
            self.emit("directive.revoke", order(name, number))

    def regain(self, directive: Directive) -> None:
        if self.state.orders.get(directive.subject, 0) < directive.number:
            self.state.orders[directive.subject] = directive.number

    def backlog(self) -> int:
        return sum(
            head.sequence - self.out_cursor(*lane).applied
            for lane, head in self.state.heads.items()
            if lane[0] not in self.state.abandoned
        )

    def peer_incarnation(self) -> str:
        return self.state.facts.get("peer_incarnation", "")

    def set_peer_incarnation(self, incarnation: str) -> None:
        self.state.facts["peer_incarnation"] = incarnation

    def in_cursor(self, segment: str, lane: Lane) -> Cursor:
        return self.state.in_cursors.get((segment, lane), NOTHING)

    def in_cursors(self, newest: int) -> Mapping[LaneName, Cursor]:
        names = list(self.state.in_segments)[-newest:]
        return {lane: held for lane, held in self.state.in_cursors.items() if lane[0] in names}

    def in_row(self, segment: str, lane: Lane, sequence: int) -> Row | None:
        return self.state.inbox.get((segment, lane, sequence))

    def in_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        return _bounded(self.state.inbox, (segment, lane, after), events, size)

    def fenced(self) -> bool:
        return self.state.facts.get("fenced") == "yes"

    def set_fenced(self, *, fenced: bool) -> None:
        self.state.facts["fenced"] = "yes" if fenced else ""

    def lacking(self) -> Lacking:
        return Lacking(self.state.facts.get("lacking", ""))

    def set_lacking(self, lacking: Lacking) -> None:
        self.state.facts["lacking"] = lacking.value

    def foreign(self) -> Mapping[LaneName, int]:
        return self.state.foreign

    def set_foreign(self, foreign: Mapping[LaneName, int]) -> None:
        self.state.foreign = dict(foreign)

    def directives(self, after: tuple[int, str, str], most: int) -> Sequence[Directive]:
        held = sorted(
            Directive(number, "revoke", name.removeprefix("ordered:"), b"", 0)
            for name, number in self.state.effects.items()
            if name.startswith("ordered:")
        )
        return [one for one in held if one[:3] > after][:most]

    def in_segment(self, name: str) -> Segment | None:
        return self.state.in_segments.get(name)

    def child_of(self, name: str) -> Segment | None:
        found = (one for one in self.state.in_segments.values() if one.parent == name)
        return next(found, None)

    def root(self) -> str | None:
        return next((one.name for one in self.state.in_segments.values() if not one.parent), None)

    def stretches(self) -> Sequence[Segment]:
        known = self.state.in_segments
        tops = [one for one in known.values() if one.parent is None or one.parent not in known]
        return sorted(tops, key=lambda one: one.start_counter)

    def add_segment(self, segment: Segment) -> None:
        self.state.in_segments[segment.name] = segment

    def append(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        for row in rows:
            place = segment, lane, row.sequence
            assert place not in self.state.inbox, f"{place} is appended twice"
            self.state.inbox[place] = row

    def set_in_cursor(self, segment: str, lane: Lane, head: Head) -> None:
        archived = self.in_cursor(segment, lane).archived
        self.state.in_cursors[segment, lane] = Cursor(head.sequence, head.hash, archived)

    def archive(self, segment: str, lane: Lane, through: int) -> None:
        """What central's backup does once it was read back."""
        cursor = self.in_cursor(segment, lane)
        self.state.in_cursors[segment, lane] = cursor._replace(archived=through)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        before = dict(self.state.effects)
        try:
            yield
        except Exception:
            self.state.effects = before
            raise

    def apply(self, events: Sequence[Event]) -> None:
        for event in events:
            self.apply_to(self.state.effects, event)

    def quarantine(self, segment: str, lane: Lane, row: Row, reason: str) -> None:
        del reason
        self.state.quarantined[segment, lane, row.sequence] = row


@dataclass
class MemoryForks:
    """The port for other boxes of one name."""

    state: State
    reapply_to: Callable[[dict[str, Any], Event], None]

    def claims(self) -> Sequence[Claim]:
        return list(self.state.claims.values())

    def put(self, claim: Claim, *, seen: bool = False) -> None:
        del seen
        self.state.claims[claim.fork] = claim

    def keep(self, fork: str, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        known = {(name, kept.segment, kept.lane, kept.row) for name, kept in self.state.fork_rows}
        for row in rows:
            if (fork, segment, lane, row) not in known:
                kept = ForkRow(len(self.state.fork_rows) + 1, segment, lane, row)
                self.state.fork_rows += ((fork, kept),)

    def rows(self, fork: str, after: int, most: int) -> Sequence[ForkRow]:
        found = [kept for name, kept in self.state.fork_rows if name == fork]
        return [kept for kept in found if kept.number > after][:most]

    def take_in(self, event: Event, *, revoke: bool) -> None:
        self.reapply_to(self.state.effects, event)
        if revoke and event.type == "certificate.issued":
            self.state.effects[f"status:{event.body['serial']}"] = "revoked"


def unknown(
    type_name: str, body: Mapping[str, Any], *, actor: str, now: Instant, random: Random
) -> Event:
    """Make an event of a type that this version does not know."""
    known = events.create("history.gap", {"detail": ""}, actor=actor, now=now, random=random)
    return replace(known, type=type_name, schema=7, body=body)


def order(serial: str, number: int) -> dict[str, Any]:
    """Write the body of a directive that revokes."""
    return {"incarnation": "i", "number": number, "ca_id": "c", "serial": serial, "reason": "r"}


def _bounded(held: Mapping[Place, Row], after: Place, events: int, size: int) -> list[Row]:
    rows: list[Row] = []
    segment, lane, sequence = after
    while len(rows) < events and (row := held.get((segment, lane, sequence + len(rows) + 1))):
        size -= weight(row.event)
        if rows and size < 0:
            break
        rows.append(row)
    return rows
