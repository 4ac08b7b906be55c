"""What is kept of OCSP answers, and above all what is not."""

import asyncio
from typing import Any

import pytest

from shared.kernel.clock import ClockQuality, Instant
from shared.validation.answers import HOLDS_US, Answer, Answers

_SIGNER: Any = object()
_ROBOT = ("ca", "01")


class StillClock:
    def __init__(self) -> None:
        self.utc_us = 1_000_000_000_000

    def now(self) -> Instant:
        return Instant(self.utc_us, 0, "boot", ClockQuality.NTP)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def answers(clock: StillClock) -> Answers:
    return Answers(clock)


def answer(clock: StillClock, der: bytes = b"good") -> Answer:
    return Answer("ca", der, _SIGNER, clock.utc_us)


def keep(answers: Answers, clock: StillClock, request: bytes = b"?", serial: str = "01") -> None:
    with answers.filling(("ca", serial)) as fill:
        answers.keep(fill, request, answer(clock), lambda: answer(clock, b"again"))


def test_an_answer_is_found_until_half_of_its_life(answers: Answers, clock: StillClock):
    keep(answers, clock)
    now_us = clock.utc_us
    assert answers.find(b"?", now_us + HOLDS_US // 2 - 1)
    assert answers.find(b"?", now_us + HOLDS_US // 2) is None
    assert answers.find(b"?", now_us) is None  # and forgotten


def test_a_clock_that_fell_back_finds_nothing(answers: Answers, clock: StillClock):
    keep(answers, clock)
    assert answers.find(b"?", clock.utc_us - 1) is None


def test_a_change_forgets(answers: Answers, clock: StillClock):
    keep(answers, clock)
    keep(answers, clock, b"other", "02")
    answers.before_commit([_ROBOT])
    assert answers.find(b"?", clock.utc_us) is None
    assert answers.find(b"other", clock.utc_us)
    answers.after_commit([_ROBOT])
    keep(answers, clock)
    assert answers.find(b"?", clock.utc_us)


def test_what_was_read_before_a_change_is_not_kept_after_it(answers: Answers, clock: StillClock):
    with answers.filling(_ROBOT) as fill:
        answers.before_commit([_ROBOT])
        answers.after_commit([_ROBOT])
        answers.keep(fill, b"?", answer(clock), lambda: answer(clock))
    assert len(answers) == 0


def test_nothing_is_kept_while_the_commit_runs(answers: Answers, clock: StillClock):
    answers.before_commit([_ROBOT, _ROBOT])
    with answers.filling(_ROBOT) as fill:
        answers.after_commit([_ROBOT, _ROBOT])
        answers.keep(fill, b"?", answer(clock), lambda: answer(clock))
    assert len(answers) == 0


def test_the_least_recently_asked_go_first(clock: StillClock):
    answers = Answers(clock, bytes_max=8_000)
    for number in range(8):
        keep(answers, clock, b"%d" % number, f"{number:02}")
        answers.find(b"0", clock.utc_us)
    kept = [n for n in range(8) if answers.find(b"%d" % n, clock.utc_us)]
    assert kept[0] == 0
    assert kept[1:] == list(range(8 - len(kept) + 1, 8))
    assert len(kept) == len(answers) < 8


def test_only_a_few_ways_to_ask_for_one_certificate_are_kept(answers: Answers, clock: StillClock):
    for number in range(50):
        keep(answers, clock, b"%d" % number)
    assert len(answers) == 4


def test_what_is_asked_for_is_signed_again_and_the_rest_dropped(
    answers: Answers, clock: StillClock
):
    keep(answers, clock, b"hot", "01")
    keep(answers, clock, b"cold", "02")
    answers.find(b"hot", clock.utc_us)
    clock.utc_us += HOLDS_US // 2 - 1_000_000
    assert asyncio.run(answers.renew()) == 1
    found = answers.find(b"hot", clock.utc_us)
    assert found is not None
    assert found.der == b"again"
    assert len(answers) == 1


def test_a_change_during_a_renewal_wins(answers: Answers, clock: StillClock):
    def sign() -> Answer:
        answers.before_commit([_ROBOT])
        answers.after_commit([_ROBOT])
        return answer(clock, b"stale")

    with answers.filling(_ROBOT) as fill:
        answers.keep(fill, b"?", answer(clock), sign)
    answers.find(b"?", clock.utc_us)
    clock.utc_us += HOLDS_US // 2 - 1_000_000
    asyncio.run(answers.renew())
    assert len(answers) == 0
