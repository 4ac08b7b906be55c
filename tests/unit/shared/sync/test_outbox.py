import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.clock import ClockQuality, Instant
from shared.sync import outbox
from shared.sync.envelope import Batch
from shared.sync.events import Direction, Lane
from shared.sync.outbox import Budget, Conflict
from shared.sync.ports import NOTHING, Cursor, Head
from tests.support.sim_load import issue, revoke
from tests.support.sim_store import MemoryTransaction, State

NOW = Instant(1_800_000_000_000_000, 5, "boot", ClockQuality.NTP)


def _transaction() -> MemoryTransaction:
    return MemoryTransaction(
        State(), Direction.UP, NOW, random.Random(1).randbytes, lambda *_: None
    )


def _history(*segments: tuple[int, int]) -> tuple[MemoryTransaction, list[str]]:
    """Write segments of so many urgent and normal events; the last one is open."""
    tx = _transaction()
    names = []
    for urgent, normal in segments:
        names.append(tx.open_segment().name)
        for number in range(urgent):
            revoke(tx, f"{number:032x}")
        for number in range(normal):
            issue(tx, f"{number:032x}")
    return tx, names


def _mark(tx: MemoryTransaction, lane: tuple[str, Lane], applied: int, archived: int = 0) -> Cursor:
    return Cursor(applied, tx.state.outbox[*lane, applied].hash, archived)


def _all_batches(tx: MemoryTransaction, size: int = 1 << 24) -> list[Batch]:
    return outbox.pick(tx, {}, Budget(1000, size, 0))


def test_urgent_goes_first_wherever_it_is() -> None:
    tx, _ = _history((3, 300), (3, 300), (3, 300))
    lanes = [batch.lane for batch in _all_batches(tx)]
    assert lanes == sorted(lanes)
    assert lanes.count(Lane.URGENT) == 3


def test_the_open_segment_gets_four_of_five_turns() -> None:
    tx, names = _history((0, 2000), (0, 2000))
    normal = [batch for batch in _all_batches(tx) if batch.lane is Lane.NORMAL]
    opens = [batch.segment == names[-1] for batch in normal]
    assert opens[:10] == ([True] * 4 + [False]) * 2
    assert sum(batch.count for batch in normal) == 4002


def test_sealed_segments_go_oldest_first() -> None:
    tx, names = _history((0, 5), (0, 5), (0, 5), (0, 0))
    sealed = [b.segment for b in _all_batches(tx) if b.lane is Lane.NORMAL][1:]
    assert sealed == names[:3]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 20_000),
)
def test_picking_again_and_again_gives_every_event_once_in_order(
    segments: list[tuple[int, int]], envelopes: int, size: int
) -> None:
    tx, _ = _history(*segments)
    sent: dict[tuple[str, Lane], Head] = {}
    turn, seen = 0, []
    while batches := outbox.pick(tx, sent, Budget(envelopes, size, turn)):
        assert len(batches) <= envelopes
        assert len(batches) == 1 or sum(batch.size for batch in batches) <= size
        for batch in batches:
            lane = batch.segment, batch.lane
            before = sent.get(lane, Head(0, outbox.GENESIS_HASH))
            assert (batch.first_sequence, batch.previous_hash) == (before[0] + 1, before[1])
            sent[lane] = Head(batch.last_sequence, batch.last_hash)
            seen += [(*lane, batch.first_sequence + n) for n in range(batch.count)]
            turn += batch.lane is Lane.NORMAL
            assert batch.backlog == len(tx.state.outbox) - len(seen)
    assert sorted(seen) == sorted(tx.state.outbox)
    assert len(set(seen)) == len(seen)


def test_no_budget_no_batch() -> None:
    tx, _ = _history((1, 1))
    assert outbox.pick(tx, {}, Budget(0, 1000, 0)) == []
    assert outbox.pick(tx, {}, Budget(5, 0, 0)) == []


