"""The outbox: our events to each peer, chained and numbered inside the writing transaction.

Heads of the open segments are kept in memory; what is rolled back is taken back here too, or the
lane would have a gap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from sqlalchemy import bindparam, insert, select

from shared.kernel.errors import IntegrityError
from shared.kernel.ids import random_name
from shared.store import cursors, segments
from shared.store.schema import outbox, segment
from shared.store.transaction import Transaction
from shared.sync.events import OPENED, Direction, Event, Lane, create, encode, lane_of
from shared.sync.join import CENTRAL_NAME
from shared.sync.outbox import GENESIS_HASH, chain_hash
from shared.sync.ports import Head, Row, Segment
from shared.sync.segments import opening_body, reusable

#: Central's own books take an event that has no addressee.
Books = Callable[[Transaction, Event], None]

_ACTOR = "system"
_INSERT = insert(outbox)
_HEAD = (
    select(outbox.c.sequence, outbox.c.hash)
    .where(
        outbox.c.peer == bindparam("link"),
        outbox.c.segment == bindparam("name"),
        outbox.c.lane == bindparam("lane_number"),
    )
    .order_by(outbox.c.sequence.desc())
    .limit(1)
)
_OPEN = select(segment).where(
    segment.c.peer == bindparam("link"),
    segment.c.direction == "out",
    segment.c.state == "open",
)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The open segment to one peer, and its heads by lane number."""

    segment: Segment
    heads: tuple[Head, Head]


