"""The one thread that touches the token: it polls the keeper and does the queue's jobs."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from shared.hsm.keeper import TokenKeeper
from shared.hsm.queue import Job, TokenQueue
from shared.issuance.ports import Priority
from shared.kernel.clock import Clock
from shared.kernel.errors import OutcomeUnknownError, TmaError

_LOG = logging.getLogger(__name__)
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_RESTLESS_S = 0.1

Result = TypeVar("Result")


class TokenWorker:
    """Starts the thread; other threads ask with ``submit``."""

    def __init__(self, keeper: TokenKeeper, clock: Clock, *, poll_s: float) -> None:
        """Take the keeper, which from ``start`` on belongs to the thread."""
        self.queue = TokenQueue(clock)
        self.done = 0
        self._busy_since_ns: int | None = None
        self._keeper = keeper
        self._clock = clock
        self._poll_s = poll_s
        self._thread = threading.Thread(target=self._run, name="token", daemon=True)

    def start(self) -> None:
        """Start to look for the token."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Do what is queued, then end; a thread that hangs in the module is left behind."""
        self.queue.close()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def busy_s(self) -> float:
        """Seconds that the current call into the token has taken beyond what it may."""
        since_ns = self._busy_since_ns
        return 0.0 if since_ns is None else (self._clock.now().mono_ns - since_ns) / _NS_PER_S

    def submit(
        self,
        use: Callable[[], Result],
        settle: Callable[[Result | TmaError], None],
        *,
        priority: Priority,
        deadline_ms: int,
        allowance_s: float = 0.0,
    ) -> None:
        """Queue one use of the token; ``settle`` is called on the thread, exactly once.

        ``allowance_s``: see ``queue.Job``. Raises TokenUnavailableError when it would come too
        late.
        """
        deadline_ns = self._clock.now().mono_ns + deadline_ms * _NS_PER_MS
        job = Job(priority, deadline_ns, lambda: settle(_outcome(use)), settle, allowance_s)
        self.queue.put(job)

    def _run(self) -> None:
        next_poll_ns = 0
        while not self.queue.closed:
            now_ns = self._clock.now().mono_ns
            if now_ns >= next_poll_ns:
                self._timed(self._keeper.poll)
                pause_s = _RESTLESS_S if self._keeper.restless else self._poll_s
                next_poll_ns = self._clock.now().mono_ns + round(pause_s * _NS_PER_S)
            job = self.queue.take(max(next_poll_ns - now_ns, 0) / _NS_PER_S)
            if job is not None:
                took_ns = self._timed(job.run, round(job.allowance_s * _NS_PER_S))
                if not job.allowance_s:
                    self.queue.measured(took_ns)
                self.done += 1

    def _timed(self, step: Callable[[], None], allowance_ns: int = 0) -> int:
        """Run one step that may block in the module; gives its ns."""
        begin_ns = self._clock.now().mono_ns
        self._busy_since_ns = begin_ns + allowance_ns
        try:
            step()
        finally:
            self._busy_since_ns = None
        return self._clock.now().mono_ns - begin_ns


def _outcome(use: Callable[[], Result]) -> Result | TmaError:
    """Turn exceptions into values: the thread must survive whatever a module does."""
    try:
        return use()
    except TmaError as error:
        return error
    except Exception:  # noqa: BLE001 - a defect must not end the thread
        _LOG.exception("the token's answer was not understood")
        return OutcomeUnknownError("The key service failed inside; its log has the reason.")
