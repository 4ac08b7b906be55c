import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import ConflictError, StorageFullError, UnavailableError
from shared.sync import inbox, outbox
from shared.sync.envelope import Address, Batch
from shared.sync.events import Direction, Event, Lane
from shared.sync.inbox import Outcome
from shared.sync.lineage import Verdict
from shared.sync.outbox import Budget
from tests.support.sim_load import issue
from tests.support.sim_store import GATEWAY, MemoryTransaction, State

NOW = Instant(1_800_000_000_000_000, 5, "boot", ClockQuality.NTP)
ADDRESS = Address(GATEWAY, Direction.UP)


def _count(effects: dict[str, Any], event: Event) -> None:
    effects[event.id] = effects.get(event.id, 0) + 1


def _transaction(apply: Any = _count, seed: int = 1) -> MemoryTransaction:
    return MemoryTransaction(State(), Direction.UP, NOW, random.Random(seed).randbytes, apply)


def _written(count: int, seed: int = 2) -> MemoryTransaction:
    tx = _transaction(seed=seed)
    for number in range(count):
        issue(tx, f"{number:032x}")
    return tx


def _batch(tx: MemoryTransaction, first: int, last: int, lane: Lane = Lane.NORMAL) -> Batch:
    name = next(reversed(tx.state.out_segments))
    before = tx.state.outbox.get((name, lane, first - 1))
    rows = tx.out_rows(name, lane, first - 1, last - first + 1, 1 << 20)
    hash_before = before.hash if before else outbox.GENESIS_HASH
    return outbox.batch_of(name, lane, hash_before, rows, 0)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 12)), max_size=25))
def test_whatever_comes_in_whatever_order_the_log_is_a_prefix_applied_once(
    pieces: list[tuple[int, int]],
) -> None:
    theirs, ours = _written(29), _transaction()
    for first, more in pieces:
        batch = _batch(theirs, first, min(first + more, 30))
        cursor = ours.in_cursor(batch.segment, Lane.NORMAL)
        outcome = inbox.accept(ours, ADDRESS, batch).outcome
        if first > cursor.applied + 1:
            assert outcome is Outcome.GAP
        elif batch.last_sequence <= cursor.applied:
            assert outcome is Outcome.KNOWN
        else:
            assert outcome is Outcome.APPLIED
            assert ours.in_cursor(batch.segment, Lane.NORMAL).applied == batch.last_sequence
    held = {place: row for place, row in theirs.state.outbox.items() if place in ours.state.inbox}
    assert ours.state.inbox == held
    assert set(ours.state.effects.values()) <= {1}
    assert len(ours.state.effects) == max(0, len(held) - 1)  # less the opening event


def test_another_event_at_a_held_place_is_a_clone() -> None:
    theirs, ours = _written(10), _transaction()
    inbox.accept(ours, ADDRESS, _batch(theirs, 1, 6))
    fork = _transaction()
    fork.state = theirs.state.copy()
    name = next(iter(fork.state.heads))[0]
    for number in range(4, 12):
        fork.state.outbox.pop((name, Lane.NORMAL, number), None)
    fork.state.heads[name, Lane.NORMAL] = outbox.Head(3, _hash(fork, name, 3))
    for number in range(6):
        issue(fork, f"{number + 99:032x}")
    for first, last in ((3, 8), (4, 6), (7, 9), (5, 9)):
        found = inbox.accept(ours, ADDRESS, _batch(fork, first, last))
        assert (found.outcome, found.verdict) == (Outcome.REFUSED, Verdict.CLONE)
    assert ours.in_cursor(name, Lane.NORMAL).applied == 6


def _hash(tx: MemoryTransaction, name: str, sequence: int) -> bytes:
    return tx.state.outbox[name, Lane.NORMAL, sequence].hash


@pytest.mark.parametrize("change", [{"last_hash": b"x" * 32}, {"events": [b"x"] * 5}])
def test_a_batch_that_contradicts_itself_is_broken(change: dict[str, Any]) -> None:
    theirs, ours = _written(10), _transaction()
    wrong = _batch(theirs, 1, 5).model_copy(update=change)
    assert inbox.accept(ours, ADDRESS, wrong).outcome is Outcome.BROKEN
    assert ours.state == State()


