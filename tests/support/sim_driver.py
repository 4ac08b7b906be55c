"""The simulator's stores behind the real asyncio session, for tests over a real broker."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.mqtt.link import BrokerAddress
from shared.mqtt.session import Notice, Online, Session, Wire
from shared.sync.events import Direction, Event
from shared.sync.replicator import CentralReplicator, GatewayReplicator
from shared.system.clock import SystemClock
from tests.support.sim_store import GATEWAY, MemoryTransaction, State
from tests.support.sim_world import CENTRAL_KEYS, GATEWAY_KEYS

CLOCK = SystemClock()


def count(effects: dict[str, Any], event: Event) -> None:
    effects[event.id] = effects.get(event.id, 0) + 1


@dataclass
class Store:
    """A LinkStore over memory."""

    direction: Direction
    state: State = field(default_factory=State)
    trouble: list[Exception] = field(default_factory=list)  # raised by the next transactions

    async def run(self, unit: Callable[[MemoryTransaction], Any]) -> Any:
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble.pop()
        return self.write(unit)

    def write(self, unit: Callable[[MemoryTransaction], Any]) -> Any:
        now = CLOCK.now()
        tx = MemoryTransaction(self.state.copy(), self.direction, now, os.urandom, count)
        result = unit(tx)
        self.state = tx.state
        return result


class Party:
    """One product's side: a session, its store, and what it was told."""

    def __init__(self, direction: Direction, address: BrokerAddress) -> None:
        self.store = Store(direction)
        self.notices: list[Notice] = []
        self.session = Session(
            address,
            clock=CLOCK,
            random=os.urandom,
            observe=lambda name, notice: self.notices.append(notice),
        )
        if direction is Direction.UP:
            self.store.write(MemoryTransaction.start)
            end = GatewayReplicator(
                GATEWAY, GATEWAY_KEYS, version="test", random=os.urandom, now=CLOCK.now()
            )
        else:
            end = CentralReplicator(GATEWAY, CENTRAL_KEYS, incarnation="0" * 32)
        self.session.add(GATEWAY, Wire(end, self.store))
        self._task = asyncio.create_task(self.session.run())

    @property
    def online(self) -> bool:
        states = [notice.online for notice in self.notices if isinstance(notice, Online)]
        return bool(states) and states[-1]

    def write(self, unit: Callable[[MemoryTransaction], Any]) -> None:
        self.store.write(unit)
        self.session.wake(GATEWAY)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition; patience costs nothing when it comes true early."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, seen from outside
            await asyncio.sleep(0.02)
