"""The same bad days on the product's own tables: each transaction runs on both, with equal results.

The simulator's store says what the port means; SQLite has to agree with it to the last byte.
"""

import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from shared.store import cursors
from shared.store.link import LinkTables, Own
from shared.store.outbox import Outbox
from shared.store.schema import metadata
from shared.store.transaction import Transaction
from shared.sync.events import CATALOGUE, Direction, Event, Lane
from shared.sync.join import CENTRAL_NAME
from shared.sync.ports import Directive, Segment
from tests.support.sim_load import live_through
from tests.support.sim_store import GATEWAY, MemoryTransaction, State, order, unknown
from tests.support.sim_world import Chaos, Node, World, require


class Tables(LinkTables):
    """The port over SQLite, with what the load uses besides."""

    def __init__(self, tx: Transaction, outbox: Outbox, peer: str, world: World) -> None:
        self._world = world
        self._orders = dict(world.central.state.orders)
        own = Own(
            reissue=lambda _tx: self._order_again(),
            regain=lambda _tx, directive: self._learn(directive),
        )
        super().__init__(tx, outbox, peer, self._apply_all, own)

    def _apply_all(self, _tx: Transaction, events: Sequence[Event]) -> None:
        for event in events:
            self._world.apply({}, event)

    def _order_again(self) -> None:
        for number, serial in sorted((number, name) for name, number in self._orders.items()):
            self.emit("directive.revoke", order(serial, number))

    def _learn(self, directive: Directive) -> None:
        known = self._orders.get(directive.subject, 0)
        self._orders[directive.subject] = max(known, directive.number)

    def directives(self, after: tuple[int, str, str], most: int) -> Sequence[Directive]:
        """The memory twin keeps what was ordered; the table is the product's business."""
        return self._world.gateway.transaction().directives(after, most)

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
        return 1 + max(self._world.central.state.orders.values(), default=0)

    def archive(self, segment: str, lane: Lane, through: int) -> None:
        kept = self.in_cursor(segment, lane)._replace(archived=through)
        cursors.put(self._tx, self._peer, "in", (segment, lane), kept)

    def start(self) -> Segment:
        return self._outbox.start(self._tx, self._peer)


class SqlNode(Node):
    """A node that has everything twice: in memory and in SQLite."""

    def __init__(self, world: World, name: str, direction: Direction) -> None:
        super().__init__(world, name, direction)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for table in metadata.sorted_tables:
            self.connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        self.forget()

    def forget(self) -> None:
        """A process keeps the outbox's heads in memory; a new one reads them again."""
        if self.direction is Direction.UP:
            self.peer, self.sink = CENTRAL_NAME, Outbox.of_gateway(GATEWAY, "sim")
        else:
            self.peer, self.sink = GATEWAY, Outbox.of_central("sim", _none)

    def crash(self) -> None:
        self.forget()
        super().crash()

    def snapshot(self) -> tuple[State, bytes]:
        return self.state.copy(), self.connection.serialize()

    def recover(self, backup: tuple[State, bytes]) -> None:
        super().recover(backup)
        self.connection.deserialize(backup[1])
        self.forget()

    def commit(self, unit: Callable[[Any], Any]) -> Any:
        seed = self.world.random.getrandbits(62)
        tx = MemoryTransaction(
            self.state.copy(),
            self.direction,
            self.now,
            random.Random(seed).randbytes,
            self.world.apply,
            self.world.reapply,
        )
        result = unit(tx)
        if seed % 10 == 0:
            self._on_sqlite(unit, seed, "ROLLBACK")
        stored = self._on_sqlite(unit, seed, "COMMIT")
        require(stored == result, f"{result} is not {stored}")
        before, self.state = self.state, tx.state
        self._compare()
        self.testify()
        self.world.committed(self, before)
        return result

    def _on_sqlite(self, unit: Callable[[Any], Any], seed: int, end: str) -> Any:
        tx = Transaction(self.connection, self.sink, self.now, random.Random(seed).randbytes)
        self.connection.execute("BEGIN")
        tables = Tables(tx, self.sink, self.peer, self.world)
        result = tables.start() if unit is MemoryTransaction.start else unit(tables)
        self.connection.execute(end)
        if end == "ROLLBACK":
            tx.revert()
        return result

    def _compare(self) -> None:
        """All that the port can tell is the same."""
        tx = Transaction(self.connection, self.sink, self.now, self.world.bytes)
        tables, memory = Tables(tx, self.sink, self.peer, self.world), self.transaction()
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
