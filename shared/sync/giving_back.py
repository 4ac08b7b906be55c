"""A restored central asks each gateway for what it does not know again yet.

It came back from a backup as another incarnation. First it asks for the directives that the gateway
holds: orders given after the backup are in nobody else's books, and events are judged by them.
Then the gateway is welcome and sends again what is not archived; the heads that it names say when
all of that is here. Until then central does not answer for the gateway's certificates
(design.md §5).
"""

from collections.abc import Mapping
from typing import Any

from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError
from shared.sync import outbox
from shared.sync.envelope import BATCH_BYTES_MAX
from shared.sync.errands import Given, Taken
from shared.sync.events import Lane
from shared.sync.messages import Errand, Part
from shared.sync.outbox import Conflict, Contradiction
from shared.sync.ports import Cursor, Directive, Lacking, LinkTransaction
from shared.sync.segments import encode_heads

_ALL = 1 << 31
_DIRECTIVES = 100  # per part, as far as they fit
_POSITION_BYTES_MAX = 8 * 1024
#: Unarchived segments whose heads are waited for: one per start of the agent since the backup.
_SEGMENTS = 500


def give(store: LinkTransaction, errand: Errand, position: bytes) -> Given:
    """Give the next part of what a restored central asks a gateway for."""
    return _heads(store) if errand is Errand.HEADS else _directives(store, position)


def _directives(store: LinkTransaction, position: bytes) -> Given:
    after = _place(position) if position else (-1, "", "")
    content: list[bytes] = []
    size = 0
    found = store.directives(after, _DIRECTIVES)
    for directive in found:
        encoded = cbor.encode(list(directive))
        size += len(encoded)
        if content and size > BATCH_BYTES_MAX:
            break
        content.append(encoded)
        after = directive[:3]
    return Given(content, cbor.encode(list(after)), done=len(content) == len(found) < _DIRECTIVES)


def _heads(store: LinkTransaction) -> Given:
    """Name the heads of everything that central may lack: what is in no backup."""
    named = [
        [out.segment.name, encode_heads(out.heads)]
        for out in store.out_segments(_SEGMENTS, _SEGMENTS)
    ]
    return Given([cbor.encode(named)], b"", done=True)


def take_directives(store: LinkTransaction, part: Part) -> Taken:
    """Learn again what was ordered, and then let the gateway's events come.

    It may be an old copy that lacks directives itself: all that is in force is written again.
    """
    for content in part.content:
        store.regain(_directive(content))
    if part.done:
        outbox.reissue(store)
        store.set_lacking(Lacking.EVENTS)
    return Taken.YES


def take_heads(store: LinkTransaction, part: Part) -> Taken:
    """Wait until all that the gateway had written is applied here; then nothing is lacking.

    Unless directives are to be asked for again meanwhile (``confirm``).
    """
    for content in part.content:
        for name, heads in _named(content).items():
            if any(store.in_cursor(name, lane).applied < heads[lane] for lane in Lane):
                return Taken.NOT_YET
    if store.lacking() is Lacking.EVENTS:
        store.set_lacking(Lacking.NOTHING)
    return Taken.YES


def from_the_beginning(_store: LinkTransaction) -> bytes:
    """Give the position at which both errands begin."""
    return b""


def confirm(
    store: LinkTransaction, cursors: Mapping[tuple[str, Lane], Cursor]
) -> Contradiction | None:
    """Store what a gateway confirms of our directives (``outbox.confirm``).

    It may hold segments that were opened after the backup, and more of those that ended by it:
    only the open segment cannot have gone on anywhere else.
    """
    contradiction = outbox.confirm(store, cursors)
    if contradiction is None or contradiction.kind is not Conflict.AHEAD:
        return contradiction
    found = store.out_segments(_ALL)
    opened = found[0].segment.name if found else None
    ends = {(out.segment.name, lane): head for out in found for lane, head in out.heads.items()}
    known, foreign = dict(cursors), dict[tuple[str, Lane], Cursor]()
    for place, mark in cursors.items():
        end = ends.get(place)
        if end is None or (place[0] != opened and mark.applied > end.sequence):
            foreign[place] = known.pop(place)
            if end is not None:
                known[place] = Cursor(*end, min(mark.archived, end.sequence))
    _ask_again(store, foreign)
    return outbox.confirm(store, known)


def _ask_again(store: LinkTransaction, foreign: Mapping[tuple[str, Lane], Cursor]) -> None:
    """Let the directives be asked for once more if the gateway took some that are in no book here.

    What an earlier incarnation had ordered may be applied after the gateway gave its directives
    back: its disk was full, or the network kept them.
    """
    before = store.foreign()
    if any(mark.applied > before.get(place, 0) for place, mark in foreign.items()):
        # Only what is named now is remembered: asking once too often does no harm.
        store.set_foreign(
            {place: max(mark.applied, before.get(place, 0)) for place, mark in foreign.items()}
        )
        store.set_lacking(Lacking.DIRECTIVES)


def _place(position: bytes) -> tuple[int, str, str]:
    try:
        number, kind, subject = cbor.decode(position, limit=_POSITION_BYTES_MAX)
        return int(number), str(kind), str(subject)
    except (TypeError, ValueError) as error:
        raise BadRequestError("The position cannot be read.") from error


def _directive(content: bytes) -> Directive:
    value: Any = cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX)
    match value:
        case [int(number), str(kind), str(subject), bytes(body), int(ordered_us)]:
            return Directive(number, kind, subject, body, ordered_us)
        case _:
            raise BadRequestError("A directive that was given back cannot be read.")


def _named(content: bytes) -> dict[str, dict[Lane, int]]:
    value: Any = cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX)
    try:
        return {
            str(name): {lane: int(heads[lane.name.lower()][0]) for lane in Lane}
            for name, heads in value
        }
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BadRequestError("The heads that were given back cannot be read.") from error
