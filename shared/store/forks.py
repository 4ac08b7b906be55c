"""Claims of other boxes of one name, and the events that they wrote (shared.sync.forks)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.kernel import cbor
from shared.store.schema import fork, fork_event
from shared.store.transaction import Transaction
from shared.sync.events import Event, Lane
from shared.sync.ports import Claim, ClaimState, ForkRow, Row
from shared.sync.segments import decode_heads, encode_heads

#: Applies what an event says of a certificate, and revokes what it issued if it is to.
TakeIn = Callable[[Transaction, Event, bool], None]

_HEADS_BYTES_MAX = 1024
#: Rows of ``fork``, the oldest first, by ``link``.
OF_PEER = (
    select(fork).where(fork.c.peer == bindparam("link")).order_by(fork.c.first_seen, fork.c.fork)
)
_KNOWN: Final = frozenset({"peer", "fork", "first_seen"})
_put = insert(fork)
_set = {column.name: _put.excluded[column.name] for column in fork.c if column.name not in _KNOWN}
_SEEN = _put.on_conflict_do_update(index_elements=[fork.c.peer, fork.c.fork], set_=_set)
_PUT = _put.on_conflict_do_update(
    index_elements=[fork.c.peer, fork.c.fork],
    set_={name: value for name, value in _set.items() if name != "last_seen"},
)
_WAITS = (fork.c.state == ClaimState.OPEN.value) | (fork.c.state == ClaimState.HEIR.value)
_CLOSE = (
    update(fork)
    .where(fork.c.peer == bindparam("link"), _WAITS)
    .values(state=ClaimState.OUTCAST.value)
)
_KEEP = insert(fork_event).on_conflict_do_nothing()
_ROWS = (
    select(fork_event)
    .where(
        fork_event.c.peer == bindparam("link"),
        fork_event.c.fork == bindparam("this"),
        fork_event.c.id > bindparam("after"),
    )
    .order_by(fork_event.c.id)
    .limit(bindparam("most"))
)


class ForkTables:
    """``shared.sync.ports.ForkTransaction`` (see there) of one peer, inside one transaction."""

    def __init__(self, tx: Transaction, peer: str, take_in: TakeIn) -> None:
        self._tx = tx
        self._peer = peer
        self._take_in = take_in

    def claims(self) -> Sequence[Claim]:
        """Give all claims, the oldest first."""
        return [claim_of(row) for row in self._tx.all(OF_PEER, {"link": self._peer})]

    def put(self, claim: Claim, *, seen: bool = False) -> None:
        """Store a claim, or what changed of it."""
        row = {
            "peer": self._peer,
            "fork": claim.fork,
            "segment": claim.segment,
            "heads": cbor.encode(encode_heads(claim.heads)),
            "state": claim.state.value,
            "boot_id": claim.boot_id,
            "version": claim.version,
            "backlog": claim.backlog,
            "of_trunk": int(claim.of_trunk),
            "revoke": int(claim.revoke),
            "reached": claim.reached,
            "complete": int(claim.complete),
            "taken": claim.taken,
            "first_seen": self._tx.now.utc_us,
            "last_seen": self._tx.now.utc_us,
        }
        self._tx.execute(_SEEN if seen else _PUT, row)

    def keep(self, fork: str, segment: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Keep events of a fork; one that is kept already changes nothing."""
        for row in rows:
            values = {
                "peer": self._peer,
                "fork": fork,
                "segment": segment,
                "lane": int(lane),
                "sequence": row.sequence,
                "type": row.type,
                "hash": row.hash,
                "event": row.event,
                "received_at": self._tx.now.utc_us,
            }
            self._tx.execute(_KEEP, values)

    def rows(self, fork: str, after: int, most: int) -> Sequence[ForkRow]:
        """Read events of a fork after a number, in order."""
        place = {"link": self._peer, "this": fork, "after": after, "most": most}
        return [
            ForkRow(
                row.id,
                row.segment,
                Lane(row.lane),
                Row(row.sequence, row.event, row.hash, row.type),
            )
            for row in self._tx.all(_ROWS, place)
        ]

    def take_in(self, event: Event, *, revoke: bool) -> None:
        """Apply what an event says of a certificate."""
        self._take_in(self._tx, event, revoke)


def close(tx: Transaction, peer: str) -> None:
    """Let nobody wait for a decision any more: the peer joined anew, or ended.

    What its boxes issued is taken in all the same.
    """
    tx.execute(_CLOSE, {"link": peer})


def claim_of(row: Any) -> Claim:
    """Make a claim of a row of the table."""
    return Claim(
        fork=row.fork,
        segment=row.segment,
        heads=decode_heads(cbor.decode(row.heads, limit=_HEADS_BYTES_MAX)),
        state=ClaimState(row.state),
        boot_id=row.boot_id,
        version=row.version,
        backlog=row.backlog,
        of_trunk=bool(row.of_trunk),
        revoke=bool(row.revoke),
        reached=row.reached,
        complete=bool(row.complete),
        taken=row.taken,
    )
