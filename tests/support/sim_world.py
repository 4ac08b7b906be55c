"""A seeded simulator of one link: virtual time, a lossy broker, crashes at every effect.

Everything random comes from one seed: the same seed gives the same run, to the last byte hashed
into ``World.trace``. Keys are fixed, because a signature's bytes must not differ between runs in
length (ECDSA draws its own randomness; only sizes enter the trace).
"""

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import UnavailableError, UntrustedError
from shared.sync.effects import Alarm, Effects, Healed, Run, Send, Stop
from shared.sync.envelope import Kind, Signer
from shared.sync.events import Direction, Event, Lane
from shared.sync.lineage import Finding, Verdict
from shared.sync.ports import Row
from shared.sync.replicator import CentralReplicator, GatewayReplicator, Keys
from shared.sync.segments import Witness, is_restored_copy, reusable
from tests.support.sim_store import GATEWAY, MemoryTransaction, State

SECOND = 10**9
_ALL = 1 << 31
_START_US = 1_800_000_000_000_000
_GATEWAY_KEY = ec.derive_private_key(7, ec.SECP256R1())
_CENTRAL_KEY = ec.derive_private_key(8, ec.SECP256R1())


class ViolationError(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ViolationError(what)


def _find(kid: bytes, key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], Any]:
    def find(asked: bytes) -> ec.EllipticCurvePublicKey:
        if asked != kid:
            raise UntrustedError("The key is not known.")
        return key.public_key()

    return find


GATEWAY_KEYS = Keys(Signer(b"gateway", _GATEWAY_KEY), _find(b"central", _CENTRAL_KEY))
CENTRAL_KEYS = Keys(Signer(b"central", _CENTRAL_KEY), _find(b"gateway", _GATEWAY_KEY))


@dataclass
class Chaos:
    """How often what goes wrong; probabilities per message, effect or transaction."""

    drop: float = 0.05
    duplicate: float = 0.05
    delay_s: float = 0.5
    late: float = 0.02  # of a message that comes much later than those behind it
    crash: float = 0.004
    busy: float = 0.03


CALM = Chaos(drop=0, duplicate=0, delay_s=0.05, late=0, crash=0, busy=0)


