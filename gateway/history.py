"""Whether this database may go on writing history: the witness's word, and central's.

While it may not, nothing is emitted, so nothing that central must know can happen: no issuing, no
revoking, no CRL. What was signed before is still served (design.md §5, *hello/welcome*).
"""

import logging
from pathlib import Path

from sqlalchemy import select

from gateway import taking_back
from gateway.issuing import Authorities
from gateway.link import GatewayOutbox
from gateway.snapshot import HistoryState
from shared.kernel.clock import Clock
from shared.kernel.errors import ConflictError, NotFoundError, StorageFullError
from shared.store import facts
from shared.store.database import Database
from shared.store.link import DOUBT
from shared.store.schema import fact
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME
from shared.sync.lineage import Verdict
from shared.sync.ports import Segment
from shared.sync.segments import WITNESS_INTERVAL_US, Witness, is_restored_copy, reusable
from shared.system.files import read_private, write_private

_LOG = logging.getLogger(__name__)
#: Fact: what central said of this history; no row while it may go on.
JUDGEMENT = "history"
_FIND = select(fact.c.value).where(fact.c.name == JUDGEMENT)
_BYTES_MAX = 4096
_LOOK_S = 1


class History:
    """Opens the segment of this start and keeps the witness outside the database."""

    def __init__(
        self,
        *,
        witness: Path,
        authorities: Authorities,
        outbox: GatewayOutbox,
        database: Database,
        clock: Clock,
    ) -> None:
        """Take the witness's file and what is to stop; ``begin`` comes next."""
        self._witness = witness
        self._authorities = authorities
        self._outbox = outbox
        self._database = database
        self._clock = clock
        self._witnessed = ("", False)  # the segment that the witness holds; if it was used then
        self._witnessed_ns = 0
        self._judged: HistoryState | None = None  # by central, not durable yet
        self._stopped_by_central = False
        self._segment_open = False  # healing opened one: a start need not

    async def begin(self) -> None:
        """Go on in a new segment, or stop: an old copy must not, nor what central stopped.

        A full disk holds nobody up, for revoking must go on: ``step`` writes the witness once
        there is room. Until then the database is ahead of it, as after a crash.
        """
        judged = await self._database.read(_FIND)
        if judged:
            self._stopped_by_central = True
            state = HistoryState(judged[0].value)
            if state is HistoryState.RESTORED:
                await self._database.writer.run(_remember_doubt)
            self._stop(state)
        else:
            seen = self._seen()
            opened = await self._database.writer.run(lambda tx: self._open(tx, seen))
            if opened is None:
                self._stop(HistoryState.RESTORED)
            else:
                try:
                    self._write(*opened)
                except StorageFullError as error:
                    _LOG.warning("The history has no witness yet: %s", error.message)

    def judged(self, state: HistoryState, reason: str) -> None:
        """Stop at once, because central says so; ``step`` makes it durable."""
        del reason  # the link logs it, central shows it
        self._judged = state
        self._stop(state)

    def contact(self) -> None:
        """Take note that central goes on with this history."""
        if self._stopped_by_central or self._judged is not None:
            self._judged = HistoryState.CONTINUOUS

    def healed(self) -> None:
        """Go on: what was forgotten is back, and a segment is open that central can follow."""
        self._judged, self._segment_open = HistoryState.CONTINUOUS, True

    async def go_on(self, remaining: int, reason: str, actor: str) -> None:
        """Let an old copy issue although central is out of reach; central settles the gap later.

        No grant has more than ``remaining`` units left then: what was issued since is not known.
        Raises ConflictError unless this database is an old copy.
        """
        if self._authorities.history is not HistoryState.RESTORED:
            raise ConflictError("This database is not known to be an old copy: nothing to do.")
        detail = f"{actor} went on with {remaining} certificates at most: {reason}"

        def unit(tx: Transaction) -> None:
            facts.put(tx, JUDGEMENT, None)
            taking_back.assume_used(tx, remaining)
            self._outbox.start(tx, CENTRAL_NAME)
            self._outbox.halted = ""  # undone below if this is not committed
            tx.emit("history.gap", {"detail": detail}, actor=actor)

        try:
            await self._database.writer.run(unit)
        except BaseException:
            self._stop(HistoryState.RESTORED)
            raise
        _LOG.warning("%s", detail)
        self._stopped_by_central = False
        self._authorities.history = HistoryState.CONTINUOUS

    async def step(self) -> float:
        """Make durable what central said, and let the witness follow; gives the next pause."""
        judged, self._judged = self._judged, None
        if judged is HistoryState.CONTINUOUS:
            await self._remember(None)
            self._stopped_by_central = False
            self._authorities.history, self._outbox.halted = judged, ""
            if not self._segment_open:
                await self.begin()
            self._segment_open = False
        elif judged is not None:
            await self._remember(judged.value)
            self._stopped_by_central = True
        if self._authorities.history is HistoryState.CONTINUOUS:
            await self._follow()
        return _LOOK_S

    async def _remember(self, judgement: str | None) -> None:
        await self._database.writer.run(lambda tx: facts.put(tx, JUDGEMENT, judgement))

    async def _follow(self) -> None:
        """Write the witness for a new segment, for its first event, and every ten minutes."""
        segment, testimony = await self._database.writer.run(self._testimony)
        age_us = (self._clock.now().mono_ns - self._witnessed_ns) // 1_000
        used = not reusable(Witness.decode(testimony).heads)
        if (segment.name, used) != self._witnessed or age_us >= WITNESS_INTERVAL_US:
            self._write(segment, testimony)

    def _open(self, tx: Transaction, seen: Witness | None) -> tuple[Segment, bytes] | None:
        newest, heads = self._outbox.heads(tx, CENTRAL_NAME) or (None, {})
        if is_restored_copy(seen, newest, heads):
            _remember_doubt(tx)
            return None
        self._outbox.start(tx, CENTRAL_NAME)
        return self._testimony(tx)

    def _testimony(self, tx: Transaction) -> tuple[Segment, bytes]:
        opened = self._outbox.heads(tx, CENTRAL_NAME)
        assert opened is not None  # begin saw to it
        segment, heads = opened
        return segment, Witness(segment.start_counter, segment.name, heads).encode()

    def _seen(self) -> Witness | None:
        try:
            return Witness.decode(read_private(self._witness, limit=_BYTES_MAX))
        except NotFoundError:
            return None

    def _write(self, segment: Segment, testimony: bytes) -> None:
        write_private(self._witness, testimony, replace=True)
        used = not reusable(Witness.decode(testimony).heads)
        self._witnessed, self._witnessed_ns = (segment.name, used), self._clock.now().mono_ns

    def _stop(self, state: HistoryState) -> None:
        _LOG.error("This database's history is %s: nothing is issued.", state.value)
        self._authorities.history = state
        self._outbox.halted = f"The history of this gateway's database is {state.value}."


def _remember_doubt(tx: Transaction) -> None:
    """Let each hello say that this database is an old copy, until it has taken everything back."""
    facts.put(tx, DOUBT, Verdict.RESTORED.value)
