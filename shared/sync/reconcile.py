"""Hello and welcome: telling resume, a restored copy, a clone and a stranger apart."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.kernel import limits
from shared.kernel.errors import BadRequestError
from shared.sync import events, forks, giving_back, lineage
from shared.sync.events import Lane
from shared.sync.lineage import Finding, Verdict
from shared.sync.messages import Hello, HelloSegment, Mark, cursors_of, marks_of
from shared.sync.outbox import Contradiction
from shared.sync.ports import (
    NOTHING,
    Claim,
    Cursor,
    Head,
    Lacking,
    LinkTransaction,
    Row,
    Segment,
)
from shared.sync.segments import opens_after_outage

#: Central opens a segment per incarnation, so a few hold all that can still be under way.
_PEER_SEGMENTS = 8

LaneName = tuple[str, Lane]
#: How much of a lane of ours the gateway had confirmed.
Confirmed = Mapping[LaneName, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a gateway says of itself in a hello."""

    incarnation: str
    backlog: int
    segments: list[HelloSegment]
    cursors: list[Mark]
    doubt: Verdict
    confirmed: Confirmed  # by central, in the lanes that are named: for whoever reads the welcome


def introduce(store: LinkTransaction, outage_us: int) -> Standing:
    """Prepare a hello; open a segment first if the outage was long, or if there is none."""
    if not store.out_segments(0) or opens_after_outage(outage_us, store.backlog()):
        store.open_segment()
    named = store.out_segments(limits.SEGMENTS_IN_HELLO_MAX, limits.UNARCHIVED_IN_HELLO_MAX)
    return Standing(
        incarnation=store.peer_incarnation(),
        backlog=store.backlog(),
        segments=[HelloSegment.of(out) for out in named],
        cursors=marks_of(store.in_cursors(_PEER_SEGMENTS)),
        doubt=Verdict(store.doubt() or Verdict.RESUME),
        confirmed={
            (out.segment.name, lane): cursor.applied
            for out in named
            for lane, cursor in out.confirmed.items()
        },
    )


@dataclass(frozen=True, slots=True)
class Examination:
    """What central found; ``cursors`` answers for each lane that the hello names.

    ``contradiction`` is between the gateway's cursors and our own outbox; ``confirmed`` is what it
    had confirmed of our open segment; ``lacking`` is what a restored central is to ask it for.
    ``claim`` is that of a box whose history is another one (``forks``), known before or new.
    """

    finding: Finding | None
    cursors: Mapping[LaneName, Cursor]
    contradiction: Contradiction | None
    confirmed: Confirmed
    lacking: Lacking
    claim: Claim | None = None
    is_new_claim: bool = False


def examine(
    store: LinkTransaction, hello: Hello, floor: Confirmed | None = None, *, stopped: bool = False
) -> Examination | None:
    """Compare a hello with what is held of this gateway, and confirm what it has of ours.

    ``floor`` is what the gateway had confirmed when it was asked for this hello (None: it was not
    asked). A new segment of a history that may go on closes its parent at once. ``stopped``: this
    gateway is known to be two.

    None: the hello is older than events that are held already, so it says nothing any more.
    Raises BadRequestError when the hello cannot be read.
    """
    described = [segment.described() for segment in hello.segments]
    if any(_overtaken(store, hello, *one) for one in described):
        return None
    cursors = {
        (segment.name, lane): store.in_cursor(segment.name, lane)
        for segment, _ in described
        for lane in Lane
    }
    confirmed = {
        (out.segment.name, lane): cursor.applied
        for out in store.out_segments(0)
        for lane, cursor in out.confirmed.items()
    }
    finding = _own_doubt(hello) or _closed(store, described[0][0])
    if store.fenced() and floor is None:
        finding = finding or Finding(Verdict.RESTORED, "The gateway takes its history back.")
    for segment, heads in described:
        finding = (
            finding or lineage.judge(store, segment) or lineage.behind(store, segment.name, heads)
        )
    finding = finding or _forgotten(hello, confirmed if floor is None else floor)
    contradiction, claim, is_new = None, None, False
    if finding is None:
        forks.note_trunk(store, hello, stopped=stopped)
        contradiction = giving_back.confirm(store, cursors_of(hello.cursors))
        store.set_fenced(fenced=False)
        if store.in_segment(described[0][0].name) is None:
            store.add_segment(described[0][0])
    else:
        fresh = floor is not None
        finding, claim, is_new = forks.judge(store, hello, finding, fresh=fresh, stopped=stopped)
    return Examination(finding, cursors, contradiction, confirmed, store.lacking(), claim, is_new)


def _own_doubt(hello: Hello) -> Finding | None:
    if hello.doubt is Verdict.RESUME:
        return None
    return Finding(hello.doubt, f"The gateway itself says that its history is {hello.doubt.value}.")


def _forgotten(hello: Hello, confirmed: Confirmed) -> Finding | None:
    """Tell if the gateway confirmed directives that it does not know any more."""
    known = cursors_of(hello.cursors)
    for place, applied in confirmed.items():
        if applied > known.get(place, NOTHING).applied:
            reason = f"The gateway has forgotten directives that it had confirmed: {applied}."
            return Finding(Verdict.RESTORED, reason)
    return None


def _closed(store: LinkTransaction, segment: Segment) -> Finding | None:
    child = store.child_of(segment.name)
    if child is None:
        return None
    reason = f"Segment {segment.name} goes on here, but segment {child.name} has followed it."
    return Finding(Verdict.CLONE, reason)


def _overtaken(
    store: LinkTransaction, hello: Hello, segment: Segment, heads: Mapping[Lane, Head]
) -> bool:
    """Tell if what follows the named heads here was made after the hello, in the same boot."""
    places = [(segment.name, lane, head.sequence + 1) for lane, head in heads.items()]
    if child := store.child_of(segment.name):
        places.extend((child.name, lane, 1) for lane in Lane)
    rows = (store.in_row(*place) for place in places)
    return any(_made_after(hello, row) for row in rows if row is not None)


def _made_after(hello: Hello, row: Row) -> bool:
    try:
        event = events.decode(row.event)
    except BadRequestError:
        return False
    return event.boot_id == hello.boot_id and event.mono_ns >= hello.mono_ns
