"""The simulator earns its trust: with one safeguard taken out, it must find a violation."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from shared.kernel.clock import Instant
from shared.sync import inbox, lineage, outbox, reconcile
from shared.sync.effects import Effects
from shared.sync.envelope import Batch
from shared.sync.inbox import Acceptance, Outcome
from shared.sync.lineage import Verdict
from shared.sync.ports import Cursor
from shared.sync.receiver import Receiver
from tests.support.sim_load import burst, survives
from tests.support.sim_machine import Machine
from tests.support.sim_store import MemoryTransaction
from tests.support.sim_world import CALM, Chaos, ViolationError, World, require

_SEEDS = 60
#: Rougher than usual, so that each safeguard is needed soon.
_CHAOS = Chaos(late=0.1, duplicate=0.15)

Mutate = Callable[[pytest.MonkeyPatch], None]


def _without_the_gap_check(patch: pytest.MonkeyPatch) -> None:
    """A batch is taken wherever it begins."""
    genuine = inbox.accept

    def accept(store: MemoryTransaction, address: Any, batch: Batch) -> Acceptance:
        if batch.first_sequence > store.in_cursor(batch.segment, batch.lane).applied + 1:
            arrivals = list(inbox.chained(address, batch))
            store.append(batch.segment, batch.lane, [arrival.row for arrival in arrivals])
            head = arrivals[-1].row
            store.set_in_cursor(batch.segment, batch.lane, outbox.Head(head.sequence, head.hash))
        return genuine(store, address, batch)

    patch.setattr(inbox, "accept", accept)


def _without_skipping_what_is_known(patch: pytest.MonkeyPatch) -> None:
    """A batch that came before is applied again."""
    genuine = inbox.accept

    def accept(store: MemoryTransaction, address: Any, batch: Batch) -> Acceptance:
        acceptance = genuine(store, address, batch)
        if acceptance.outcome is Outcome.KNOWN:
            for arrival in inbox.chained(address, batch):
                assert inbox._trouble(store, [arrival]) is None
        return acceptance

    patch.setattr(inbox, "accept", accept)


def _without_savepoints(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryTransaction, "savepoint", lambda self: nullcontext())


def _pruning_what_is_only_applied(patch: pytest.MonkeyPatch) -> None:
    genuine = outbox.confirm

    def confirm(store: MemoryTransaction, cursors: dict[Any, Cursor]) -> Any:
        return genuine(
            store, {lane: mark._replace(archived=mark.applied) for lane, mark in cursors.items()}
        )

    patch.setattr(outbox, "confirm", confirm)


def _receipt_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    genuine = Receiver.take

    def take(self: Receiver, batch: Batch, size: int) -> Effects:
        lane = batch.segment, batch.lane
        early = Cursor(batch.last_sequence, batch.last_hash, 0)
        now = Instant(0, 0, "", "ntp")  # pyright: ignore[reportArgumentType]
        return self._confirm({lane: early}, now) + genuine(self, batch, size)

    patch.setattr(Receiver, "take", take)


def _without_going_back_to_a_restored_central(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryTransaction, "rewind", lambda self: None)


def _without_taking_back(patch: pytest.MonkeyPatch) -> None:
    """A restored copy goes on as if nothing had come back."""
    patch.setattr(MemoryTransaction, "reapply", lambda *_: None)


def _without_writing_again_what_was_put_aside(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryTransaction, "write_again", lambda *_: None)


def _without_repeating_what_was_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("shared.sync.sender._PATIENCE_NS", 1 << 62)
    patch.setattr("shared.sync.replicator._HEARTBEAT_NS", 1 << 62)


def _resurrecting_the_revoked(patch: pytest.MonkeyPatch) -> None:
    """Not a rule of sync, but of applying: the invariant must see it."""
    genuine = MemoryTransaction.apply

    def apply(self: MemoryTransaction, events: Sequence[Any]) -> None:
        for event in events:
            genuine(self, [event])
            if event.type == "certificate.issued":
                self.state.effects[f"status:{event.body['serial']}"] = "good"

    patch.setattr(MemoryTransaction, "apply", apply)


def _without_the_parent_check(patch: pytest.MonkeyPatch) -> None:
    """A segment is taken wherever it begins, and whatever is held of it already."""
    patch.setattr(lineage, "judge", lambda *_: None)
    patch.setattr(lineage, "behind", lambda *_: None)
    patch.setattr(reconcile, "_closed", lambda *_: None)
    patch.setattr(inbox, "_require_open", lambda *_: None)


def _without_the_fsync(patch: pytest.MonkeyPatch) -> None:
    """What was written counts as durable, although the machine may still lose it."""
    patch.setattr(Machine, "after_sync", lambda _self, action: action())


def _without_the_fence_in_complete(patch: pytest.MonkeyPatch) -> None:
    """A certificate is released although the line was stopped since its intent."""

    def complete(self: MemoryTransaction, intent: Any, der: bytes) -> None:
        with patch.context() as open_line:
            open_line.setattr(MemoryTransaction, "require_open", lambda _self: None)
            genuine(self, intent, der)

    genuine = MemoryTransaction.complete
    patch.setattr(MemoryTransaction, "complete", complete)


@pytest.mark.parametrize(
    "mutate",
    [
        _without_the_gap_check,
        _without_the_fsync,
        _without_the_fence_in_complete,
        _without_skipping_what_is_known,
        _without_savepoints,
        _pruning_what_is_only_applied,
        _receipt_before_the_commit,
        _without_going_back_to_a_restored_central,
        _without_taking_back,
        _without_writing_again_what_was_put_aside,
        _without_repeating_what_was_lost,
        _resurrecting_the_revoked,
    ],
)
def test_the_simulator_catches(mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(ViolationError, match="seed"):
        for seed in range(_SEEDS):
            survives(seed, _CHAOS)


def test_two_boxes_that_nobody_judges_are_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of parents both histories would be taken for one."""

    def live() -> None:
        world = World(1, CALM)
        burst(world, 20)
        world.run(60, until=world.drained)
        world.links[0].twin()
        world.gateway.crash()  # so that each has a segment of its own behind the same parent
        world.run(45, until=lambda: bool(world.central.state.claims))
        require(bool(world.central.state.claims), "two boxes were taken for one")

    live()
    _without_the_parent_check(monkeypatch)
    with pytest.raises(ViolationError, match="two boxes"):
        live()


def test_a_verdict_without_cause_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = reconcile.Finding(Verdict.CLONE, "no reason")
    monkeypatch.setattr(reconcile, "_closed", lambda *_: finding)
    with pytest.raises(ViolationError, match="stopped without cause"):
        survives(0)
