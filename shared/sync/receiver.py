"""The receiving half of a link: one transaction at a time over what has come in."""

from collections.abc import Callable
from functools import partial

from shared.kernel.clock import Instant
from shared.sync import inbox
from shared.sync.effects import Alarm, Effects, Run
from shared.sync.envelope import Address, Batch
from shared.sync.events import Lane
from shared.sync.inbox import Acceptance, Outcome
from shared.sync.ports import Cursor, LinkTransaction

#: What one peer may have under way at the most, by the weight of events.
WINDOW_BYTES = 4 * 1024 * 1024
#: Batches in one transaction: it holds the one writer, and its receipt opens the window again.
_TOGETHER_MAX = 4

Cursors = dict[tuple[str, Lane], Cursor]


class Receiver:
    """Applies batches and has them confirmed after their commit; drops what exceeds the window.

    ``credit`` tells what the peer may have under way now; what it had before may still come.
    ``confirm`` makes the receipt, ``refused`` says what a refused history means here.
    """

    def __init__(
        self,
        address: Address,
        credit: Callable[[], int],
        confirm: Callable[[Cursors, Instant], Effects],
        refused: Callable[[Acceptance, Instant], Effects],
    ) -> None:
        self._address = address
        self._credit = credit
        self._confirm = confirm
        self._refused = refused
        self._waiting: list[Batch] = []
        self._running = 0  # bytes inside the transaction under way

    @property
    def credit(self) -> int:
        """How many bytes the peer may have under way in all, from now on."""
        return min(self._credit(), WINDOW_BYTES)

    def take(self, batch: Batch) -> Effects:
        """Queue an authentic batch. What does not fit is sent again later."""
        if self._running + _size(self._waiting) + batch.size > WINDOW_BYTES:
            return []
        self._waiting.append(batch)
        return [] if self._running else self._next()

    def _next(self) -> Effects:
        """Apply a few of those that wait, urgent ones first: a drain must not delay what is."""
        order = sorted(self._waiting, key=lambda batch: batch.lane)
        batches, self._waiting = order[:_TOGETHER_MAX], order[_TOGETHER_MAX:]
        self._running = _size(batches)
        return [Run(partial(_accept_all, self._address, batches), self._accepted)]

    def _accepted(self, acceptances: list[Acceptance], now: Instant) -> Effects:
        self._running = 0
        cursors = {(one.segment, one.lane): one.cursor for one in acceptances}
        effects = self._confirm(cursors, now)
        for one in acceptances:
            if one.outcome is Outcome.REFUSED:
                effects += self._refused(one, now)
            elif one.outcome is Outcome.BROKEN:
                effects.append(Alarm(one.reason))
            elif one.quarantined:
                effects.append(
                    Alarm(f"{one.quarantined} events of segment {one.segment} are quarantined.")
                )
        return effects + (self._next() if self._waiting else [])


def _size(batches: list[Batch]) -> int:
    return sum(batch.size for batch in batches)


def _accept_all(address: Address, batches: list[Batch], store: LinkTransaction) -> list[Acceptance]:
    return [inbox.accept(store, address, batch) for batch in batches]
