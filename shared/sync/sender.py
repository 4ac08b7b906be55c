"""The sending half of a link: what is under way, what may go next, what must go again."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from shared.kernel.clock import Instant
from shared.sync import outbox
from shared.sync.effects import Effects, Run, Send
from shared.sync.envelope import Batch
from shared.sync.events import Lane
from shared.sync.outbox import Budget, Contradiction
from shared.sync.ports import Cursor, Head, LinkTransaction
from shared.sync.receiver import WINDOW_BYTES

#: Batches per transaction: reading must not hold the one writer for long.
_PICK_ENVELOPES = 4
#: Silence after which what is under way counts as lost; doubles until something is confirmed.
_PATIENCE_NS = 15 * 10**9
_PATIENCE_NS_MAX = 300 * 10**9

LaneName = tuple[str, Lane]


class Confirm(Protocol):
    """The rule that stores what the peer confirms: ``outbox.confirm`` or a stricter one."""

    def __call__(
        self, store: LinkTransaction, cursors: Mapping[LaneName, Cursor]
    ) -> Contradiction | None:
        """Give why the marks contradict our history; None if they do not."""
        ...


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch that was sent and is not confirmed; ``size`` is the weight of its events."""

    lane: LaneName
    last: int
    size: int


class Sender:
    """Sends the outbox of one link once it is started; keeps nothing that a crash may not lose.

    ``seal`` makes the message of a batch, ``contradicted`` says what a contradiction means here;
    ``confirm`` is the rule that stores what the peer confirms.
    """

    def __init__(
        self,
        seal: Callable[[Batch], Send],
        contradicted: Callable[[Contradiction], Effects],
        confirm: Confirm,
    ) -> None:
        self._confirm = confirm
        self._seal = seal
        self._contradicted = contradicted
        self._live = False
        self._generation = 0  # results of transactions that belong to an earlier start are void
        self._picking = False
        self._dirty = False
        self._sent: dict[LaneName, Head] = {}
        self._flights: list[_Flight] = []
        self._marks: dict[LaneName, Cursor] = {}  # as the peer told them last
        self._repeated: set[LaneName] = set()  # went back since their mark rose
        self._credit = 0
        self._window = 0
        self._turn = 0
        self._patience_ns = _PATIENCE_NS
        self._quiet_since_ns = 0

    @property
    def positions(self) -> dict[LaneName, int]:
        """Up to where each lane is on its way in this session."""
        return {lane: head.sequence for lane, head in self._sent.items()}

    @property
    def live(self) -> bool:
        """Whether a session is on."""
        return self._live

    def start(self, window: int, credit: int, now: Instant) -> Effects:
        """Begin a session: ``window`` in envelopes (ReceiveMaximum), ``credit`` in bytes."""
        self._live = True
        self._window = window
        self._credit = credit
        self._marks.clear()
        self._repeated.clear()
        return self._go_back(now)

    def stop(self) -> None:
        """End the session; what was under way is sent again in the next one."""
        self._live = False
        self._generation += 1
        self._picking = False

    def wake(self, now: Instant) -> Effects:
        """Send what there is, as far as the window allows. Call after commits with new events."""
        del now
        if not self._live:
            return []
        if self._picking:
            self._dirty = True
            return []
        budget = self._budget()
        if budget.envelopes <= 0 or budget.size <= 0:
            return []
        self._picking, self._dirty = True, False
        pick = partial(outbox.pick, sent=dict(self._sent), budget=budget)
        return [Run(pick, partial(self._picked, self._generation))]

    def confirmed(self, cursors: Mapping[LaneName, Cursor], credit: int, now: Instant) -> Effects:
        """Take the marks of a receipt; ``credit`` is the peer's at this moment."""
        del now
        return [Run(partial(self._confirm, cursors=cursors), partial(self._took, cursors, credit))]

    def tick(self, now: Instant) -> Effects:
        """Notice silence. Call about once a second."""
        quiet_ns = now.mono_ns - self._quiet_since_ns
        if not self._live or not self._flights or quiet_ns < self._patience_ns:
            return []
        self._patience_ns = min(2 * self._patience_ns, _PATIENCE_NS_MAX)
        return self._go_back(now)

    def _go_back(self, now: Instant) -> Effects:
        """Forget what is under way: each lane goes on from what is confirmed."""
        self._forget(set(self._sent))
        self._quiet_since_ns = now.mono_ns
        return self.wake(now)

    def _forget(self, lanes: AbstractSet[LaneName]) -> None:
        self._generation += 1
        self._picking = False
        self._sent = {lane: head for lane, head in self._sent.items() if lane not in lanes}
        self._flights = [flight for flight in self._flights if flight.lane not in lanes]

    def _missing(self, cursors: Mapping[LaneName, Cursor]) -> set[LaneName]:
        """Name the lanes whose mark was told again while more of them is under way.

        What followed it got lost or met no credit, so that what came after could not be applied.
        Once for each mark: what was under way behind the gap makes the peer say the same again.
        """
        self._repeated -= {lane for lane, mark in cursors.items() if self._marks.get(lane) != mark}
        same = {lane for lane, mark in cursors.items() if self._marks.get(lane) == mark}
        missing = (same & {flight.lane for flight in self._flights}) - self._repeated
        self._repeated |= missing
        self._marks.update(cursors)
        return missing

    def _budget(self) -> Budget:
        under_way = sum(flight.size for flight in self._flights)
        return Budget(
            envelopes=min(self._window - len(self._flights), _PICK_ENVELOPES),
            size=min(self._credit, WINDOW_BYTES) - under_way,
            turn=self._turn,
            idle=not self._flights,
        )

    def _picked(self, generation: int, batches: list[Batch], now: Instant) -> Effects:
        if generation != self._generation:
            return []
        self._picking = False
        if not self._flights:
            self._quiet_since_ns = now.mono_ns
        effects: Effects = []
        for batch in batches:
            lane = batch.segment, batch.lane
            self._sent[lane] = Head(batch.last_sequence, batch.last_hash)
            self._flights.append(_Flight(lane, batch.last_sequence, batch.size))
            self._turn += batch.lane is Lane.NORMAL
            effects.append(self._seal(batch))
        return effects + (self.wake(now) if batches or self._dirty else [])

    def _took(
        self,
        cursors: Mapping[LaneName, Cursor],
        credit: int,
        contradiction: Contradiction | None,
        now: Instant,
    ) -> Effects:
        if contradiction is not None:
            return self._contradicted(contradiction)
        self._credit = credit
        before = len(self._flights)
        self._flights = [
            flight
            for flight in self._flights
            if flight.lane not in cursors or flight.last > cursors[flight.lane].applied
        ]
        if len(self._flights) < before:
            self._quiet_since_ns = now.mono_ns
            self._patience_ns = _PATIENCE_NS
        for lane, cursor in cursors.items():
            if lane in self._sent and cursor.applied > self._sent[lane].sequence:
                self._sent[lane] = Head(cursor.applied, cursor.hash)
        if missing := self._missing(cursors):
            self._forget(missing)
        return self.wake(now)
