"""What the engine wants done. It does nothing itself, so a simulator can crash it anywhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.kernel.clock import Instant
from shared.sync.envelope import Kind
from shared.sync.events import Direction, Lane
from shared.sync.lineage import Verdict
from shared.sync.ports import Unit

_PREFIX = "tma/v1"


def topic(gateway: str, direction: Direction, level: str) -> str:
    """Name a topic: ``tma/v1/{gateway}/up|dn/{level}``; the broker's ACL guards the prefix."""
    return f"{_PREFIX}/{gateway}/{direction.value}/{level}"


def parse_topic(name: str) -> tuple[str, Direction, str] | None:
    """Read what ``topic`` wrote; None for any other topic."""
    match name.split("/"):
        case ["tma", "v1", gateway, ("up" | "dn") as direction, level]:
            return gateway, Direction(direction), level
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Send:
    """Publish these bytes with QoS 1."""

    kind: Kind
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Run the unit in one transaction, again after UnavailableError; then tell its result.

    A result may be told late or, after a crash, never; ``then`` gives further effects.
    """

    unit: Unit[Any]
    then: Callable[[Any, Instant], "Effects"]


@dataclass(frozen=True, slots=True)
class Contact:
    """The other side answered just now. At a gateway, ``utc_us`` is central's signed time."""

    utc_us: int


@dataclass(frozen=True, slots=True)
class Online:
    """Whether the other side is reached. ``reason`` is for a person.

    At a gateway, True tells of the broker only; ``Contact`` is what proves central.
    """

    online: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The peer told how many events it still holds unsent; in a hello, its version, too.

    ``heads`` are the last events of the lanes that it named.
    """

    backlog: int
    version: str | None = None
    heads: Mapping[tuple[str, Lane], int] = field(default_factory=dict[tuple[str, Lane], int])


@dataclass(frozen=True, slots=True)
class Stop:
    """The gateway's line must stop, for this reason, until a person decides."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Healed:
    """A history that was stopped goes on; ``reason`` is a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person should know; replication goes on."""

    reason: str


#: What is only to be known, not done.
Notice = Contact | Online | Progress | Stop | Healed | Alarm

Effects = list[Send | Run | Notice]
