"""What happens in a simulated world: enrollments, revocations, directives, backups, misfortune."""

from typing import Any

from shared.sync.events import Lane
from shared.sync.ports import Cursor, Lacking
from shared.sync.replicator import CentralReplicator
from tests.support.sim_store import MemoryTransaction, State, order
from tests.support.sim_world import CALM, Chaos, ViolationError, World, require

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


def work(world: World) -> None:
    """Let the gateway do one thing, and central now and then give an order."""
    draw = world.random.random()
    serial = f"{world.random.randrange(40):032x}"
    if draw < 0.6:
        world.gateway.write(lambda tx: issue(tx, serial))
    elif draw < 0.75:
        world.gateway.write(lambda tx: revoke(tx, serial))
    elif draw < 0.8:
        world.gateway.write(lambda tx: issue(tx, serial, "unappliable"))
    elif draw < 0.85:
        world.gateway.write(lambda tx: tx.emit("from.the.future", {"x": 1}, Lane.NORMAL))
    else:
        world.central.write(lambda tx: command(tx, serial))


def burst(world: World, count: int, *, first: int = 1000) -> None:
    """A night of work without a link."""

    def unit(tx: MemoryTransaction) -> None:
        for number in range(count):
            issue(tx, f"{number + first:032x}")

    world.gateway.write(unit)


class Backups:
    """Central's two retained backups; what the older one holds is archived."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept: list[tuple[State, Any]] = []

    def take(self) -> None:
        central = self.world.central
        if not isinstance(central.end, CentralReplicator):
            return
        self.kept = [*self.kept[-1:], central.snapshot()]
        oldest = self.kept[0][0].in_cursors
        central.commit(lambda tx: _archive(tx, oldest))
        marks = {lane: central.state.in_cursors[lane] for lane in oldest}
        central.carry_out(central.end.archived(marks, central.now))

    def restore(self) -> None:
        """Central's disk is lost: it comes back from a backup as another incarnation."""
        if not self.kept:
            return
        self.kept = [self.world.random.choice(self.kept)]  # a newer one is of a lost history
        central = self.world.central
        central.crash()
        central.recover(self.kept[0])
        central.state.facts["incarnation"] = self.world.bytes(16).hex()
        central.commit(begin_anew)
        if self.world.recovering:
            self.world.forget_what_nobody_holds()


class Disks:
    """A copy of the gateway's disk, made now and then, and put back when the disk breaks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.copy: tuple[State, Any] | None = None

    def copy_or_put_back(self) -> None:
        if self.copy is None or self.world.random.random() < 0.5:
            self.copy = self.world.gateway.snapshot()
        else:
            self.world.put_back(self.world.gateway, self.copy)


def begin_anew(tx: MemoryTransaction) -> None:
    """What is done to a database that was put back, in one transaction."""
    tx.open_segment()
    tx.set_lacking(Lacking.DIRECTIVES)


def _archive(tx: MemoryTransaction, through: dict[tuple[str, Lane], Cursor]) -> None:
    for lane, cursor in through.items():
        tx.archive(*lane, cursor.applied)


def misfortune(world: World, backups: Backups, disks: Disks) -> None:
    """Draw one of what goes wrong on a bad day."""
    draw = world.random.random()
    if draw < 0.12:
        disks.copy_or_put_back()
    elif draw < 0.15:
        world.gateway.go_on()
    elif draw < 0.3:
        world.partition(world.gateway, world.random.choice([2, 30, 90]))
    elif draw < 0.4:
        world.partition(world.central, world.random.choice([2, 30]))
    elif draw < 0.6:
        world.forget()
    elif draw < 0.7:
        burst(world, world.random.choice([20, 150]))
    elif draw < 0.9:
        backups.take()
    else:
        backups.restore()


def live_through(world: World, seconds: float = 90) -> None:
    """Run a bad time, then a good one until all is drained; then check that nothing is missing."""
    backups, disks = Backups(world), Disks(world)
    end = world.time_ns + int(seconds * 10**9)
    while world.time_ns < end:
        world.run(world.random.expovariate(0.5))
        work(world)
        if world.random.random() < 0.25:
            misfortune(world, backups, disks)
    heal(world)
    world.check_complete()


def heal(world: World, patience_s: float = 1500) -> None:
    """End all misfortune; everything must drain within bounded virtual time."""
    world.chaos = CALM
    world.partitioned.clear()
    world.run(patience_s, until=world.drained)
    require(world.drained(), "not drained in time")


def survives(seed: int, chaos: Chaos | None = None) -> str:
    """Run one seed; a violation names it. Gives the digest of all that happened."""
    world = World(seed, chaos)
    try:
        live_through(world)
    except Exception as error:
        raise ViolationError(f"seed {seed}: {error!r}") from error
    return world.trace.hexdigest()
