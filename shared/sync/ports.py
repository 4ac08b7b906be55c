"""What replication needs from storage.

All rules live in ``shared.sync`` as *units*: synchronous functions over a ``LinkTransaction``,
safe to run again. ``LinkStore.run`` runs one of them in one database transaction. Both are bound
to one link: one peer and its direction (design.md §5).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeVar

from shared.kernel import limits
from shared.sync.events import Event, Lane

Result = TypeVar("Result")


class Head(NamedTuple):
    """The last event of a lane: its sequence (0: none) and its chain hash."""

    sequence: int
    hash: bytes


class Cursor(NamedTuple):
    """How far a lane is: contiguously applied, its chain hash there, contained in a backup."""

    applied: int
    hash: bytes
    archived: int


#: The cursor of a lane of which nothing is known.
NOTHING = Cursor(0, bytes(32), 0)


@dataclass(frozen=True, slots=True)
class Segment:
    """What an opening event says. ``parent_heads`` has both lanes, or none without a parent."""

    name: str
    parent: str | None
    parent_heads: Mapping[Lane, Head]
    start_counter: int
    boot_id: str
    version: str


@dataclass(frozen=True, slots=True)
class OutSegment:
    """One of our own segments: its heads, and what the peer confirmed of it, for both lanes."""

    segment: Segment
    is_open: bool
    heads: Mapping[Lane, Head]
    confirmed: Mapping[Lane, Cursor]


class Row(NamedTuple):
    """One event of a lane as stored: the exact bytes and their chain hash."""

    sequence: int
    event: bytes
    hash: bytes
    type: str


def weight(event: bytes) -> int:
    """Give what an event counts against windows and batches, in bytes: even an empty one does."""
    return len(event) + limits.EVENT_OVERHEAD_BYTES


class Directive(NamedTuple):
    """A directive as a gateway holds it. ``body`` is its CBOR, ``ordered_us`` when it was given."""

    number: int
    kind: str
    subject: str
    body: bytes
    ordered_us: int


class Lacking(StrEnum):
    """What a central that was put back from a backup does not know again yet of a gateway."""

    NOTHING = ""
    DIRECTIVES = "directives"  # what it had ordered; no events are taken before that is known
    EVENTS = "events"  # what the gateway wrote since the backup


class ClaimState(StrEnum):
    """What became of a claim (``shared.sync.forks``)."""

    TRUNK = "trunk"  # no claim: the box that speaks for what is held here
    OPEN = "open"  # a person has to decide
    OUTCAST = "outcast"  # set aside: what it issued is taken in, nothing else
    HEIR = "heir"  # chosen: it takes back what is held here and goes on behind it
    DONE = "done"  # an heir that went on


@dataclass(frozen=True, slots=True)
class Claim:
    """A box that has another history of this gateway than the one that is held here.

    ``segment`` and ``heads`` are its open one; ``fork`` names it. ``of_trunk``: its open segment
    is one that is held here. ``reached`` is how far its events were fetched (empty: not at all),
    ``complete`` says that all were; ``taken`` is the last of them that was taken in.
    """

    fork: str
    segment: str
    heads: Mapping[Lane, Head]
    state: ClaimState
    boot_id: str
    version: str
    backlog: int
    of_trunk: bool = False
    revoke: bool = False
    reached: bytes = b""
    complete: bool = False
    taken: int = 0


class ForkRow(NamedTuple):
    """An event of a fork: its number among all that were kept, and where it stood."""

    number: int
    segment: str
    lane: Lane
    row: Row


class ForkTransaction(Protocol):
    """Histories of the peer beside the one that is held, inside one transaction."""

    def claims(self) -> Sequence[Claim]:
        """Give all claims, the oldest first."""
        ...

    def put(self, claim: Claim, *, seen: bool = False) -> None:
        """Store a claim, or what changed of it; ``seen``: its box has just spoken."""
        ...

    def keep(self, fork: str, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Keep events of a fork; one that is kept already changes nothing."""
        ...

    def rows(self, fork: str, after: int, most: int) -> Sequence[ForkRow]:
        """Read events of a fork after a number, in order."""
        ...

    def take_in(self, event: Event, *, revoke: bool) -> None:
        """Apply what an event says of a certificate; what is known already changes nothing.

        ``revoke``: a certificate that it issued is revoked at once. Raises as ``apply`` does.
        """
        ...


