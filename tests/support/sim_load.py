"""What happens in a simulated world: enrollments, revocations, directives, backups, misfortune."""

import random
from typing import Any

from shared.sync.events import Lane
from shared.sync.ports import Cursor, Lacking
from shared.sync.replicator import CentralReplicator
from tests.support.sim_link import Link
from tests.support.sim_machine import Machine
from tests.support.sim_node import Node
from tests.support.sim_store import MemoryTransaction, order
from tests.support.sim_world import CALM, SECOND, Chaos, ViolationError, World, require
from tests.support.store_intents import make_intent

_ISSUED: dict[str, Any] = {
    "ca_id": "ab" * 20,
    "der": b"\x30" * 64,
    "profile": "tls-client",
    "profile_version": 1,
    "purpose": "tls-client",
    "device_id": None,
    "alias": "line",
    "protocol": "rest",
    "principal": "station:one",
    "metadata": {},
    "grant_id": None,
    "test": False,
    "replaces": None,
    "intent_id": "",
}


def issue(tx: MemoryTransaction, serial: str, profile: str = "tls-client") -> None:
    tx.require_open()
    tx.emit("certificate.issued", _ISSUED | {"serial": serial, "profile": profile})
    if profile != "unappliable":
        tx.own(f"status:{serial}", "good")


def revoke(tx: MemoryTransaction, serial: str) -> None:
    body = {"ca_id": "ab" * 20, "serial": serial, "reason": "superseded"}
    tx.emit("certificate.revoked", body | {"revoked_at_us": 1, "device_id": None})
    tx.own(f"status:{serial}", "revoked")


def command(tx: MemoryTransaction, serial: str) -> None:
    """Central orders a revocation."""
    tx.emit("directive.revoke", order(serial, tx.ordered(serial)))


def enroll(node: Node) -> None:
    """Intent, signature, completion: the token may take a while, and much may happen meanwhile."""
    world = node.world
    intent = make_intent(
        world.bytes(8).hex(),
        key=world.bytes(8).hex(),
        intent_id=world.bytes(16).hex(),
        serial=world.bytes(16).hex(),
        tbs=world.bytes(64),
    )

    signing_s = world.random.choice([0.1, 0.5, 8])
    node.write(lambda tx: tx.intend(intent), lambda: node.finish(intent, signing_s, surely=True))


def work(world: World) -> None:
    """Let a gateway do one thing, and central now and then give an order."""
    link = world.random.choice(world.whole() or world.links)
    gateway, central = link.gateway, link.central
    draw = world.random.random()
    serial = f"{world.random.randrange(40):032x}"
    if draw < 0.4:
        gateway.write(lambda tx: issue(tx, serial))
    elif draw < 0.6:
        enroll(gateway)
    elif draw < 0.75:
        may = gateway.alive and not gateway.stops
        done = gateway.write(lambda tx: revoke(tx, serial), reserve=True)
        require(done or not may, "a revocation was refused")
    elif draw < 0.8:
        gateway.write(lambda tx: issue(tx, serial, "unappliable"))
    elif draw < 0.85:
        gateway.write(lambda tx: tx.emit("from.the.future", {"x": 1}, Lane.NORMAL))
    else:
        central.write(lambda tx: command(tx, serial))


def burst(world: World, count: int, *, first: int = 1000, node: Node | None = None) -> None:
    """A night of work without a link."""

    def unit(tx: MemoryTransaction) -> None:
        for number in range(count):
            issue(tx, f"{number + first:032x}")

    (node or world.gateway).write(unit)


class Backups:
    """Central's two retained backups; what the older one holds is archived."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept: list[list[Any]] = []

    def take(self) -> None:
        machine = self.world.central.machine
        if not machine.alive:
            return
        self.world.count("backups")
        self.kept = [*self.kept[-1:], [node.durable for node in machine.nodes]]
        for node, frozen in zip(machine.nodes, self.kept[0], strict=True):
            _archive(node, node.state_of(frozen).in_cursors)

    def restore(self) -> None:
        """Central's disk is lost: it comes back from a backup as another incarnation."""
        if not self.kept:
            return
        world = self.world
        world.count("fault: central restored")
        self.kept = [world.random.choice(self.kept)]  # a newer one is of a lost history
        machine = world.central.machine
        machine.crash()
        world.incarnation = world.bytes(16).hex()
        for node, frozen in zip(machine.nodes, self.kept[0], strict=True):
            node.put_back(frozen)
            node.commit(begin_anew)
        machine.sync()
        for link in world.links:
            if link.recovering:
                link.forget_what_nobody_holds()


def _archive(node: Node, through: dict[tuple[str, Lane], Cursor]) -> None:
    def unit(tx: MemoryTransaction) -> None:
        for lane, cursor in through.items():
            tx.archive(*lane, cursor.applied)

    def tell() -> None:
        if isinstance(node.end, CentralReplicator):
            marks = {lane: node.state.in_cursors[lane] for lane in through}
            node.carry_out(node.end.archived(marks, node.machine.now))

    node.commit(unit)
    node.machine.after_sync(tell)


