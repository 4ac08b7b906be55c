"""The same bad days on the product's own tables: each transaction runs on both, with equal results.

The simulator's store says what the port means; SQLite has to agree with it to the last byte.
"""

import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import bindparam, delete
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from shared.issuance.ports import Intent
from shared.kernel.errors import TmaError
from shared.store import cursors, facts, ledger
from shared.store.link import LinkTables, Own
from shared.store.outbox import Outbox
from shared.store.schema import intent, metadata
from shared.store.transaction import Transaction
from shared.sync.events import CATALOGUE, Direction, Event, Lane
from shared.sync.join import CENTRAL_NAME
from shared.sync.ports import Directive, Segment
from tests.support.sim_load import live_through
from tests.support.sim_store import DONE, MemoryTransaction, State, order, unknown
from tests.support.sim_world import Chaos, Link, Machine, Node, World, require
from tests.support.store_intents import CA_ID, prepare

_DROP_INTENT = delete(intent).where(intent.c.serial == bindparam("name"))


class Tables(LinkTables):
    """The port over SQLite, with what the load uses besides."""

    def __init__(self, tx: Transaction, outbox: Outbox, peer: str, link: Link) -> None:
        self._link = link
        self._orders = dict(link.central.state.orders)
        own = Own(
            reapply=_drop_intent,
            reissue=lambda _tx: self._order_again(),
            regain=lambda _tx, directive: self._learn(directive),
        )
        super().__init__(tx, outbox, peer, self._apply_all, own)

    def _apply_all(self, _tx: Transaction, events: Sequence[Event]) -> None:
        for event in events:
            self._link.apply({}, event)

    def _order_again(self) -> None:
        for number, serial in sorted((number, name) for name, number in self._orders.items()):
            self.emit("directive.revoke", order(serial, number))

    def _learn(self, directive: Directive) -> None:
        known = self._orders.get(directive.subject, 0)
        self._orders[directive.subject] = max(known, directive.number)

    def directives(self, after: tuple[int, str, str], most: int) -> Sequence[Directive]:
        """The memory twin keeps what was ordered; the table is the product's business."""
        return self._link.gateway.reading().directives(after, most)

    def intend(self, wanted: Intent) -> None:
        ledger._intend(self._tx, wanted, ledger._intent_row(wanted))

    def complete(self, signed: Intent, der: bytes) -> None:
        ledger._completing(signed, der)(self._tx)

    def void(self, left: Intent) -> None:
        ledger._void(self._tx, left, "crash")

    def require_open(self) -> None:
        ledger._require_open(self._tx, CA_ID)

    def stop_line(self, *, stopped: bool) -> None:
        facts.put(self._tx, facts.LINE, "stopped" if stopped else None)

    def emit(self, type_name: str, body: dict[str, Any], lane: Lane | None = None) -> None:
        if type_name in CATALOGUE:
            self._tx.emit(type_name, body, actor="sim", peer=self._peer)
            return
        event = unknown(type_name, body, actor="sim", now=self._tx.now, random=self._tx.random)
        chain = self._outbox._chain(self._tx, self._peer)
        assert chain is not None
        assert lane is not None
        self._outbox._write(self._tx, self._peer, chain, lane, event)

    def own(self, status: str, value: str) -> None:
        """The memory twin keeps these."""

    def ordered(self, serial: str) -> int:
        del serial  # the memory twin ran first, on a copy: central's state is as before
        return 1 + max(self._link.central.state.orders.values(), default=0)

    def archive(self, segment: str, lane: Lane, through: int) -> None:
        kept = self.in_cursor(segment, lane)._replace(archived=through)
        cursors.put(self._tx, self._peer, "in", (segment, lane), kept)

    def start(self) -> Segment:
        return self._outbox.start(self._tx, self._peer)


