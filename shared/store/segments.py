"""The segment table: stretches of history, ours ('out') and the peer's ('in')."""

from typing import Any, Literal

from sqlalchemy import bindparam, func, insert, select, update

from shared.kernel import cbor
from shared.store.schema import segment
from shared.store.transaction import Transaction
from shared.sync.ports import Segment
from shared.sync.segments import decode_heads, encode_heads

Way = Literal["out", "in"]

_HEADS_BYTES_MAX = 1024

_LINK = (segment.c.peer == bindparam("link")) & (segment.c.direction == bindparam("way"))
_THIS = _LINK & (segment.c.segment == bindparam("name"))
_INSERT = insert(segment)
_NEXT = select(func.coalesce(func.max(segment.c.number), 0) + 1).where(_LINK)
_STARTS = select(func.max(segment.c.start_counter)).where(_LINK)
_FIND = select(segment).where(_THIS)
_CHILD = select(segment).where(_LINK, segment.c.parent == bindparam("parent")).limit(1)
_ROOT = select(segment.c.segment).where(
    _LINK, segment.c.parent.is_(None), segment.c.state != "ended"
)
_PARENT = segment.alias()
_STRETCHES = (
    select(segment)
    .outerjoin(
        _PARENT,
        (_PARENT.c.peer == segment.c.peer)
        & (_PARENT.c.direction == segment.c.direction)
        & (_PARENT.c.segment == segment.c.parent),
    )
    .where(_LINK, segment.c.state != "ended", _PARENT.c.segment.is_(None))
    .order_by(segment.c.start_counter, segment.c.number)
)
_IN_STATE = (
    select(segment)
    .where(_LINK, segment.c.state == bindparam("state"))
    .order_by(segment.c.number)
    .limit(bindparam("most"))
)
_NEWEST = (
    select(segment)
    .where(_LINK, segment.c.state != "ended")
    .order_by(segment.c.number.desc())
    .limit(bindparam("most"))
)
#: What has ended stays so.
_SET_STATE = update(segment).where(_THIS, segment.c.state != "ended").values(state=bindparam("to"))
_END_ALL = update(segment).where(_LINK).values(state="ended")


def add(tx: Transaction, peer: str, way: Way, added: Segment, state: str = "open") -> None:
    """Insert a segment after those that are there."""
    number: Any = tx.one(_NEXT, {"link": peer, "way": way})
    row = {
        "peer": peer,
        "direction": way,
        "segment": added.name,
        "number": number[0],
        "parent": added.parent,
        "parent_heads": cbor.encode(encode_heads(added.parent_heads)),
        "start_counter": added.start_counter,
        "boot_id": added.boot_id,
        "version": added.version,
        "state": state,
        "opened_at": tx.now.utc_us,
    }
    tx.execute(_INSERT, row)


def starts(tx: Transaction, peer: str) -> int:
    """Tell the highest start counter that any segment of ours bore, ended ones included."""
    row: Any = tx.one(_STARTS, {"link": peer, "way": "out"})
    return row[0] or 0


def find(tx: Transaction, peer: str, way: Way, name: str) -> Segment | None:
    """Read a segment."""
    row = tx.one(_FIND, {"link": peer, "way": way, "name": name})
    return row and segment_of(row)


def child_of(tx: Transaction, peer: str, way: Way, name: str) -> Segment | None:
    """Read the segment that names this one as its parent."""
    row = tx.one(_CHILD, {"link": peer, "way": way, "parent": name})
    return row and segment_of(row)


def root(tx: Transaction, peer: str, way: Way) -> str | None:
    """Name the segment without a parent that no join ended."""
    row = tx.one(_ROOT, {"link": peer, "way": way})
    return row and row.segment


def stretches(tx: Transaction, peer: str, way: Way) -> list[Segment]:
    """Read the segments that no join ended and whose parent is not there."""
    return [segment_of(row) for row in tx.all(_STRETCHES, {"link": peer, "way": way})]


def newest(tx: Transaction, peer: str, most: int) -> list[Segment]:
    """Read our newest segments, the newest first; not those that ended."""
    rows = tx.all(_NEWEST, {"link": peer, "way": "out", "most": most})
    return [segment_of(row) for row in rows]


def in_state(tx: Transaction, peer: str, state: str, most: int) -> list[Segment]:
    """Read our ``most`` oldest segments in a state (see ``schema.segment``)."""
    rows = tx.all(_IN_STATE, {"link": peer, "way": "out", "state": state, "most": most})
    return [segment_of(row) for row in rows]


def set_state(tx: Transaction, peer: str, name: str, state: str) -> None:
    """Write the state of one of ours."""
    tx.execute(_SET_STATE, {"link": peer, "way": "out", "name": name, "to": state})


def end_history(tx: Transaction, peer: str) -> None:
    """Let both sides begin anew: the peer joined again and knows nothing of what was before.

    The outbox remembers its open segments: have it ``forget`` in the same transaction.
    """
    for way in ("in", "out"):
        tx.execute(_END_ALL, {"link": peer, "way": way})


def segment_of(row: Any) -> Segment:
    """Make a segment of a row of the table."""
    heads = decode_heads(cbor.decode(row.parent_heads, limit=_HEADS_BYTES_MAX))
    return Segment(row.segment, row.parent, heads, row.start_counter, row.boot_id, row.version)
