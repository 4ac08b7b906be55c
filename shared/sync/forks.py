"""Two boxes under one name: both histories are kept, and a person decides which one goes on.

What central holds of a gateway is its *trunk*. A box whose history cannot follow it puts in a
*claim*, and central fetches what it holds beside the trunk. The line is blocked until somebody
decides (design.md §5): for the trunk, and the others are *outcasts*; or for a claim, which becomes
the *heir*: its box takes the trunk back as an old copy would, writes its own events again behind
it and goes on. Whoever is not chosen issues nothing any more; what it issued is taken in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError, ConflictError, Kind, NotFoundError, TmaError
from shared.kernel.ids import Random, random_name
from shared.sync import events, inbox
from shared.sync.envelope import BATCH_BYTES_MAX, Batch, batch_of
from shared.sync.errands import Given, Taken, Trouble
from shared.sync.events import Lane
from shared.sync.lineage import Finding, Verdict
from shared.sync.messages import Hello, Part
from shared.sync.outbox import GENESIS_HASH
from shared.sync.ports import (
    Claim,
    ClaimState,
    ForkRow,
    Head,
    LinkTransaction,
    OutSegment,
    Segment,
)

#: More boxes of one name are told to stop, too, but not kept apart.
CLAIMS_MAX = 16
_ALL = 1 << 31
_POSITION_BYTES_MAX = 8 * 1024
_WAITING = (ClaimState.OPEN, ClaimState.OUTCAST, ClaimState.HEIR)
_CHOSEN = Finding(Verdict.RESTORED, "This box was chosen; it takes back what the other one wrote.")
_SET_ASIDE = Finding(Verdict.CLONE, "Another box of this name was chosen; this one is set aside.")
#: What is taken in of an outcast: the rest of what it says is about a box that is no more.
_TAKEN_IN = "certificate."


class Judgement(NamedTuple):
    """What a history that cannot go on is; ``is_new``: this hello made the claim."""

    finding: Finding
    claim: Claim | None
    is_new: bool = False


# --- central: whose hello is this? ----------------------------------------------------------------


def judge(
    store: LinkTransaction, hello: Hello, finding: Finding, *, fresh: bool, stopped: bool
) -> Judgement:
    """Say what a history that cannot go on is: that of a claim, perhaps a new one.

    Only a fresh hello makes a claim: the network may have kept another one. While the gateway is
    ``stopped`` as a clone, an old copy is one of its boxes, too.
    """
    segment, heads = hello.segments[0].described()
    claim = _find(store, segment, heads)
    is_new = claim is None
    if claim is None:
        is_claim = finding.verdict is Verdict.CLONE or (
            stopped and finding.verdict is Verdict.RESTORED
        )
        if not (fresh and is_claim) or len(store.forks.claims()) >= CLAIMS_MAX:
            return Judgement(finding, None)
        claim = _claim(segment, heads, hello, ClaimState.OPEN)
    grown = (claim.segment, claim.heads) != (segment.name, heads)
    claim = replace(
        claim,
        segment=segment.name,
        heads=heads,
        boot_id=hello.boot_id,
        version=hello.version,
        backlog=hello.backlog,
        complete=claim.complete and not grown,
        reached=b"" if grown else claim.reached,  # it may be a third box: repeats are harmless
    )
    store.forks.put(claim, seen=True)
    said = {ClaimState.HEIR: _CHOSEN, ClaimState.OUTCAST: _SET_ASIDE}
    return Judgement(said.get(claim.state, finding), claim, is_new)


def note_trunk(store: LinkTransaction, hello: Hello, *, stopped: bool) -> None:
    """Take note of the box that speaks for the trunk; if it was an heir, it has gone on."""
    if not stopped:
        for claim in store.forks.claims():
            if claim.state in {ClaimState.HEIR, ClaimState.TRUNK}:
                store.forks.put(replace(claim, state=ClaimState.DONE))
        return
    segment, heads = hello.segments[0].described()
    seen = _claim(segment, heads, hello, ClaimState.TRUNK)
    known = _in_state(store, ClaimState.TRUNK)
    store.forks.put(replace(seen, fork=known.fork) if known else seen, seen=True)


def _claim(segment: Segment, heads: Mapping[Lane, Head], hello: Hello, state: ClaimState) -> Claim:
    return Claim(
        hashlib.sha256(hello.nonce).hexdigest()[:16],
        segment.name,
        heads,
        state,
        hello.boot_id,
        hello.version,
        hello.backlog,
        of_trunk=state is ClaimState.TRUNK,
    )


def _trunk_of(frontier: Segment) -> Claim:
    """Describe the box of the trunk, although it did not speak while the line was blocked."""
    name = frontier.name
    return Claim(name[:16], name, {}, ClaimState.TRUNK, "", "", 0, of_trunk=True)


def _find(store: LinkTransaction, segment: Segment, heads: Mapping[Lane, Head]) -> Claim | None:
    """Know a box again: by what it has open, what it had open before, or at least its segment.

    Until it is told, a box goes on to write. Two of them may do so in one segment.
    """
    claims = [claim for claim in store.forks.claims() if claim.state in _WAITING]
    here = (segment.name, heads)
    before = (segment.parent, segment.parent_heads)
    for place in (here, before):
        for claim in claims:
            if (claim.segment, claim.heads) == place:
                return claim
    ours = _is_held(store, segment, heads)
    grown = [one for one in claims if one.segment == segment.name and _grew(one, heads)]
    return next((one for one in grown if one.of_trunk or not ours), None)


def _is_held(store: LinkTransaction, segment: Segment, heads: Mapping[Lane, Head]) -> bool:
    """Tell if these very events are held here: that is an old copy of the trunk, and no fork."""
    rows = {lane: store.in_row(segment.name, lane, head.sequence) for lane, head in heads.items()}
    return all(row is not None and row.hash == heads[lane].hash for lane, row in rows.items())


def _grew(claim: Claim, heads: Mapping[Lane, Head]) -> bool:
    return all(heads[lane].sequence >= head.sequence for lane, head in claim.heads.items())


def _in_state(store: LinkTransaction, state: ClaimState) -> Claim | None:
    return next((claim for claim in store.forks.claims() if claim.state is state), None)


# --- central: what a person decides ---------------------------------------------------------------


def keep_trunk(store: LinkTransaction, *, revoke: bool) -> Sequence[Claim]:
    """Decide for the box whose history is held here; gives who is set aside.

    ``revoke``: what the others issued is revoked. Raises ConflictError when nobody claims anything.
    """
    opened = _opened(store)
    _set_aside(store, opened, revoke=revoke)
    if trunk := _in_state(store, ClaimState.TRUNK):
        store.forks.put(replace(trunk, state=ClaimState.DONE))
    return opened


def keep_claim(store: LinkTransaction, fork: str, random: Random, *, revoke: bool) -> Claim:
    """Decide for a claim, and close the trunk, so that the box that wrote it is known by that.

    Raises NotFoundError (no open claim has this name), ConflictError (nobody claims anything).
    """
    opened = _opened(store)
    heir = next((claim for claim in opened if claim.fork == fork), None)
    if heir is None:
        names = ", ".join(claim.fork for claim in opened)
        raise NotFoundError(f"There is no open claim {fork}.", remedy=f"There are: {names}.")
    trunk = _in_state(store, ClaimState.TRUNK)
    others = [claim for claim in opened if claim is not heir]
    frontier = _frontier(store)
    if trunk is None and frontier is not None:
        trunk = _trunk_of(frontier)
    _set_aside(store, [*others, trunk] if trunk else others, revoke=revoke)
    store.forks.put(replace(heir, state=ClaimState.HEIR))
    if frontier is not None:
        heads = {lane: Head(*store.in_cursor(frontier.name, lane)[:2]) for lane in Lane}
        counter = frontier.start_counter + 1
        closing = Segment(random_name(random), frontier.name, heads, counter, "central", "decision")
        store.add_segment(closing)
    return heir


def _opened(store: LinkTransaction) -> list[Claim]:
    found = [claim for claim in store.forks.claims() if claim.state is ClaimState.OPEN]
    if not found:
        raise ConflictError(
            "No other box has claimed to be this gateway.",
            remedy="Let both boxes reach central, or invite the gateway anew and join one of them.",
        )
    return found


def _set_aside(store: LinkTransaction, claims: Sequence[Claim], *, revoke: bool = False) -> None:
    for claim in claims:
        store.forks.put(replace(claim, state=ClaimState.OUTCAST, revoke=revoke))


def _frontier(store: LinkTransaction) -> Segment | None:
    """Give the segment that nothing follows."""
    segment = next(iter(store.stretches()[-1:]), None)
    while segment is not None and (child := store.child_of(segment.name)) is not None:
        segment = child
    return segment


def take_in(store: LinkTransaction, claim: Claim, most: int) -> int:
    """Take in what an outcast's events say of certificates; gives how many rows were looked at.

    What cannot be applied is quarantined, as everything that a gateway reports.
    """
    rows = store.forks.rows(claim.fork, claim.taken, most)
    for kept in rows:
        if kept.row.type.startswith(_TAKEN_IN):
            _take_one(store, kept, revoke=claim.revoke)
    if rows:
        store.forks.put(replace(claim, taken=rows[-1].number))
    return len(rows)


def _take_one(store: LinkTransaction, kept: ForkRow, *, revoke: bool) -> None:
    try:
        event = events.decode(kept.row.event)
        events.check(event)
        with store.savepoint():
            store.forks.take_in(event, revoke=revoke)
    except Exception as error:
        if isinstance(error, TmaError) and error.kind is Kind.RETRYABLE:
            raise
        reason = error.message if isinstance(error, TmaError) else f"defect: {type(error).__name__}"
        store.quarantine(kept.segment, kept.lane, kept.row, reason)


# --- the errand: what central does not hold of a box ----------------------------------------------


class _Place(NamedTuple):
    """The hello that central answered, and the last event that it got."""

    nonce: bytes
    segment: str
    lane: int
    sequence: int


def begin(claim: Claim, nonce: bytes) -> bytes:
    """Say whom central asks, and from where on: both boxes hear it."""
    reached = _decode(claim.reached) if claim.reached else _Place(b"", "", 0, 0)
    return cbor.encode(list(reached._replace(nonce=nonce)))


def give(store: LinkTransaction, position: bytes, nonce: bytes) -> Given | None:
    """Give the next of our events that central did not confirm, the oldest segment first.

    None: it is the other box that is asked.
    """
    place = _decode(position)
    if not nonce or place.nonce != nonce:
        return None
    opened, *sealed = store.out_segments(_ALL)
    lanes = [(out, lane) for out in (*sealed, opened) for lane in Lane]
    names = [(out.segment.name, int(lane)) for out, lane in lanes]
    here = (place.segment, place.lane)
    begun = names.index(here) if here in names else 0
    for number, (out, lane) in enumerate(lanes[begun:], begun):
        reached = place.sequence if names[number] == here else 0
        if batch := _batch(store, out, lane, max(reached, out.confirmed[lane].applied)):
            moved = _Place(nonce, batch.segment, int(lane), batch.last_sequence)
            content = [cbor.encode(batch.model_dump())]
            return Given(content, cbor.encode(list(moved)), done=False)
    return Given([], position, done=True)


def _batch(store: LinkTransaction, out: OutSegment, lane: Lane, after: int) -> Batch | None:
    name = out.segment.name
    rows = store.out_rows(name, lane, after, limits.ENVELOPE_EVENTS_MAX, BATCH_BYTES_MAX)
    if not rows:
        return None
    previous = store.out_hash(name, lane, after) if after else GENESIS_HASH
    # The row is pruned where central confirmed it: the cursor has its hash.
    previous = previous or out.confirmed[lane].hash
    return batch_of(name, lane, previous, rows, 0)


def take(store: LinkTransaction, part: Part, fork: str, gateway: str) -> Taken | Trouble:
    """Keep a part of what a box wrote beside the trunk."""
    claim = next((one for one in store.forks.claims() if one.fork == fork), None)
    if claim is None:
        return Trouble("The box that gives its events has no claim any more.")
    for content in part.content:
        batch = _read(content)
        rows = inbox.rows_of(batch, gateway)
        if rows[-1].hash != batch.last_hash:
            return Trouble(f"What a box gave of segment {batch.segment} contradicts itself.")
        held = (store.in_row(batch.segment, batch.lane, row.sequence) for row in rows)
        other = [row for row, known in zip(rows, held, strict=True) if row != known]
        store.forks.keep(fork, batch.segment, batch.lane, other)
    _decode(part.position)
    store.forks.put(replace(claim, reached=part.position, complete=part.done))
    return Taken.YES


def _read(content: bytes) -> Batch:
    try:
        return Batch.model_validate(cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX))
    except ValidationError as error:
        raise BadRequestError("What a box gave of its events cannot be read.") from error


def _decode(position: bytes) -> _Place:
    value: Any = cbor.decode(position, limit=_POSITION_BYTES_MAX)
    match value:
        case [bytes(nonce), str(segment), int(lane), int(sequence)] if sequence >= 0:
            return _Place(nonce, segment, lane, sequence)
        case _:
            raise BadRequestError("The position cannot be read.")