class SqlNode(Node):
    """A node that has everything twice: in memory and in SQLite."""

    def __init__(self, link: Link, machine: Machine, direction: Direction) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for table in metadata.sorted_tables:
            self.connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        super().__init__(link, machine, direction)
        self.gone()
        now, sink = machine.now, self.sink
        prepare(Transaction(self.connection, sink, now, link.world.bytes))
        self.durable = self.freeze()

    def gone(self) -> None:
        """A process keeps the outbox's heads in memory; a new one reads them again."""
        super().gone()
        if self.direction is Direction.UP:
            self.peer, self.sink = CENTRAL_NAME, Outbox.of_gateway(self.link.name, "sim")
        else:
            self.peer, self.sink = self.link.name, Outbox.of_central("sim", _none)

    def freeze(self) -> tuple[State, bytes]:
        return self.state, self.connection.serialize()

    def thaw(self, frozen: tuple[State, bytes]) -> None:
        super().thaw(frozen)
        self.connection.deserialize(frozen[1])
        self.gone()

    def state_of(self, frozen: tuple[State, bytes]) -> State:
        return frozen[0]

    def commit(self, unit: Callable[[Any], Any], *, reserve: bool = False) -> Any:
        seed = self.world.random.getrandbits(62)
        tx = self.transaction(random.Random(seed).randbytes)
        result = _attempt(unit, tx)
        if seed % 10 == 0:
            self._on_sqlite(unit, seed, "ROLLBACK")
        if not isinstance(result, TmaError):
            self.take_room(tx.state, reserve=reserve)
        stored = self._on_sqlite(unit, seed, "COMMIT")
        if isinstance(result, TmaError):
            require(type(stored) is type(result), f"{result!r} is not {stored!r}")
            raise result
        require(stored == result, f"{result} is not {stored}")
        self.write_down(tx.state)
        self._compare()
        return result

    def _on_sqlite(self, unit: Callable[[Any], Any], seed: int, end: str) -> Any:
        tx = Transaction(
            self.connection, self.sink, self.machine.now, random.Random(seed).randbytes
        )
        self.connection.execute("BEGIN")
        tables = Tables(tx, self.sink, self.peer, self.link)
        result = _attempt(MEMORY_UNITS.get(unit, unit), tables)
        undone = end == "ROLLBACK" or isinstance(result, TmaError)
        self.connection.execute("ROLLBACK" if undone else "COMMIT")
        if undone:
            tx.revert()
        return result

    def _compare(self) -> None:
        """All that the port can tell is the same."""
        tx = Transaction(self.connection, self.sink, self.machine.now, self.world.bytes)
        tables, memory = Tables(tx, self.sink, self.peer, self.link), self.reading()
        for ask in (
            lambda store: store.out_segments(64, 64),
            lambda store: store.backlog(),
            lambda store: store.in_cursors(64),
            lambda store: store.root(),
            lambda store: store.doubt(),
            lambda store: store.lacking(),
            lambda store: store.out_newest(16),
            lambda store: store.peer_incarnation(),
        ):
            require(ask(tables) == ask(memory), f"{ask(tables)} is not {ask(memory)}")


MEMORY_UNITS = {MemoryTransaction.start: Tables.start}


def _drop_intent(tx: Transaction, event: Event) -> None:
    """Stands for what the product does once a certificate of its own came back."""
    if event.type in DONE:
        tx.execute(_DROP_INTENT, {"name": event.body["serial"]})


def _attempt(unit: Callable[[Any], Any], tx: Any) -> Any:
    try:
        return unit(tx)
    except TmaError as error:
        return error


class SqlWorld(World):
    node_class = SqlNode


def _none(tx: Transaction, event: Event) -> None:
    raise AssertionError("central has no books here")


@pytest.mark.parametrize("seed", range(8))
def test_sqlite_lives_through_the_same_days_with_equal_results(seed: int) -> None:
    world = SqlWorld(seed, Chaos(crash=0.01))
    live_through(world, 60)
    for node in world.nodes:
        assert isinstance(node, SqlNode)
        for table in ("outbox", "inbox", "quarantined"):
            name = {"inbox": "inbox_event", "quarantined": "quarantine"}.get(table, table)
            rows = node.connection.execute(f"SELECT segment, lane, sequence, event FROM {name}")
            places = {(row[0], Lane(row[1]), row[2]): row[3] for row in rows}
            held = getattr(node.state, table)
            assert places == {place: row.event for place, row in held.items()}
        node.connection.close()