@dataclass
class Node:
    """One process: durable state, a replication end, and what a crash takes away."""

    world: "World"
    name: str
    direction: Direction  # of its own events
    state: State = field(default_factory=State)
    life: int = 0
    alive: bool = False
    connected: bool = False
    boots: int = 0
    stops: list[Stop] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    healed: int = 0
    #: Outside the database: what a restored copy is told by.
    witness: Witness | None = None
    end: GatewayReplicator | CentralReplicator | None = None

    @property
    def now(self) -> Instant:
        time_ns = self.world.time_ns
        return Instant(
            _START_US + time_ns // 1_000, time_ns, f"{self.name}-{self.boots}", ClockQuality.NTP
        )

    def start(self) -> None:
        """Power on: a gateway opens its segment before anything else."""
        if self.alive:
            return
        self.alive = True
        if self.world.random.random() < 0.3:
            self.boots += 1  # the machine was restarted, not only the process
        self.stops.clear()
        if self.direction is Direction.UP:
            self._begin()
            self.end = GatewayReplicator(
                GATEWAY, GATEWAY_KEYS, version="sim", random=self.world.bytes, now=self.now
            )
        else:
            incarnation = self.state.facts.setdefault("incarnation", self.world.bytes(16).hex())
            self.end = CentralReplicator(
                GATEWAY, CENTRAL_KEYS, incarnation=incarnation, blocked=self.blocked
            )
        self.world.after(self.world.random.random(), self.link_up)

    def _begin(self) -> None:
        """Go on in a new segment; an old copy of the database stops instead."""
        tx = self.transaction()
        opened = tx.out_segments(0)
        newest, heads = (opened[0].segment, opened[0].heads) if opened else (None, {})
        if is_restored_copy(self.witness, newest, heads):
            self.commit(lambda tx: tx.set_doubt(Verdict.RESTORED))
            self.stops.append(Stop(Verdict.RESTORED, "The witness has seen more."))
        else:
            self.commit(MemoryTransaction.start)

    def go_on(self) -> None:
        """What an operator may do on a restored box without a link."""
        if self.alive and self.stops and self.state.facts.get("doubt") == Verdict.RESTORED:
            self.commit(MemoryTransaction.start)
            self.stops.clear()

    @property
    def blocked(self) -> Finding | None:
        """What central's registry keeps of this end."""
        verdict = self.state.facts.get("blocked")
        return Finding(Verdict(verdict), "") if verdict else None

    def crash(self) -> None:
        self.alive = self.connected = False
        self.life += 1
        self.end = None
        self.world.note("crash", self.name)
        self.world.after(self.world.random.uniform(0.1, 20), self.start)

    def link_up(self) -> None:
        if self.alive and not self.connected and self.world.broker_up(self):
            self.connected = True
            assert self.end is not None
            self.carry_out(self.end.connected(20, self.now))

    def link_down(self) -> None:
        if self.connected and self.end is not None:
            self.connected = False
            self.end.disconnected(self.now)

    def tick(self) -> None:
        if self.alive and self.end is not None:
            self.carry_out(self.end.tick(self.now))

    def receive(self, kind: Kind, payload: bytes) -> None:
        if self.alive and self.connected and self.end is not None:
            self.carry_out(self.end.received(kind, payload, self.now))

    def transaction(self) -> MemoryTransaction:
        return MemoryTransaction(
            self.state.copy(),
            self.direction,
            self.now,
            self.world.bytes,
            self.world.apply,
            self.world.reapply,
        )

    def commit(self, unit: Callable[[MemoryTransaction], Any]) -> Any:
        tx = self.transaction()
        result = unit(tx)
        before, self.state = self.state, tx.state
        self.testify()
        self.world.committed(self, before)
        return result

    def testify(self) -> None:
        """Let the witness follow: each segment, and its first event."""
        if self.direction is Direction.DOWN or not (found := self.transaction().out_segments(0)):
            return
        opened, known = found[0], self.witness
        new = known is None or known.segment != opened.segment.name
        if (new or reusable(known.heads)) and not self.state.facts.get("doubt"):
            self.witness = Witness(
                opened.segment.start_counter, opened.segment.name, dict(opened.heads)
            )

    def snapshot(self) -> tuple[State, Any]:
        """Make a backup."""
        return self.state.copy(), None

    def recover(self, backup: tuple[State, Any]) -> None:
        """Put a backup in the place of what is there; the process must be down."""
        self.state = backup[0].copy()

    def write(self, unit: Callable[[MemoryTransaction], Any]) -> None:
        """Let the application write events, and tell the replicator."""
        if self.alive and self.end is not None and not self.stops:
            self.commit(unit)
            self.carry_out(self.end.wake(self.now))

    def carry_out(self, effects: Effects) -> None:
        life = self.life
        for effect in effects:
            self.world.maybe_crash(self)
            if life != self.life:
                return
            if isinstance(effect, Send):
                self.world.send(self, effect)
            elif isinstance(effect, Run):
                self.world.after(self.world.random.random() / 50, self._execute, life, effect)
            elif isinstance(effect, Stop):
                self.stops.append(effect)
                if self.direction is Direction.DOWN:
                    self.state.facts["blocked"] = effect.verdict.value
                self.world.stopped(self, effect)
            elif isinstance(effect, Healed):
                self.stops.clear()
                self.healed += 1
                self.world.recovering &= self.direction is Direction.DOWN
                self.state.facts.pop("blocked", None)
            elif isinstance(effect, Alarm):
                self.alarms.append(effect.reason)

    def _execute(self, life: int, effect: Run) -> None:
        if life != self.life:
            return
        if self.world.random.random() < self.world.chaos.busy:
            self.world.after(0.5, self._execute, life, effect)
            return
        self.world.maybe_crash(self)  # before the commit: all of it is gone
        if life != self.life:
            return
        try:
            result = self.commit(effect.unit)
        except UnavailableError:
            self.world.after(0.5, self._execute, life, effect)
            return
        self.world.maybe_crash(self)  # after the commit: its result is told to nobody
        self.world.after(self.world.random.random() / 50, self._tell, life, effect, result)

    def _tell(self, life: int, effect: Run, result: Any) -> None:
        if life == self.life:
            self.carry_out(effect.then(result, self.now))


