"""What the two sides say besides events: hello, welcome, receipt and call."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from shared.kernel import limits
from shared.sync.envelope import Count, Digest, Message, Name
from shared.sync.events import Lane
from shared.sync.lineage import Verdict
from shared.sync.ports import Cursor, Head, OutSegment, Segment
from shared.sync.segments import decode_heads, encode_heads

Text = Annotated[str, Field(max_length=256)]
Nonce = Annotated[bytes, Field(min_length=16, max_length=16)]
Challenge = Annotated[bytes, Field(max_length=16)]
Position = Annotated[bytes, Field(max_length=8 * 1024)]
#: Lane names to [sequence, hash]; an array in CBOR becomes a tuple here.
Heads = dict[Text, Annotated[tuple[Count, Digest], Strict(strict=False)]]


class Mark(Message):
    """How far one lane of the receiver of this mark is at the sender of it."""

    segment: Name
    lane: Annotated[Lane, Field(strict=False)]
    applied: Count
    hash: Digest
    archived: Count

    @property
    def cursor(self) -> Cursor:
        """The same as storage keeps it."""
        return Cursor(self.applied, self.hash, self.archived)


#: The open segment, the oldest undrained ones, and the oldest drained ones in no backup.
_SEGMENTS_MAX = 1 + limits.SEGMENTS_IN_HELLO_MAX + limits.UNARCHIVED_IN_HELLO_MAX
Marks = Annotated[list[Mark], Field(max_length=4 * (limits.SEGMENTS_IN_HELLO_MAX + 1))]


class HelloSegment(Message):
    """One of the gateway's segments, as its opening said, and its heads now."""

    segment: Name
    parent: Name | None
    parent_heads: Heads
    start_counter: Count
    boot_id: Text
    version: Text
    heads: Heads

    @classmethod
    def of(cls, out: OutSegment) -> "HelloSegment":
        """Describe one of our own segments."""
        return cls(
            segment=out.segment.name,
            parent=out.segment.parent,
            parent_heads=_heads(out.segment.parent_heads),
            start_counter=out.segment.start_counter,
            boot_id=out.segment.boot_id,
            version=out.segment.version,
            heads=_heads(out.heads),
        )

    def described(self) -> tuple[Segment, Mapping[Lane, Head]]:
        """Give the segment and its heads. Raises BadRequestError."""
        segment = Segment(
            self.segment,
            self.parent,
            decode_heads(self.parent_heads),
            self.start_counter,
            self.boot_id,
            self.version,
        )
        return segment, decode_heads(self.heads)


class Hello(Message):
    """The gateway, on each connect: what it has, how far it is, what it knows of central.

    ``segments`` holds the open one first; ``cursors`` how far central's own segments are applied.
    Its monotonic time tells a hello that was overtaken by later events from an old copy's, and the
    ``challenge`` of the last call tells a hello of now from one that the network kept: only a fresh
    one may be judged. ``doubt`` is what the gateway thinks of its own history, and
    ``trusts`` names (by kid) the directive keys that it takes messages by.
    """

    nonce: Nonce
    boot_id: Text
    mono_ns: Count
    incarnation: Text
    version: Text
    backlog: Count
    segments: Annotated[list[HelloSegment], Field(min_length=1, max_length=_SEGMENTS_MAX)]
    cursors: Marks
    challenge: Challenge = b""
    doubt: Annotated[Verdict, Field(strict=False)] = Verdict.RESUME
    trusts: Annotated[list[Digest], Field(max_length=8, default_factory=list)]

    def heads(self) -> dict[tuple[str, Lane], int]:
        """Give the last sequence of each lane that is named."""
        return {
            (one.segment, lane): one.heads[lane.name.lower()][0]
            for one in self.segments
            for lane in Lane
            if lane.name.lower() in one.heads
        }


class Welcome(Message):
    """Central's answer to the hello with this nonce. ``credit`` is in bytes."""

    nonce: Nonce
    incarnation: Text
    verdict: Annotated[Verdict, Field(strict=False)]
    reason: Text
    utc_us: Count
    cursors: Marks
    credit: Count


class Receipt(Message):
    """Cumulative and sent after the commit only; bound to central's incarnation."""

    incarnation: Text
    utc_us: Count
    marks: Marks
    credit: Count


class Call(Message):
    """Central asks for a hello: it came (back) to the broker, or it has to judge.

    A hello that is to be judged repeats the ``challenge``.
    """

    incarnation: Text
    utc_us: Count
    challenge: Challenge = b""


class Errand(StrEnum):
    """What one side asks the other for, part by part, so that a history can go on."""

    HISTORY = "history"  # a restored gateway: its own events, which central holds
    DIRECTIVES = "directives"  # a restored central: what it had ordered, which the gateway holds
    HEADS = "heads"  # a restored central: how much the gateway wrote that it may lack
    DIGEST = "digest"  # central compares: sums over the certificates that the gateway holds
    LEDGER = "ledger"  # central compares: these certificates, told again
    FORK = "fork"  # a second box of one name: what central does not hold of its history


class Ask(Message):
    """Ask for the next part of an errand, from a position that only its two rules read."""

    nonce: Nonce
    errand: Annotated[Errand, Field(strict=False)]
    position: Position


class Part(Message):
    """The answer to the ask with this nonce: some of it, where to go on, whether that is all."""

    nonce: Nonce
    errand: Annotated[Errand, Field(strict=False)]
    content: Annotated[list[bytes], Field(max_length=limits.ENVELOPE_EVENTS_MAX)]
    position: Position
    done: bool


def marks_of(cursors: Mapping[tuple[str, Lane], Cursor]) -> list[Mark]:
    """Write cursors for a message."""
    return [
        Mark(
            segment=segment,
            lane=lane,
            applied=cursor.applied,
            hash=cursor.hash,
            archived=cursor.archived,
        )
        for (segment, lane), cursor in sorted(cursors.items())
    ]


def cursors_of(marks: Iterable[Mark]) -> dict[tuple[str, Lane], Cursor]:
    """Read cursors from a message."""
    return {(mark.segment, mark.lane): mark.cursor for mark in marks}


def _heads(heads: Mapping[Lane, Head]) -> Heads:
    return {name: (sequence, digest) for name, (sequence, digest) in encode_heads(heads).items()}