def test_a_segment_must_open_with_its_own_opening() -> None:
    theirs, ours = _written(3), _transaction()
    batch = _batch(theirs, 2, 4)
    name, previous = "cd" * 16, outbox.GENESIS_HASH
    for sequence, event in enumerate(batch.events, 1):
        previous = outbox.chain_hash(
            previous, GATEWAY, Direction.UP, name, Lane.NORMAL, sequence, event
        )
    moved = {"segment": name, "first_sequence": 1, "previous_hash": bytes(32)}
    wrong = batch.model_copy(update=moved | {"last_hash": previous})
    assert inbox.accept(ours, ADDRESS, wrong).outcome is Outcome.BROKEN


def test_a_chain_of_another_gateway_is_broken() -> None:
    found = inbox.accept(_transaction(), Address("gw-08", Direction.UP), _batch(_written(3), 1, 4))
    assert found.outcome is Outcome.BROKEN


@pytest.mark.parametrize("defect", [ConflictError("no"), KeyError("x"), RecursionError()])
def test_what_cannot_be_applied_is_quarantined_and_the_rest_goes_on(defect: Exception) -> None:
    def apply(effects: dict[str, Any], event: Event) -> None:
        _count(effects, event)
        if event.body["serial"].endswith("3"):
            raise defect

    theirs, ours = _written(6), _transaction(apply)
    acceptance = inbox.accept(ours, ADDRESS, _batch(theirs, 1, 7))
    assert (acceptance.outcome, acceptance.quarantined) == (Outcome.APPLIED, 1)
    assert acceptance.cursor.applied == 7
    assert [place[2] for place in ours.state.quarantined] == [5]
    assert len(ours.state.effects) == 5


@pytest.mark.parametrize("trouble", [StorageFullError("full"), UnavailableError("locked")])
def test_lock_and_disk_errors_are_never_quarantined(trouble: Exception) -> None:
    def apply(effects: dict[str, Any], event: Event) -> None:
        raise trouble

    ours = _transaction(apply)
    with pytest.raises(UnavailableError):
        inbox.accept(ours, ADDRESS, _batch(_written(3), 1, 4))
    assert ours.state.quarantined == {}


def test_bytes_that_are_no_event_are_kept_and_quarantined() -> None:
    theirs, ours = _written(2), _transaction()
    good = _batch(theirs, 1, 3)
    events = [*good.events[:2], b"no event at all"]
    previous = outbox.GENESIS_HASH
    for sequence, event in enumerate(events, 1):
        previous = outbox.chain_hash(
            previous, GATEWAY, Direction.UP, good.segment, Lane.NORMAL, sequence, event
        )
    batch = good.model_copy(update={"events": events, "last_hash": previous})
    assert inbox.accept(ours, ADDRESS, batch).quarantined == 1
    assert ours.state.inbox[good.segment, Lane.NORMAL, 3].event == b"no event at all"


def test_an_event_past_the_end_that_a_child_names_is_a_clone() -> None:
    theirs, ours = _written(5), _transaction()
    parent = _batch(theirs, 1, 6)
    issue(theirs, "f" * 32)
    past = _batch(theirs, 1, 7)
    twin = _transaction(seed=9)
    twin.state = theirs.state.copy()
    del twin.state.outbox[parent.segment, Lane.NORMAL, 7]
    twin.state.heads[parent.segment, Lane.NORMAL] = outbox.Head(6, parent.last_hash)
    twin.open_segment()
    for lane in Lane:
        child = _batch(twin, 1, 1, lane)
        assert inbox.accept(ours, ADDRESS, child).outcome is Outcome.APPLIED
    assert inbox.accept(ours, ADDRESS, parent).outcome is Outcome.APPLIED
    assert inbox.accept(ours, ADDRESS, past).verdict is Verdict.CLONE
    assert inbox.accept(ours, ADDRESS, parent).outcome is Outcome.KNOWN


def test_the_parent_may_come_after_the_child() -> None:
    theirs, ours = _written(5), _transaction()
    parent = _batch(theirs, 1, 6)
    theirs.open_segment()
    issue(theirs, "e" * 32)
    batches = outbox.pick(theirs, {}, Budget(100, 1 << 20, 0))
    assert batches[-1].segment == parent.segment
    for batch in batches:
        assert inbox.accept(ours, ADDRESS, batch).outcome is Outcome.APPLIED
    assert ours.state.inbox == theirs.state.outbox
