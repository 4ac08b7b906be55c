"""Drives replication ends over one link: their effects become publishes and transactions.

Both products use it: a gateway with its one end, central with an end per gateway.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.kernel import cbor
from shared.kernel.clock import Clock, Instant
from shared.kernel.errors import BadRequestError, TmaError, UntrustedError
from shared.kernel.errors import Kind as ErrorKind
from shared.kernel.ids import Random
from shared.mqtt.link import BrokerAddress, Link, Presence
from shared.sync.effects import Alarm, Effects, Notice, Online, Run, Send, parse_topic, topic
from shared.sync.envelope import Kind
from shared.sync.events import Direction, Lane
from shared.sync.ports import LinkStore

_LOG = logging.getLogger(__name__)
_TICK_S = 1
_RETRY_S, _RETRY_S_MAX = 0.5, 30
_STATE = "state"
_STATE_BYTES_MAX = 64

__all__ = ["End", "Notice", "Observe", "Online", "Session", "Wire", "presence", "subscription"]

#: Called on the loop with a gateway's name and what is to be known; must not block or raise.
Observe = Callable[[str, Notice], None]


class End(Protocol):
    """One end of a link: ``GatewayReplicator`` or ``CentralReplicator``."""

    @property
    def positions(self) -> Mapping[tuple[str, Lane], int]:
        """Up to where each lane is on its way."""
        ...

    def connected(self, receive_maximum: int, now: Instant) -> Effects:
        """Begin on a fresh link."""
        ...

    def disconnected(self, now: Instant) -> None:
        """Take note that the link is gone."""
        ...

    def received(self, kind: Kind, payload: bytes, now: Instant) -> Effects:
        """Take a message."""
        ...

    def wake(self, now: Instant) -> Effects:
        """Send new rows."""
        ...

    def tick(self, now: Instant) -> Effects:
        """Let time pass."""
        ...


@dataclass(frozen=True, slots=True)
class Wire:
    """An end and where its units run."""

    end: End
    store: LinkStore


def presence(gateway: str) -> Presence:
    """Make a gateway's retained ``up/state``. The ACL says who writes it, so it is not signed."""
    return Presence(
        topic(gateway, Direction.UP, _STATE),
        cbor.encode({"online": True}),
        cbor.encode({"online": False}),
    )


def subscription(gateway: str | None) -> str:
    """Name what a gateway listens to, or (None) what central does."""
    if gateway is None:
        return topic("+", Direction.UP, "#")
    return topic(gateway, Direction.DOWN, "#")


class Session:
    """The asyncio driver. Wires may be added and removed while it runs."""

    def __init__(
        self, address: BrokerAddress, *, clock: Clock, random: Random, observe: Observe
    ) -> None:
        self._link = Link(address, random)
        self._is_gateway = address.presence is not None
        self._clock = clock
        self._observe = observe
        self._wires: dict[str, Wire] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._receive_maximum: int | None = None  # None: not connected

    def add(self, gateway: str, wire: Wire) -> None:
        """Begin to replicate with this gateway (at a gateway: its own name)."""
        self._wires[gateway] = wire
        if self._receive_maximum is not None:
            effects = wire.end.connected(self._receive_maximum, self._clock.now())
            self._carry_out(gateway, wire, effects)

    def remove(self, gateway: str) -> None:
        """Stop to replicate; transactions under way end, their results are void."""
        self._wires.pop(gateway).end.disconnected(self._clock.now())

    def wake(self, gateway: str) -> None:
        """Tell that the outbox for this gateway has new rows. Cheap: call after each commit."""
        if (wire := self._wires.get(gateway)) is not None:
            self._carry_out(gateway, wire, wire.end.wake(self._clock.now()))

    def positions(self, gateway: str) -> Mapping[tuple[str, Lane], int]:
        """Tell up to where each lane of ours is on its way."""
        wire = self._wires.get(gateway)
        return {} if wire is None else wire.end.positions

    def carry_out(self, gateway: str, effects: Effects) -> None:
        """Carry out what an end wants for a reason of its own; nothing while there is no link."""
        wire = self._wires.get(gateway)
        if wire is not None and self._receive_maximum is not None:
            self._carry_out(gateway, wire, effects)

    def close_link(self, reason: str) -> None:
        """End the present connection, for instance to present a renewed certificate."""
        self._link.close(reason)

    async def run(self) -> None:
        """Replicate until cancelled; of a transaction under way nobody is told then."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._link.run(self))
                group.create_task(self._tick())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def link_up(self, receive_maximum: int) -> None:
        """See ``LinkUser``."""
        self._receive_maximum = receive_maximum
        now = self._clock.now()
        for gateway, wire in self._wires.items():
            self._carry_out(gateway, wire, wire.end.connected(receive_maximum, now))
            if self._is_gateway:
                self._observe(gateway, Online(online=True))

    def link_down(self, reason: str) -> None:
        """See ``LinkUser``."""
        _LOG.info("%s", reason)
        self._receive_maximum = None
        now = self._clock.now()
        for gateway, wire in self._wires.items():
            wire.end.disconnected(now)
            self._observe(gateway, Online(online=False, reason=reason))

    def message(self, topic: str, payload: bytes) -> None:
        """See ``LinkUser``."""
        gateway, direction, level = parse_topic(topic) or ("", None, "")
        wire = self._wires.get(gateway)
        if wire is None:
            return
        if level == _STATE and direction is Direction.UP:
            self._observe(gateway, Online(online=_is_online(payload)))
        elif level in set(Kind):
            effects = wire.end.received(Kind(level), payload, self._clock.now())
            self._carry_out(gateway, wire, effects)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for gateway, wire in list(self._wires.items()):
                self._carry_out(gateway, wire, wire.end.tick(self._clock.now()))

    def _carry_out(self, gateway: str, wire: Wire, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._link.publish(effect.topic, effect.payload)
            elif isinstance(effect, Run):
                task = asyncio.create_task(self._run(gateway, wire, effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._observe(gateway, effect)

    async def _run(self, gateway: str, wire: Wire, effect: Run) -> None:
        """Run a unit until it is durable: what stops it (disk full, locks) is somebody's to mend.

        A defect is retried too, slowly and loudly: it must not stop the other gateways. What the
        other side said wrongly is not: it would be as wrong the next time.
        """
        pause_s = _RETRY_S
        while True:
            try:
                result = await wire.store.run(effect.unit)
                break
            except (BadRequestError, UntrustedError) as error:
                self._observe(gateway, Alarm(f"A message was ignored: {error.message}"))
                return
            except Exception as error:  # noqa: BLE001 - see above
                expected = isinstance(error, TmaError) and error.kind is ErrorKind.RETRYABLE
                _LOG.log(
                    logging.WARNING if expected else logging.ERROR,
                    "A transaction of the link to %s failed and is tried again.",
                    gateway,
                    exc_info=error,
                )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_S_MAX)
        if self._wires.get(gateway) is wire:
            self._carry_out(gateway, wire, effect.then(result, self._clock.now()))


def _is_online(payload: bytes) -> bool:
    try:
        value = cbor.decode(payload, limit=_STATE_BYTES_MAX)
    except BadRequestError:
        return False
    return value == {"online": True}
