"""One end of a simulated link: durable state, a replication end, and what a crash takes away."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.issuance.ports import Intent
from shared.kernel.errors import TmaError, UnavailableError
from shared.sync.effects import Alarm, Contact, Effects, Healed, Notice, Run, Send, Stop
from shared.sync.envelope import Kind
from shared.sync.events import Direction
from shared.sync.lineage import Finding, Verdict
from shared.sync.replicator import CentralReplicator, GatewayReplicator
from shared.sync.segments import Witness, is_restored_copy, reusable
from tests.support.sim_machine import Machine
from tests.support.sim_store import MemoryTransaction, State
from tests.support.sim_tally import rows

if TYPE_CHECKING:
    from tests.support.sim_link import Link


Unit = Callable[[MemoryTransaction], Any]


def _completing(intent: Intent) -> Unit:
    return lambda tx: tx.complete(intent, intent.tbs)


def _voiding(intent: Intent) -> Unit:
    return lambda tx: tx.void(intent)


class Node:
    """One end of one link, on its machine."""

    def __init__(
        self, link: "Link", machine: Machine, direction: Direction, state: State | None = None
    ) -> None:
        self.link = link
        self.world = link.world
        self.machine = machine
        machine.nodes.append(self)
        self.name = f"{machine.name}/{link.name}"
        self.direction = direction  # of its own events
        self.state = state or State()  # as written
        self.durable: Any = self.freeze()  # as of the last sync
        self.synced = self.state
        self.stops: list[Stop] = []
        self.alarms: list[str] = []
        self.healed = 0
        #: Outside the database: what a restored copy is told by.
        self.witness: Witness | None = None
        self.end: GatewayReplicator | CentralReplicator | None = None

    @property
    def alive(self) -> bool:
        return self.machine.alive

    @property
    def connected(self) -> bool:
        return self.machine.connected

    def start(self) -> None:
        self.machine.start()

    def crash(self) -> None:
        self.machine.crash()

    def prepare(self) -> None:
        """What a start writes: a gateway opens its segment before anything else."""
        self.stops.clear()
        if self.direction is Direction.DOWN:
            return
        opened = self.reading().out_segments(0)
        newest, heads = (opened[0].segment, opened[0].heads) if opened else (None, {})
        if is_restored_copy(self.witness, newest, heads):
            self.commit(lambda tx: tx.set_doubt(Verdict.RESTORED))
            self.stops.append(Stop(Verdict.RESTORED, "The witness has seen more."))
        else:
            self.commit(MemoryTransaction.start)

    def begin(self) -> None:
        if self.direction is Direction.UP:
            self.testify()
            self.end = GatewayReplicator(
                self.link.name,
                self.link.gateway_keys,
                version="sim",
                random=self.world.bytes,
                now=self.machine.now,
            )
            for intent in self.state.intents.values():
                self.finish(intent, self.world.random.random() * 3)
        else:
            self.end = CentralReplicator(
                self.link.name,
                self.link.central_keys,
                incarnation=self.world.incarnation,
                blocked=self.blocked,
            )

    def finish(self, intent: Intent, seconds: float, *, surely: bool = False) -> None:
        """Complete an intent after a while; or, after a crash, give it up as well."""

        def decide(life: int) -> None:
            if life != self.machine.life or intent.serial not in self.state.intents:
                return
            void = not surely and self.world.random.random() < 0.5
            unit = _voiding(intent) if void else _completing(intent)
            if not self.write(unit):
                self.world.after(5, decide, life)

        self.world.after(seconds, decide, self.machine.life)

    def go_on(self) -> None:
        """What an operator may do on a restored box without a link."""
        if self.alive and self.stops and self.state.facts.get("doubt") == Verdict.RESTORED:
            try:
                self.commit(MemoryTransaction.start)
            except UnavailableError:
                return
            self.stops.clear()

    @property
    def blocked(self) -> Finding | None:
        """What central's registry keeps of this end."""
        verdict = self.state.facts.get("blocked")
        return Finding(Verdict(verdict), "") if verdict else None

    def gone(self) -> None:
        self.end = None

    def link_up(self) -> None:
        if self.end is not None:
            self.carry_out(self.end.connected(20, self.machine.now))

    def link_down(self) -> None:
        if self.end is not None:
            self.end.disconnected(self.machine.now)

    def tick(self) -> None:
        if self.alive and self.end is not None:
            self.carry_out(self.end.tick(self.machine.now))

    def receive(self, kind: Kind, payload: bytes) -> None:
        if self.alive and self.connected and self.end is not None:
            self.carry_out(self.end.received(kind, payload, self.machine.now))

    # Storage.

    def transaction(
        self, random: Callable[[int], bytes] | None = None, state: State | None = None
    ) -> MemoryTransaction:
        return MemoryTransaction(
            state or self.state.copy(),
            self.direction,
            self.machine.now,
            random or self.world.bytes,
            self.link.apply,
            self.link.reapply,
            self.link.name,
        )

    def reading(self) -> MemoryTransaction:
        """A transaction for questions only: it works on what is there."""
        return self.transaction(state=self.state)

    def commit(self, unit: Unit, *, reserve: bool = False) -> Any:
        """Run a unit; all of it is written, or nothing."""
        tx = self.transaction()
        result = unit(tx)
        self.take_room(tx.state, reserve=reserve)
        self.write_down(tx.state)
        return result

    def take_room(self, state: State, *, reserve: bool) -> None:
        """Raise StorageFullError if this does not fit on the disk."""
        before = len(self.state.outbox) + len(self.state.inbox)
        grown = len(state.outbox) + len(state.inbox) - before
        self.machine.take_room(grown, reserve=reserve)

    def write_down(self, state: State) -> None:
        self.state = state
        self.machine.wrote(self)

    def freeze(self) -> Any:
        """Give what brings back this moment; a state is never changed once it is written."""
        return self.state

    def thaw(self, frozen: Any) -> None:
        self.state = self.state_of(frozen)

    def state_of(self, frozen: Any) -> State:
        return frozen

    def settle(self, frozen: Any) -> None:
        """What was written is durable now, and must be right."""
        before, self.synced = self.synced, self.state_of(frozen)
        self.durable = frozen
        self.link.committed(self, before, self.synced)

    def put_back(self, frozen: Any) -> None:
        """Put an old copy in the place of what is there; the process must be down."""
        self.thaw(frozen)
        self.durable, self.synced = frozen, self.state
        self.machine.forget_written(self)

    def remember(self, name: str, value: str) -> None:
        """Change a fact of the registry: a transaction of its own that nothing waits for."""
        state = self.state.copy()
        state.facts[name] = value
        self.write_down(state)

    def testify(self) -> None:
        """Let the witness follow: each segment, and its first event."""
        if self.direction is Direction.DOWN or (name := self.synced.opened) is None:
            return
        opened = self.transaction(state=self.synced).out_segments(0)[0]
        known = self.witness
        new = known is None or known.segment != name
        if (new or reusable(known.heads)) and not self.synced.facts.get("doubt"):
            self.witness = Witness(opened.segment.start_counter, name, dict(opened.heads))

    def write(
        self,
        unit: Unit,
        then: Callable[[], None] | None = None,
        *,
        reserve: bool = False,
    ) -> bool:
        """Let the application write events, and tell the replicator once they are durable."""
        if not self.alive or self.end is None or self.stops:
            return False
        try:
            self.commit(unit, reserve=reserve)
        except TmaError as error:
            self.world.count(f"refused: {error.code}")
            return False
        self.machine.after_sync(lambda: self._wake(then))
        return True

    def _wake(self, then: Callable[[], None] | None) -> None:
        if self.end is not None:
            self.carry_out(self.end.wake(self.machine.now))
        if then is not None:
            then()

    # Effects.

    def carry_out(self, effects: Effects) -> None:
        life = self.machine.life
        for effect in effects:
            self.world.maybe_crash(self.machine)
            if life != self.machine.life:
                return
            if isinstance(effect, Send):
                self.world.send(self, effect)
            elif isinstance(effect, Run):
                self.world.after(self.world.random.random() / 50, self._execute, life, effect)
            else:
                self._observe(effect)

    def _observe(self, notice: Notice) -> None:
        """What the application makes of it."""
        if isinstance(notice, Stop):
            self.stops.append(notice)
            if self.direction is Direction.DOWN:
                self.remember("blocked", notice.verdict.value)
            self.link.stopped(self, notice)
        elif isinstance(notice, Healed):
            self.stops.clear()
            self.healed += 1
            self.world.count(f"healed: {self.direction.value}")
            self.link.recovering &= self.direction is Direction.DOWN
            if self.blocked:
                self.remember("blocked", "")
        elif isinstance(notice, Contact) and self.direction is Direction.UP:
            self.stops.clear()  # central goes on with this history (gateway.history)
        elif isinstance(notice, Alarm):
            self.alarms.append(notice.reason)

    def _execute(self, life: int, effect: Run) -> None:
        if life != self.machine.life:
            return
        if self.world.random.random() < self.world.chaos.busy:
            self.world.after(0.5, self._execute, life, effect)
            return
        self.world.maybe_crash(self.machine)  # before the commit: all of it is gone
        if life != self.machine.life:
            return
        before = self.state
        try:
            result = self.commit(effect.unit)
        except UnavailableError:
            self.world.count("fault: no room for a transaction")
            self.world.after(0.5, self._execute, life, effect)
            return
        for row in rows(before, effect, result):
            self.world.count(row)
        self.machine.after_sync(lambda: self._tell(life, effect, result))

    def _tell(self, life: int, effect: Run, result: Any) -> None:
        delay = self.world.random.random() / 50
        self.world.after(delay, self._told, life, effect, result)

    def _told(self, life: int, effect: Run, result: Any) -> None:
        if life == self.machine.life:
            self.carry_out(effect.then(result, self.machine.now))