def test_marks_move_forward_only() -> None:
    tx, names = _history((0, 20))
    lane = names[0], Lane.NORMAL
    for applied, expected in ((5, 5), (3, 5), (9, 9), (9, 9)):
        assert outbox.confirm(tx, {lane: _mark(tx, lane, applied)}) is None
        assert tx.out_cursor(*lane).applied == expected


def test_only_what_is_archived_is_pruned() -> None:
    tx, names = _history((0, 20))
    lane = names[0], Lane.NORMAL
    outbox.confirm(tx, {lane: _mark(tx, lane, 15)})
    assert len(tx.out_rows(*lane, 0, 100, 1 << 20)) == 21
    outbox.confirm(tx, {lane: _mark(tx, lane, 15, archived=10)})
    held = [number for _, where, number in tx.state.outbox if where is Lane.NORMAL]
    assert held == list(range(10, 22))  # the last archived one stays: it holds the hash
    outbox.confirm(tx, {lane: _mark(tx, lane, 12, archived=99)})
    assert tx.out_cursor(*lane).archived == 15  # never more than is applied


def test_a_peer_that_has_more_than_we_wrote_shows_an_old_copy() -> None:
    tx, names = _history((0, 5))
    for lane in ((names[0], Lane.NORMAL), ("cd" * 16, Lane.URGENT)):
        found = outbox.confirm(tx, {lane: Cursor(99, bytes(32), 0)})
        assert found is not None
        assert found.kind is Conflict.AHEAD
        assert tx.out_cursor(*lane) == NOTHING


def test_a_peer_that_has_another_event_shows_a_fork() -> None:
    tx, names = _history((0, 5))
    lane = names[0], Lane.NORMAL
    good = names[0], Lane.URGENT
    found = outbox.confirm(tx, {good: _mark(tx, good, 1), lane: Cursor(3, b"x" * 32, 3)})
    assert found is not None
    assert found.kind is Conflict.FORKED
    assert tx.state.out_cursors == {}


@pytest.mark.parametrize("incarnation", ["old", "new"])
def test_a_restored_peer_gets_again_what_is_not_archived(incarnation: str) -> None:
    tx, names = _history((0, 20))
    lane = names[0], Lane.NORMAL
    tx.set_peer_incarnation("old")
    outbox.confirm(tx, {lane: _mark(tx, lane, 15, archived=5)})
    assert outbox.welcomed(tx, incarnation, {lane: _mark(tx, lane, 7)}) is None
    assert tx.out_cursor(*lane).applied == 7
    assert tx.peer_incarnation() == incarnation
    assert _all_batches(tx)[-1].first_sequence == 8


def test_a_welcome_that_was_overtaken_by_receipts_proves_no_loss() -> None:
    tx, names = _history((0, 20))
    lane = names[0], Lane.NORMAL
    tx.set_peer_incarnation("same")
    asked = {lane: 5}
    late, behind = _mark(tx, lane, 7), _mark(tx, lane, 4)
    outbox.confirm(tx, {lane: _mark(tx, lane, 15, archived=10)})
    assert outbox.welcomed(tx, "same", {lane: late}, asked) is None
    assert tx.out_cursor(*lane)[0::2] == (15, 10)
    assert outbox.welcomed(tx, "same", {lane: behind}, asked) is not None


def test_a_peer_that_lost_what_it_archived_is_gone_on_with() -> None:
    tx, names = _history((0, 20))
    lane = names[0], Lane.NORMAL
    outbox.confirm(tx, {lane: _mark(tx, lane, 15, archived=10)})
    kept = [row.event for row in tx.out_rows(*lane, 9, 100, 1 << 20)]
    found = outbox.welcomed(tx, "new", {lane: NOTHING})
    assert found is not None
    assert found.kind is Conflict.LOST
    [opened] = tx.out_segments(0)
    assert opened.segment.parent == names[0]
    again = tx.out_rows(opened.segment.name, Lane.NORMAL, 1, 100, 1 << 20)
    assert [row.event for row in again] == kept
    assert outbox.welcomed(tx, "new", {(opened.segment.name, Lane.NORMAL): NOTHING}) is None
