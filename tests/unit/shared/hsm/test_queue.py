"""The queue of one token: order, deadlines, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.hsm.queue import DEPTH_MAX, Job, TokenQueue
from shared.issuance.ports import Priority
from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import TokenUnavailableError

_MS = 1_000_000


class _Clock:
    def __init__(self) -> None:
        self.mono_ns = 0

    def now(self) -> Instant:
        return Instant(0, self.mono_ns, "boot", ClockQuality.NTP)


def _job(priority: Priority, deadline_ms: int, refused: list[Priority] | None = None) -> Job:
    def refuse(_error: TokenUnavailableError) -> None:
        assert refused is not None
        refused.append(priority)

    return Job(priority, deadline_ms * _MS, lambda: None, refuse)


def _queue(latency_ms: int) -> tuple[TokenQueue, _Clock]:
    clock = _Clock()
    queue = TokenQueue(clock)
    for _ in range(200):
        queue.measured(latency_ms * _MS)
    return queue, clock


@given(st.lists(st.sampled_from(Priority), max_size=40))
def test_most_urgent_first_and_in_order(priorities: list[Priority]):
    queue, _ = _queue(1)
    jobs = [_job(priority, 1_000) for priority in priorities]
    for job in jobs:
        queue.put(job)
    order = list(Priority)
    taken = [queue.take(0) for _ in jobs]
    assert taken == sorted(jobs, key=lambda job: order.index(job.priority))
    assert queue.take(0) is None


def test_what_would_come_too_late_is_refused_at_once():
    queue, _ = _queue(100)
    for _ in range(5):
        queue.put(_job(Priority.STATUS, 1_000))
    with pytest.raises(TokenUnavailableError) as refusal:
        queue.put(_job(Priority.STATUS, 300))
    assert refusal.value.retry_after_s == pytest.approx(0.2, abs=0.02)
    queue.put(_job(Priority.LINE, 300))  # goes ahead of them


def test_an_idle_token_takes_a_job_however_slow_it_was():
    queue, _ = _queue(60_000)
    queue.put(_job(Priority.LINE, 1_000))
    assert queue.take(0) is not None


def test_overtaken_jobs_are_refused_not_run():
    queue, clock = _queue(1)
    refused: list[Priority] = []
    queue.put(_job(Priority.AUDIT, 50, refused))
    queue.put(_job(Priority.LINE, 1_000))
    clock.mono_ns = 60 * _MS
    taken = queue.take(0)
    assert taken is not None
    assert taken.priority is Priority.LINE
    assert queue.take(0) is None
    assert refused == [Priority.AUDIT]


def test_depth_is_bounded_per_priority():
    queue, _ = _queue(0)
    for _ in range(DEPTH_MAX):
        queue.put(_job(Priority.AUDIT, 10_000))
    with pytest.raises(TokenUnavailableError):
        queue.put(_job(Priority.AUDIT, 10_000))
    queue.put(_job(Priority.LINE, 10_000))


def test_a_closed_queue_finishes_what_it_holds():
    queue, _ = _queue(1)
    queue.put(_job(Priority.LINE, 1_000))
    queue.close()
    with pytest.raises(TokenUnavailableError):
        queue.put(_job(Priority.LINE, 1_000))
    assert not queue.closed
    assert queue.take(10) is not None
    assert queue.closed