class Holding(NamedTuple):
    """A certificate as a ledger or an inventory holds it; ``number`` only orders them."""

    number: int
    ca_id: str
    serial: str
    status: str


class Outcome(StrEnum):
    """What came of comparing one certificate."""

    SAME = "same"
    REPAIRED = "repaired"  # central did not know what it knows now
    ORDERED = "ordered"  # central is ahead: what it had ordered is ordered again


class HoldingTransaction(Protocol):
    """The certificates themselves, for comparing (``shared.sync.anti_entropy``)."""

    def page(self, after: int, until_us: int, most: int) -> Sequence[Holding]:
        """Read what we issued up to a moment, after a number, in order (gateway only)."""
        ...

    def told(self, holding: Holding) -> Sequence[Event]:
        """Say all that is known of one of them, as it was reported once (gateway only)."""
        ...

    def settle(self, holding: Holding, told: Sequence[Event]) -> Outcome:
        """Take in what a gateway tells of a certificate, if it is news (central only).

        Raises UntrustedError and as ``apply`` does.
        """
        ...


class OutboxTransaction(Protocol):
    """Our events to this peer, inside one transaction."""

    def open_segment(self) -> Segment:
        """Open a new segment, child of the open one: row and opening event of both lanes.

        The former open segment becomes sealed; its heads are named as ``parent_heads``.
        """
        ...

    def out_segments(self, sealed: int, drained: int = 0) -> Sequence[OutSegment]:
        """Give the open segment, then the oldest ``sealed`` and the oldest ``drained`` ones.

        Drained: sealed before, and applied equals the head in both lanes. Once *archived* does,
        too, a segment is given no more.
        """
        ...

    def out_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        """Read at most ``events`` events after a sequence, in order, that weigh ``size`` bytes.

        Stops before the sum of their weights passes ``size``, but gives at least one if there is
        one. Gives nothing when the row at ``after + 1`` was pruned.
        """
        ...

    def out_hash(self, segment: str, lane: Lane, sequence: int) -> bytes | None:
        """Give the chain hash at a sequence; None if there is no row (pruned, or beyond)."""
        ...

    def out_cursor(self, segment: str, lane: Lane) -> Cursor:
        """Give what the peer confirmed (``NOTHING`` if never)."""
        ...

    def set_out_cursor(self, segment: str, lane: Lane, cursor: Cursor) -> None:
        """Store what the peer confirmed; a drained sealed segment changes its state by this."""
        ...

    def prune(self, segment: str, lane: Lane, through: int) -> None:
        """Delete the rows up to and including ``through``."""
        ...

    def rewind(self) -> None:
        """Let every confirmed cursor with applied > archived fall back to archived.

        The hash becomes that of the row at ``archived``, which is never pruned. Segments that
        were drained become undrained by this where they must.
        """
        ...

    def out_segment(self, name: str) -> Segment | None:
        """Give one of our segments, in whatever state it is."""
        ...

    def out_newest(self, most: int) -> Sequence[OutSegment]:
        """Give our newest segments that were not abandoned, the newest first."""
        ...

    def doubt(self) -> str:
        """Give what is thought of our own history ('' while it may go on; else a verdict)."""
        ...

    def set_doubt(self, doubt: str) -> None:
        """Remember what is thought of our own history."""
        ...

    def add_own_segment(self, segment: Segment) -> None:
        """Take back a segment of ours that this database has forgotten; it is sealed."""
        ...

    def take_back(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Store events of ours that the peer gave back."""
        ...

    def reapply(self, event: Event) -> None:
        """Make the effects of an event of ours our own again; nothing is emitted.

        What is known already changes nothing, and an event without effect here does nothing.
        """
        ...

    def remove(self, segment: str, lane: Lane, after: int) -> Sequence[Row]:
        """Delete the rows after a sequence and give them, in order."""
        ...

    def abandon(self, segment: str) -> None:
        """End a segment of ours: what is not confirmed of it will never be sent any more."""
        ...

    def go_on(self, parent: str | None, heads: Mapping[Lane, Head]) -> Segment:
        """Open a segment behind one that the peer holds up to ``heads``, whatever was open.

        What is counted (grants) is counted again from what is now known.
        """
        ...

    def write_again(self, lane: Lane, rows: Sequence[Row]) -> None:
        """Write events of abandoned segments, as they are, behind the open segment's head."""
        ...

    def reissue(self) -> None:
        """Open a segment and write again all that is in force for the peer (central only)."""
        ...

    def regain(self, directive: Directive) -> None:
        """Learn a directive of ours that the peer holds; a newer one of ours stays."""
        ...

    def backlog(self) -> int:
        """Count the events that the peer did not confirm as applied, over all segments."""
        ...

    def peer_incarnation(self) -> str:
        """Give the peer's incarnation at the last welcome ('' before the first)."""
        ...

    def set_peer_incarnation(self, incarnation: str) -> None:
        """Remember the peer's incarnation."""
        ...


class InboxTransaction(Protocol):
    """The peer's events to us, inside one transaction."""

    def in_cursor(self, segment: str, lane: Lane) -> Cursor:
        """Tell how far the lane is applied here (``NOTHING`` if unknown). Kept for ever."""
        ...

    def in_cursors(self, newest: int) -> Mapping[tuple[str, Lane], Cursor]:
        """Give the cursors of the ``newest`` segments of the peer."""
        ...

    def in_row(self, segment: str, lane: Lane, sequence: int) -> Row | None:
        """Give a received event with its chain hash; None if it is not held."""
        ...

    def in_rows(
        self, segment: str, lane: Lane, after: int, events: int, size: int
    ) -> Sequence[Row]:
        """Read received events after a sequence, bounded as ``out_rows``."""
        ...

    def fenced(self) -> bool:
        """Tell if the peer takes its history back, so that no events of it are taken meanwhile."""
        ...

    def set_fenced(self, *, fenced: bool) -> None:
        """Take no events of the peer until it says how it goes on; or take them again."""
        ...

    def lacking(self) -> Lacking:
        """Tell what is to be given back before we know all of the peer again."""
        ...

    def set_lacking(self, lacking: Lacking) -> None:
        """Remember what is still to be given back."""
        ...

    def foreign(self) -> Mapping[tuple[str, Lane], int]:
        """Tell how far the peer told to be in lanes that are not in our books (any more)."""
        ...

    def set_foreign(self, foreign: Mapping[tuple[str, Lane], int]) -> None:
        """Remember how far the peer is in lanes that are not in our books."""
        ...

    def directives(self, after: tuple[int, str, str], most: int) -> Sequence[Directive]:
        """Read directives of the peer after (number, kind, subject), in this order."""
        ...

    def in_segment(self, name: str) -> Segment | None:
        """Give a segment of the peer as its opening event described it."""
        ...

    def child_of(self, name: str) -> Segment | None:
        """Give the segment that names this one as its parent, and thereby closes it."""
        ...

    def root(self) -> str | None:
        """Give the peer's segment without a parent that no join ended; None before it."""
        ...

    def stretches(self) -> Sequence[Segment]:
        """Give where each connected stretch of the peer's history begins, the oldest start first.

        That is the root, and what a restored store received out of turn: segments whose parent is
        not held. Those that a join ended do not count.
        """
        ...

    def add_segment(self, segment: Segment) -> None:
        """Remember a segment of the peer."""
        ...

    def append(self, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Store raw events as received; a row that exists already is an error (a tripwire)."""
        ...

    def set_in_cursor(self, segment: str, lane: Lane, head: Head) -> None:
        """Move applied and its hash; archived stays."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo the statements of the block when an exception leaves it.

        Lock, disk and interrupt errors leave it as UnavailableError (or kin), and so does
        a transaction that the database has dropped: they are retried, never quarantined.
        """
        ...

    def apply(self, events: Sequence[Event]) -> None:
        """Apply the effects of events of the peer, in order; raises when one cannot be applied."""
        ...

    def quarantine(self, segment: str, lane: Lane, row: Row, reason: str) -> None:
        """Keep an event that could not be applied, for another try after an upgrade."""
        ...


class LinkTransaction(OutboxTransaction, InboxTransaction, Protocol):
    """Both halves of one link in one transaction."""

    @property
    def forks(self) -> ForkTransaction:
        """Other histories of the peer (central only)."""
        ...

    @property
    def holdings(self) -> HoldingTransaction:
        """The certificates that both sides hold."""
        ...


#: A rule to run in one transaction; it may run more than once and must then give the same.
Unit = Callable[[LinkTransaction], Result]


class LinkStore(Protocol):
    """Runs units for one link."""

    async def run(self, unit: Unit[Result]) -> Result:
        """Run the unit and return once it is durable. Raises UnavailableError: try again."""
        ...
