"""Whatever happens in whatever order: hypothesis looks for a sequence that loses something."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.support.sim_load import Backups, Disks, burst, command, heal, revoke
from tests.support.sim_world import CALM, Chaos, World

_SIDE = st.sampled_from(["gateway", "central"])


class Sync(RuleBasedStateMachine):
    """A gateway and central; at the end all misfortune ends, and both must agree."""

    world: World
    backups: Backups
    disks: Disks

    def __init__(self) -> None:
        super().__init__()
        self._serials = 1000
        self._bad = Chaos(crash=0)

    def _node(self, side: str) -> Any:
        return getattr(self.world, side)

    @initialize(seed=st.integers(0, 10_000))
    def begin(self, seed: int) -> None:
        self.world = World(seed, CALM)
        self.backups, self.disks = Backups(self.world), Disks(self.world.links[0])
        self.world.run(5)

    @rule(count=st.integers(1, 300))
    def issue(self, count: int) -> None:
        burst(self.world, count, first=self._serials)
        self._serials += count

    @rule(back=st.integers(1, 50))
    def revoke(self, back: int) -> None:
        serial = f"{max(1000, self._serials - back):032x}"
        self.world.gateway.write(lambda tx: revoke(tx, serial))

    @rule(back=st.integers(1, 50))
    def order(self, back: int) -> None:
        serial = f"{max(1000, self._serials - back):032x}"
        self.world.central.write(lambda tx: command(tx, serial))

    @rule(seconds=st.sampled_from([0.1, 1, 5, 70]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(side=_SIDE)
    def crash(self, side: str) -> None:
        self._node(side).crash()

    @rule(side=_SIDE)
    def lose_power(self, side: str) -> None:
        self._node(side).machine.lose_power()

    @rule(side=_SIDE, seconds=st.sampled_from([3, 100]))
    def cut(self, side: str, seconds: float) -> None:
        self.world.partition(self._node(side), seconds)

    @rule()
    def forget_the_broker(self) -> None:
        self.world.forget()

    @rule(bad=st.booleans())
    def weather(self, bad: bool) -> None:
        self.world.chaos = self._bad if bad else CALM

    @rule()
    def back_up(self) -> None:
        self.backups.take()

    @rule()
    def put_central_back(self) -> None:
        self.backups.restore()

    @rule()
    def copy_the_disk_or_put_a_copy_back(self) -> None:
        self.disks.copy_or_put_back()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            heal(self.world)
            self.world.check_complete()


TestSync = Sync.TestCase
TestSync.settings = settings(
    max_examples=1500,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
