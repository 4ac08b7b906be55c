"""A simulated machine: its clocks, its disk with and without what is synced, its power.

A commit is *written* at once: the process and other transactions see it, and it outlives the
process. It is *durable* only after the sync, and only then is its result told. A power cut keeps
any prefix of what was written since the last sync.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import StorageFullError

if TYPE_CHECKING:
    from tests.support.sim_node import Node
    from tests.support.sim_world import World

_START_US = 1_800_000_000_000_000
_YEAR_US = 365 * 86_400 * 1_000_000
#: The wall clock stays where certificates can still be dated.
_LIMIT_US = 20 * _YEAR_US


class Machine:
    """One box. A gateway has one end of one link on it, central has an end of every link."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.nodes: list[Node] = []
        self.alive = False
        self.connected = False
        self.life = 0  # of the process
        self.boots = 0
        #: Rows that the disk has room for; None: plenty.
        self.room: int | None = None
        self.wall_us = 0  # how far the wall clock is off
        self._booted_ns = 0
        self._written: list[tuple[Node, Any]] = []  # commits since the last sync
        self._waiting: list[Callable[[], None]] = []
        self._syncing = False

    @property
    def now(self) -> Instant:
        time_ns = self.world.time_ns
        return Instant(
            _START_US + self.wall_us + time_ns // 1_000,
            time_ns - self._booted_ns,
            f"{self.name}-{self.boots}",
            ClockQuality.NTP,
        )

    def set_clock(self, years: float) -> None:
        """Let the wall clock jump; what is monotonic stays so."""
        self.wall_us = max(-_LIMIT_US, min(_LIMIT_US, self.wall_us + int(years * _YEAR_US)))

    # The process.

    def start(self) -> None:
        if self.alive:
            return
        if self.world.random.random() < 0.3:
            self.reboot()  # not only the process was restarted
        try:
            for node in self.nodes:
                node.prepare()
        except StorageFullError:
            self.world.count("fault: no room to start")
            self.world.after(10, self.start)
            return
        self.sync()
        self.alive = True
        for node in self.nodes:
            node.begin()
        self.world.after(self.world.random.random(), self.link_up)

    def crash(self) -> None:
        """The process is gone; what it had written is not."""
        self.alive = self.connected = False
        self.life += 1
        self._waiting.clear()
        self._syncing = False
        for node in self.nodes:
            node.gone()
        self.world.note("crash", self.name)
        self.world.after(self.world.random.uniform(0.1, 20), self.start)

    def lose_power(self) -> None:
        """Of what was not synced a prefix is left, or nothing."""
        kept = self.world.random.randint(0, len(self._written))
        if lost := self._written[kept:]:
            self.world.count("fault: commits lost with the power", len(lost))
        newest = dict(self._written[:kept])
        touched = {id(node): node for node, _ in self._written}
        for node in touched.values():
            node.thaw(newest.get(node, node.durable))
        del self._written[kept:]
        self.reboot()
        self.crash()

    def reboot(self) -> None:
        self.boots += 1
        self._booted_ns = self.world.time_ns

    # The disk.

    def take_room(self, rows: int, *, reserve: bool) -> None:
        """Raise StorageFullError if that much does not fit; a revocation has a reserve."""
        if self.room is None or rows <= 0 or reserve:
            return
        if rows > self.room:
            raise StorageFullError("The disk is full.")
        self.room -= rows

    def wrote(self, node: "Node") -> None:
        self._written.append((node, node.freeze()))
        self._sync_soon()

    def after_sync(self, tell: Callable[[], None]) -> None:
        """Call once all that is written so far is durable; after a crash: never."""
        self._waiting.append(tell)
        self._sync_soon()

    def _sync_soon(self) -> None:
        if self.alive and not self._syncing:
            self._syncing = True
            self.world.after(self.world.random.random() / 50, self._synced, self.life)

    def _synced(self, life: int) -> None:
        self.world.maybe_crash(self)  # before the sync: nobody was told
        if life != self.life:
            return
        self._syncing = False
        self.sync()
        self.world.maybe_crash(self)  # after it: its results are told to nobody
        if life != self.life:
            return
        for node in self.nodes:
            node.testify()
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            if life == self.life:
                tell()

    def sync(self) -> None:
        written, self._written = dict(self._written), []
        for node, frozen in written.items():
            node.settle(frozen)

    def forget_written(self, node: "Node") -> None:
        """Another disk takes the place of this one."""
        self._written = [entry for entry in self._written if entry[0] is not node]
        self.room = None

    # The link.

    def link_up(self) -> None:
        if self.alive and not self.connected and self.world.broker_up(self):
            self.connected = True
            life = self.life
            for node in self.nodes:
                if life == self.life:
                    node.link_up()

    def link_down(self) -> None:
        if self.connected:
            self.connected = False
            for node in self.nodes:
                node.link_down()

    def tick(self) -> None:
        life = self.life
        for node in self.nodes:
            if life == self.life:
                node.tick()