class World:
    """The scheduler, the broker, and the invariants."""

    node_class: type[Node] = Node

    def __init__(self, seed: int, chaos: Chaos | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.chaos = chaos or Chaos()
        self.time_ns = 0
        self.partitioned: set[str] = set()
        self.trace = hashlib.sha256()
        #: Each event ever committed by a gateway or central, by place; after a disk was put back
        #: there may be several.
        self.truth: dict[tuple[Direction, str, Lane, int], set[Row]] = {}
        #: The ids of the gateway's events that some disk held whenever one was lost.
        self.must: set[str] = set()
        #: Whether the gateway's disk is an old copy that has not taken everything back yet.
        self.recovering = False
        self.expected: set[Verdict] = set()
        self.verdicts: dict[str, int] = {}
        self._broker_life = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()
        self.gateway = self.node_class(self, "gateway", Direction.UP)
        self.central = self.node_class(self, "central", Direction.DOWN)
        self.nodes = [self.gateway, self.central]
        for node in self.nodes:
            node.start()
        self._beat()

    def bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def note(self, *what: Any) -> None:
        self.trace.update(repr((self.time_ns, *what)).encode())

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        due = self.time_ns + int(seconds * SECOND)
        heapq.heappush(self._queue, (due, next(self._number), action, arguments))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Let virtual time pass; stops early once ``until`` holds."""
        end = self.time_ns + int(seconds * SECOND)
        while self._queue and self._queue[0][0] <= end:
            self.time_ns, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
            if until is not None and until():
                return
        self.time_ns = end

    def _beat(self) -> None:
        for node in self.nodes:
            node.tick()
            node.link_up()
        self.after(1, self._beat)

    def maybe_crash(self, node: Node) -> None:
        if node.alive and self.random.random() < self.chaos.crash:
            node.crash()

    # The broker: a lossy pipe that may forget everything at any time.

    def broker_up(self, node: Node) -> bool:
        return node.name not in self.partitioned

    def send(self, sender: Node, message: Send) -> None:
        self.note(sender.name, message.kind.value)
        if not sender.connected or not self.broker_up(sender):
            return
        for node in self.nodes:
            if node.direction is sender.direction:
                continue
            copies = 0 if self.random.random() < self.chaos.drop else 1
            copies += self.random.random() < self.chaos.duplicate
            for _ in range(copies):
                late = 30 if self.random.random() < self.chaos.late else 1
                delay = self.random.random() * self.chaos.delay_s * late
                self.after(delay, self._deliver, self._broker_life, node, message)

    def _deliver(self, life: int, node: Node, message: Send) -> None:
        if life == self._broker_life and node.connected and self.broker_up(node):
            node.receive(message.kind, message.payload)

    def forget(self) -> None:
        """The broker dies with all it held, and comes back."""
        self._broker_life += 1
        for node in self.nodes:
            node.link_down()

    def put_back(self, node: Node, backup: tuple[State, Any]) -> None:
        """Put an old copy in the place of a disk that is lost; what nobody holds now is lost."""
        self.expected.add(Verdict.RESTORED)
        node.crash()
        node.recover(backup)
        self.recovering = True
        self.forget_what_nobody_holds()

    def forget_what_nobody_holds(self) -> None:
        kept = [*self.central.state.inbox.values(), *self.gateway.state.outbox.values()]
        self.must &= {self._id(row) for row in kept}

    def partition(self, node: Node, seconds: float) -> None:
        self.partitioned.add(node.name)
        node.link_down()
        self.after(seconds, self.partitioned.discard, node.name)

    # What the nodes make of events.

    def apply(self, effects: dict[str, Any], event: Event) -> None:
        """The projection: who was applied how often, and the status lattice."""
        key = f"applied:{event.id}"
        effects[key] = effects.get(key, 0) + 1
        if event.type == "certificate.issued" and event.body["profile"] == "unappliable":
            effects[f"half:{event.id}"] = True
            raise ValueError("a defect in applying")
        self.reapply(effects, event)

    def reapply(self, effects: dict[str, Any], event: Event) -> None:
        """What both sides make of an event, the gateway of its own: the status lattice."""
        serial = event.body.get("serial")
        if event.type == "certificate.revoked":
            effects[f"status:{serial}"] = "revoked"
        elif event.type == "certificate.issued" and event.body["profile"] != "unappliable":
            effects.setdefault(f"status:{serial}", "good")
        elif event.type == "directive.revoke":
            known = effects.get(f"ordered:{serial}", 0)
            effects[f"ordered:{serial}"] = max(known, event.body["number"])

    # Invariants.

    def committed(self, node: Node, before: State) -> None:
        """Check after each commit what must always hold."""
        after = node.state
        for place, row in after.outbox.items():
            if place not in before.outbox:
                written = self.truth.setdefault((node.direction, *place), set())
                written.add(row)
                require(len(written) == 1 or bool(self.expected), f"{place} was written twice")
                if node.direction is Direction.UP:
                    self.must.add(self._id(row))
        for place, row in after.inbox.items():
            if place not in before.inbox:
                origin = self._origin(node)
                written = self.truth.get((origin, *place), set())
                require(row in written, f"{place} is not what was sent")
        for lane, cursor in before.in_cursors.items():
            require(after.in_cursors[lane].applied >= cursor.applied, f"the cursor {lane} fell")
        for lane, cursor in after.in_cursors.items():
            if cursor != before.in_cursors.get(lane):
                held = all((*lane, n) in after.inbox for n in range(1, cursor.applied + 1))
                require(held, f"the log {lane} is no prefix")
        if after.effects != before.effects:
            self._check_effects(before.effects, after.effects)

    def _origin(self, node: Node) -> Direction:
        return Direction.DOWN if node.direction is Direction.UP else Direction.UP

    def _check_effects(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for key, value in after.items():
            if key.startswith("applied:"):
                require(value == 1, f"{key} has {value} effects")
            require(not key.startswith("half:"), f"{key} was left behind by a quarantined event")
        for key, value in before.items():
            if value == "revoked":
                require(after[key] == "revoked", f"{key} was revoked and is {after[key]}")

    def stopped(self, node: Node, stop: Stop) -> None:
        self.note("stop", node.name, stop.verdict.value)
        self.verdicts[stop.verdict.value] = self.verdicts.get(stop.verdict.value, 0) + 1
        require(stop.verdict in self.expected, f"{node.name} stopped without cause: {stop}")

    def drained(self) -> bool:
        """Tell if each side holds, and has confirmed to the other, all that the other wrote."""
        if any(
            node.stops or node.state.facts.get("doubt") or not node.alive for node in self.nodes
        ):
            return False
        held = self.central.state.inbox
        confirmed = all(
            out.confirmed[lane].applied == head.sequence
            for node in (self.gateway, self.central)
            for out in node.transaction().out_segments(_ALL)
            for lane, head in out.heads.items()
        )
        regained = not self.central.state.facts.get("lacking")
        return confirmed and regained and all(p in held for p in self.gateway.state.outbox)

    def check_complete(self) -> None:
        """After draining: nothing is lost, and each event is applied or quarantined."""
        central = self.central.state
        held = {self._id(row) for row in central.inbox.values() if row.type != "segment.opened"}
        for place, row in self.gateway.state.outbox.items():
            require(central.inbox.get(place) == row, f"{place} is not what central holds")
        for lost in self.must - held:
            opening = any(
                row.type == "segment.opened" and self._id(row) == lost
                for rows in self.truth.values()
                for row in rows
            )
            require(opening, f"{lost} is lost")
        for serial, number in central.orders.items():
            done = self.gateway.state.effects.get(f"ordered:{serial}")
            require(done == number, f"the order about {serial} is lost")
        for key, value in central.effects.items():
            if key.startswith("status:"):
                ours = self.gateway.state.effects.get(key)
                require(ours == value, f"{key} is {value} at central and {ours} at the gateway")
        for node in self.nodes:
            for place, row in node.state.inbox.items():
                applied = f"applied:{self._id(row)}" in node.state.effects
                quarantined = place in node.state.quarantined
                opening = row.type == "segment.opened"
                require(applied + quarantined + opening == 1, f"{place} has no one fate")

    def _id(self, row: Row) -> str:
        return cbor2.loads(row.event)["id"]