class Disks:
    """A copy of a gateway's disk, made now and then, and put back when the disk breaks."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.copy: Any = None

    def copy_or_put_back(self) -> None:
        if self.copy is None or self.link.world.random.random() < 0.5:
            self.copy = self.link.gateway.durable
            self.link.world.count("disk copies")
        else:
            self.link.world.count("fault: gateway restored")
            self.link.put_back(self.copy)


def begin_anew(tx: MemoryTransaction) -> None:
    """What is done to a database that was put back, in one transaction."""
    tx.open_segment()
    tx.set_lacking(Lacking.DIRECTIVES)


class Day:
    """A bad day of a world: what is done in it, and what goes wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.backups = Backups(world)
        self.disks = {link.name: Disks(link) for link in world.links}

    def misfortune(self) -> None:
        """Draw one of what goes wrong."""
        (draw,) = self.world.random.choices(_MISFORTUNES, _WEIGHTS)
        draw(self, self.world.random.choice(self.world.whole() or self.world.links))

    def disaster(self) -> None:
        """Draw one of what only a person can end; its link is whole no more."""
        link = self.world.random.choice(self.world.links)
        link.broken = True
        link.expected.update({"clone", "unknown", "restored"})
        if self.world.random.random() < 0.6:
            self.world.count("fault: two boxes of one name")
            link.twin()
        else:
            self.world.count("fault: all is lost, witness too")
            link.gateway.crash()
            link.gateway.put_back(link.box("empty", type(link.gateway.state)()).freeze())
            link.gateway.witness = None


def _disk(day: Day, link: Link) -> None:
    if not link.broken:
        day.disks[link.name].copy_or_put_back()


def _cut_gateway(day: Day, link: Link) -> None:
    day.world.count("fault: gateway cut off")
    day.world.partition(link.gateway, day.world.random.choice([2, 30, 90]))


def _cut_central(day: Day, _link: Link) -> None:
    day.world.count("fault: central cut off")
    day.world.partition(day.world.central, day.world.random.choice([2, 30]))


def _broker(day: Day, _link: Link) -> None:
    day.world.count("fault: broker forgot")
    day.world.forget()


def _clock(day: Day, _link: Link) -> None:
    """From three seconds to ten years, forth or back."""
    day.world.count("fault: clock jumped")
    machine = day.world.random.choice(day.world.machines)
    machine.set_clock(day.world.random.choice([-1, 1]) * 10 ** day.world.random.uniform(-7, 1))


def _full(day: Day, _link: Link) -> None:
    day.world.count("fault: disk filled")
    draw = day.world.random
    fill(draw.choice(day.world.machines), draw.choice([0, 3, 30]), draw.choice([5, 30]))


_CHANCES = {
    _disk: 10,
    lambda _day, link: link.gateway.go_on(): 3,
    _cut_gateway: 12,
    _cut_central: 8,
    _broker: 13,
    lambda day, link: burst(day.world, day.world.random.choice([20, 150]), node=link.gateway): 6,
    _clock: 8,
    _full: 8,
    lambda day, link: stop_line(link.gateway, day.world.random.choice([3, 20])): 4,
    lambda day, _link: day.backups.take(): 18,
    lambda day, _link: day.backups.restore(): 10,
}
_MISFORTUNES, _WEIGHTS = list(_CHANCES), list(_CHANCES.values())


def fill(machine: Machine, rows: int, seconds: float) -> None:
    """Leave room for so many rows; somebody makes room later."""
    machine.room = rows
    machine.world.after(seconds, setattr, machine, "room", None)


def stop_line(node: Node, seconds: float) -> None:
    """An operator stops the line for a while."""

    def go_on() -> None:
        if node.state.facts.get("line"):
            node.write(lambda tx: tx.stop_line(stopped=False))
            node.world.after(1, go_on)

    if node.write(lambda tx: tx.stop_line(stopped=True)):
        node.world.count("line stopped")
        node.world.after(seconds, go_on)


def live_through(world: World, seconds: float = 90, events: int = 0, faults: int = 0) -> None:
    """Run a bad time, then a good one until all is drained; then check that nothing is missing.

    It lasts ``seconds`` at the least, and until so much happened.
    """
    day = Day(world)
    end = world.time_ns + int(seconds * SECOND)
    while world.time_ns < end or world.tally["events"] < events or fault_count(world) < faults:
        world.run(world.random.expovariate(0.5))
        for _ in range(world.random.randint(1, 1 + bool(events) * 4)):
            work(world)
        if world.random.random() < 0.25:
            day.misfortune()
        if events and world.random.random() < 0.001:
            day.disaster()
    heal(world)
    world.check_complete()


def fault_count(world: World) -> int:
    """Count what went wrong, single messages aside."""
    return sum(number for name, number in world.tally.items() if name.startswith("fault: "))


def heal(world: World, patience_s: float = 1500) -> None:
    """End all misfortune; everything must drain within bounded virtual time."""
    world.chaos = CALM
    world.partitioned.clear()
    for machine in world.machines:
        machine.room = None
    world.run(patience_s, until=world.drained)
    require(world.drained(), "not drained in time")


def survive(seed: int, chaos: Chaos | None = None, events: int = 200, faults: int = 10) -> World:
    """Run one seed; a violation names it."""
    gateways = random.Random(seed).choice([1, 1, 2, 3])
    world = World(seed, chaos, gateways)
    try:
        live_through(world, 60, events, faults)
    except Exception as error:
        raise ViolationError(f"seed {seed}: {error!r}") from error
    return world


def survives(seed: int, chaos: Chaos | None = None) -> str:
    """Run one seed as ``survive`` does; gives the digest of all that happened."""
    return survive(seed, chaos).trace.hexdigest()
