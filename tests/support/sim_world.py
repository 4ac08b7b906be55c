"""A seeded simulator of links: virtual time, a lossy broker, crashes at every effect.

Everything random comes from one seed: the same seed gives the same run, to the last byte hashed
into ``World.trace``. Keys are fixed, because a signature's bytes must not differ between runs in
length (ECDSA draws its own randomness; only sizes enter the trace).
"""

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.sync.effects import Send
from tests.support.sim_link import Link, ViolationError, central_keys, gateway_keys, require
from tests.support.sim_machine import Machine
from tests.support.sim_node import Node

__all__ = ["CALM", "Chaos", "Link", "Machine", "Node", "ViolationError", "World", "require"]

SECOND = 10**9
GATEWAY_KEYS = gateway_keys(0)
CENTRAL_KEYS = central_keys(0)


@dataclass
class Chaos:
    """How often what goes wrong; probabilities per message, effect or transaction."""

    drop: float = 0.05
    duplicate: float = 0.05
    delay_s: float = 0.5
    late: float = 0.02  # of a message that comes much later than those behind it
    stray: float = 0.01  # of one that reaches somebody else besides
    crash: float = 0.004
    power: float = 0.5  # of a crash that is one of the machine, not only of the process
    busy: float = 0.03


CALM = Chaos(drop=0, duplicate=0, delay_s=0.05, late=0, stray=0, crash=0, busy=0)


class World:
    """The scheduler, the broker, one central and its gateways."""

    node_class: type[Node] = Node

    def __init__(self, seed: int, chaos: Chaos | None = None, gateways: int = 1) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.chaos = chaos or Chaos()
        self.time_ns = 0
        self.partitioned: set[str] = set()
        self.trace = hashlib.sha256()
        self.tally: Counter[str] = Counter()
        self.incarnation = self.bytes(16).hex()
        self._broker_life = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()
        central = Machine(self, "central")
        self.links = [Link(self, number, central) for number in range(gateways)]
        self.machines = [central, *(link.gateway.machine for link in self.links)]
        for machine in self.machines:
            machine.start()
        self._beat()

    @property
    def gateway(self) -> Node:
        """The only gateway, or the first."""
        return self.links[0].gateway

    @property
    def central(self) -> Node:
        """Central's end of the first link."""
        return self.links[0].central

    @property
    def nodes(self) -> list[Node]:
        return [node for link in self.links for node in link.nodes]

    def bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def note(self, *what: Any) -> None:
        self.trace.update(repr((self.time_ns, *what)).encode())

    def count(self, what: str, number: int = 1) -> None:
        self.tally[what] += number

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
        for machine in self.machines:
            machine.tick()
            machine.link_up()
        self.after(1, self._beat)

    def maybe_crash(self, machine: Machine) -> None:
        if machine.alive and self.random.random() < self.chaos.crash:
            self.count("fault: crash")
            if self.random.random() < self.chaos.power:
                machine.lose_power()
            else:
                machine.crash()

    # The broker: a lossy pipe that may forget everything at any time.

    def broker_up(self, machine: Machine) -> bool:
        return machine.name not in self.partitioned

    def send(self, sender: Node, message: Send) -> None:
        self.note(sender.name, message.kind.value)
        if not sender.connected or not self.broker_up(sender.machine):
            return
        for node in sender.link.nodes:
            if node.direction is not sender.direction:
                self._carry(node, message)
        if len(self.links) > 1 and self.random.random() < self.chaos.stray:
            other = self.random.choice(self.links)
            if other is not sender.link:
                self.count("message: stray")
                self._carry(self.random.choice(other.nodes), message)

    def _carry(self, node: Node, message: Send) -> None:
        copies = 0 if self.random.random() < self.chaos.drop else 1
        copies += self.random.random() < self.chaos.duplicate
        if copies != 1:
            self.count("message: duplicate" if copies else "message: lost")
        for _ in range(copies):
            late = self.random.random() < self.chaos.late
            self.tally["message: late"] += late
            delay = self.random.random() * self.chaos.delay_s * (30 if late else 1)
            self.after(delay, self._deliver, self._broker_life, node, message)

    def _deliver(self, life: int, node: Node, message: Send) -> None:
        if life == self._broker_life and node.connected and self.broker_up(node.machine):
            node.receive(message.kind, message.payload)

    def forget(self) -> None:
        """The broker dies with all it held, and comes back."""
        self._broker_life += 1
        for machine in self.machines:
            machine.link_down()

    def partition(self, node: Node, seconds: float) -> None:
        self.partitioned.add(node.machine.name)
        node.machine.link_down()
        self.after(seconds, self.partitioned.discard, node.machine.name)

    # What must hold in the end.

    def whole(self) -> list[Link]:
        """The links that need no person."""
        return [link for link in self.links if not link.broken]

    def drained(self) -> bool:
        return all(link.drained() for link in self.whole())

    def check_complete(self) -> None:
        for link in self.whole():
            link.check_complete()