class Outbox:
    """The event sink of both products; all methods run inside the writer's transactions."""

    def __init__(
        self,
        direction: Direction,
        *,
        version: str,
        gateway: str | None = None,
        books: Books | None = None,
    ) -> None:
        """Take the direction and this software's version; use ``of_gateway`` or ``of_central``."""
        self._direction = direction
        self._version = version
        self._gateway = gateway
        self._books = books
        self._chains: dict[str, _Chain] = {}
        #: Called inside the writer's transaction, in its thread or on the loop, with the peer for
        #: whom there is something new; whoever looks then queues behind that transaction.
        self.wake: Callable[[str], object] = lambda _peer: None

    @classmethod
    def of_gateway(cls, name: str, version: str) -> Self:
        """Make the outbox of the gateway ``name``: all events go to central."""
        return cls(Direction.UP, version=version, gateway=name)

    @classmethod
    def of_central(cls, version: str, books: Books) -> Self:
        """Make central's outbox: events go to the named gateway, or into central's own books."""
        return cls(Direction.DOWN, version=version, books=books)

    def append(self, tx: Transaction, event: Event, peer: str | None) -> None:
        """Give an event its number and hash and store it; opens the first segment to a peer."""
        addressee = peer or (CENTRAL_NAME if self._gateway else None)
        if addressee is not None:
            chain = self._chain(tx, addressee) or self._open(tx, addressee, None, starts=0)
            self._write(tx, addressee, chain, lane_of(event.type), event)
            self.wake(addressee)
        elif self._books is not None:
            self._books(tx, event)
        else:
            raise IntegrityError("An event has no addressee.")

    def forget(self) -> None:
        """Read the heads from the database again, peer by peer, when they are needed."""
        self._chains.clear()

    def heads(self, tx: Transaction, peer: str) -> tuple[Segment, dict[Lane, Head]] | None:
        """Give the open segment and its heads; None before the first."""
        chain = self._chain(tx, peer)
        return chain and (chain.segment, dict(zip(Lane, chain.heads, strict=True)))

    def start(self, tx: Transaction, peer: str) -> Segment:
        """Count a start of the agent and open its segment; an unused one is used on."""
        chain = self._chain(tx, peer)
        if chain is not None and reusable(dict(zip(Lane, chain.heads, strict=True))):
            return chain.segment
        return self._open(tx, peer, chain, starts=1).segment

    def open_segment(self, tx: Transaction, peer: str) -> Segment:
        """Seal the open segment and open its child: row and opening event of both lanes."""
        return self._open(tx, peer, self._chain(tx, peer), starts=0).segment

    def go_on(
        self, tx: Transaction, peer: str, parent: str | None, heads: Mapping[Lane, Head]
    ) -> Segment:
        """Open a segment behind any one that the peer holds; it counts as a start."""
        former = self._chain(tx, peer)
        if former is not None:
            self._seal(tx, peer, former.segment.name)
        return self._begin(tx, peer, parent, heads, 1 + segments.starts(tx, peer)).segment

    def write_again(self, tx: Transaction, peer: str, lane: Lane, rows: Sequence[Row]) -> None:
        """Chain events that were in an abandoned segment behind the open one's head, as they are.

        Call ``reload`` in the same transaction before rows of the open segment are touched.
        """
        for row in rows:
            chain = self._chain(tx, peer)
            assert chain is not None  # whoever goes on has opened one
            self._store(tx, peer, chain, lane, (row.event, row.type))

    def reload(self, tx: Transaction) -> None:
        """Read heads anew: rows were changed in another way than by appending."""
        self._chains.clear()
        tx.undo(self._chains.clear)

    def _chain(self, tx: Transaction, peer: str) -> _Chain | None:
        chain = self._chains.get(peer)
        if chain is None and (row := tx.one(_OPEN, {"link": peer})) is not None:
            opened = segments.segment_of(row)
            urgent, normal = (head(tx, peer, opened.name, lane) for lane in Lane)
            chain = self._chains[peer] = _Chain(opened, (urgent, normal))
        return chain

    def _open(self, tx: Transaction, peer: str, parent: _Chain | None, *, starts: int) -> _Chain:
        if parent is None:
            return self._begin(tx, peer, None, {}, starts)
        self._seal(tx, peer, parent.segment.name)
        heads = dict(zip(Lane, parent.heads, strict=True))
        starts += parent.segment.start_counter
        return self._begin(tx, peer, parent.segment.name, heads, starts)

    def _seal(self, tx: Transaction, peer: str, name: str) -> None:
        segments.set_state(tx, peer, name, "sealed")
        settle(tx, peer, name)

    def _begin(
        self,
        tx: Transaction,
        peer: str,
        parent: str | None,
        heads: Mapping[Lane, Head],
        starts: int,
    ) -> _Chain:
        opened = Segment(
            name=random_name(tx.random),
            parent=parent,
            parent_heads=heads,
            start_counter=starts,
            boot_id=tx.now.boot_id,
            version=self._version,
        )
        segments.add(tx, peer, "out", opened)
        body = opening_body(opened)
        event = create(OPENED, body, actor=_ACTOR, now=tx.now, random=tx.random)
        chain = _Chain(opened, (Head(0, GENESIS_HASH), Head(0, GENESIS_HASH)))
        for lane in Lane:
            chain = self._write(tx, peer, chain, lane, event)
        return chain

    def _write(self, tx: Transaction, peer: str, chain: _Chain, lane: Lane, event: Event) -> _Chain:
        return self._store(tx, peer, chain, lane, (encode(event), event.type))

    def _store(
        self, tx: Transaction, peer: str, chain: _Chain, lane: Lane, encoded: tuple[bytes, str]
    ) -> _Chain:
        data, type_name = encoded
        name, previous = chain.segment.name, chain.heads[lane]
        sequence = previous.sequence + 1
        digest = chain_hash(
            previous.hash, self._gateway or peer, self._direction, name, lane, sequence, data
        )
        row = {
            "peer": peer,
            "segment": name,
            "lane": int(lane),
            "sequence": sequence,
            "type": type_name,
            "created_at": tx.now.utc_us,
            "hash": digest,
            "event": data,
        }
        tx.execute(_INSERT, row)
        urgent, normal = chain.heads
        new = Head(sequence, digest)
        heads = (new, normal) if lane is Lane.URGENT else (urgent, new)
        return self._remember(tx, peer, replace(chain, heads=heads))

    def _remember(self, tx: Transaction, peer: str, chain: _Chain) -> _Chain:
        former = self._chains.get(peer)
        self._chains[peer] = chain

        def take_back() -> None:
            if former is None:
                self._chains.pop(peer, None)
            else:
                self._chains[peer] = former

        tx.undo(take_back)
        return chain


def head(tx: Transaction, peer: str, name: str, lane: Lane) -> Head:
    """Give the last event of a lane of any of our segments."""
    row = tx.one(_HEAD, {"link": peer, "name": name, "lane_number": int(lane)})
    return Head(0, GENESIS_HASH) if row is None else Head(*row)


def settle(tx: Transaction, peer: str, name: str) -> None:
    """Decide how far a segment is that takes no more events.

    Drained: all of it is applied by the peer; archived: all of it is in a backup there.
    """
    state = "archived"
    for lane in Lane:
        confirmed = cursors.get(tx, peer, "out", name, lane)
        end = head(tx, peer, name, lane).sequence
        if confirmed.applied < end:
            state = "sealed"
            break
        if confirmed.archived < end:
            state = "drained"
    segments.set_state(tx, peer, name, state)
