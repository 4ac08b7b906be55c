"""The work of one token: most urgent first, and nothing accepted that would come too late."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shared.issuance.ports import Priority
from shared.kernel.clock import Clock
from shared.kernel.errors import TokenUnavailableError

DEPTH_MAX = 2_048  # documents of one priority
_NS_PER_S = 1_000_000_000
_FIRST_GUESS_NS = 1_000_000
_WEIGHT = 0.1  # of the newest measurement in the moving average


@dataclass(frozen=True, slots=True)
class Job:
    """One use of the token. ``run`` does it, ``refuse`` is called instead when it came too late.

    ``allowance_s``: how much longer than a signature it may take, as making a long key does.
    """

    priority: Priority
    deadline_ns: int  # monotonic
    run: Callable[[], None]
    refuse: Callable[[TokenUnavailableError], None]
    allowance_s: float = 0.0


class TokenQueue:
    """Thread-safe; many put, one takes."""

    def __init__(self, clock: Clock) -> None:
        """Take the clock whose monotonic time deadlines are in."""
        self._clock = clock
        self._lanes: dict[Priority, deque[Job]] = {priority: deque() for priority in Priority}
        self._changed = threading.Condition()
        self._latency_ns = float(_FIRST_GUESS_NS)
        self._closed = False

    @property
    def latency_ns(self) -> int:
        """Moving average of how long one job takes."""
        return round(self._latency_ns)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, job: Job) -> None:
        """Queue a job; raises TokenUnavailableError at once when it would come too late."""
        with self._changed:
            lane = self._lanes[job.priority]
            ahead = sum(len(self._lanes[other]) for other in _not_less_urgent(job.priority))
            wait_ns = ahead * self._latency_ns  # an idle token takes a job however slow it was
            late_ns = self._clock.now().mono_ns + wait_ns - job.deadline_ns
            if self._closed or late_ns > 0 or len(lane) >= DEPTH_MAX:
                raise _too_late(max(late_ns, self._latency_ns))
            lane.append(job)
            self._changed.notify()

    def take(self, timeout_s: float) -> Job | None:
        """Take the most urgent job; None after the timeout, or when closed and empty.

        A job whose deadline passed while more urgent ones went ahead is refused here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self) > 0, timeout_s)
            while (job := self._next()) is not None:
                late_ns = self._clock.now().mono_ns - job.deadline_ns
                if late_ns <= 0:
                    return job
                job.refuse(_too_late(late_ns))
            return None

    def measured(self, duration_ns: int) -> None:
        """Fold the duration of one job into the moving average."""
        self._latency_ns += _WEIGHT * (duration_ns - self._latency_ns)

    def close(self) -> None:
        """Accept no more jobs."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def closed(self) -> bool:
        """Whether no job is left and none will come."""
        return self._closed and len(self) == 0

    def _next(self) -> Job | None:
        return next((lane.popleft() for lane in self._lanes.values() if lane), None)


def _not_less_urgent(priority: Priority) -> list[Priority]:
    order = list(Priority)
    return order[: order.index(priority) + 1]


def _too_late(late_ns: float) -> TokenUnavailableError:
    return TokenUnavailableError(
        "The token has more work than it can do in time.",
        remedy="Try again a little later, or add a second token with the same key.",
        retry_after_s=max(late_ns / _NS_PER_S, 0.1),
    )
