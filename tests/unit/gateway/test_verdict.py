"""The banner's sentence: a table of what can be wrong."""

import time
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from gateway.snapshot import (
    HistoryState,
    LineState,
    Snapshot,
    TokenState,
    TokenView,
    local_text,
)
from gateway.verdict import Level, verdict
from shared.kernel.clock import ClockQuality, datetime_of
from shared.pki.plan import NO_EXPIRY_US
from tests.support.gateway_snapshots import DAY_US, HEALTHY, NOW_US


def changed(**parts: dict[str, object]) -> Snapshot:
    """Change fields of the healthy snapshot's parts."""
    return replace(
        HEALTHY, **{name: replace(getattr(HEALTHY, name), **part) for name, part in parts.items()}
    )


def offline(until_us: int) -> Snapshot:
    return changed(link={"online": False, "offline_until_us": until_us})


CASES = [
    ("healthy", HEALTHY, Level.POSSIBLE, "Everything"),
    ("offline", offline(NOW_US + 90 * DAY_US), Level.POSSIBLE, "out of reach"),
    ("offline, soon over", offline(NOW_US + DAY_US), Level.LIMITED, "Without central"),
    ("offline, over", offline(NOW_US), Level.STOPPED, "time without central is over"),
    ("cloned", replace(HEALTHY, history=HistoryState.CLONED), Level.STOPPED, "Two boxes"),
    ("restored", replace(HEALTHY, history=HistoryState.RESTORED), Level.STOPPED, "older copy"),
    ("unknown", replace(HEALTHY, history=HistoryState.UNKNOWN), Level.STOPPED, "does not know"),
    (
        "line stopped",
        replace(HEALTHY, line=LineState.STOPPED, line_reason="mould change"),
        Level.STOPPED,
        "mould change",
    ),
    ("no token", replace(HEALTHY, token=TokenView(TokenState.ABSENT)), Level.STOPPED, "not there"),
    (
        "no CRL",
        changed(authority={"crl_refused": "It is too large."}),
        Level.LIMITED,
        "cannot be signed: It is too large.",
    ),
    (
        "token starts",
        replace(HEALTHY, token=TokenView(TokenState.STARTING)),
        Level.STOPPED,
        "check",
    ),
    (
        "foreign token",
        replace(HEALTHY, token=TokenView(TokenState.FOREIGN)),
        Level.STOPPED,
        "not the one",
    ),
    ("locked token", replace(HEALTHY, token=TokenView(TokenState.LOCKED)), Level.STOPPED, "PIN"),
    ("CA ended", changed(authority={"ended": True}), Level.STOPPED, "ended this gateway"),
    (
        "issuing period over",
        changed(authority={"issue_until_us": NOW_US}),
        Level.STOPPED,
        "issuing period ended",
    ),
    (
        "issuing period nearly over",
        changed(authority={"issue_until_us": NOW_US + 29 * DAY_US}),
        Level.LIMITED,
        "issuing period ends",
    ),
    ("no grant", changed(authority={"granted": False}), Level.STOPPED, "no valid grant"),
    ("quota used", changed(authority={"used": 100_000}), Level.STOPPED, "used up"),
    ("quota overdrawn", changed(authority={"used": 100_001}), Level.STOPPED, "used up"),
    ("quota low", changed(authority={"used": 90_000}), Level.LIMITED, "Only 10000"),
    ("quota not low", changed(authority={"used": 89_999}), Level.POSSIBLE, "Everything"),
    ("disk full", changed(disk={"free": 127_999_999}), Level.STOPPED, "disk is full"),
    ("disk filling", changed(disk={"free": 128_000_000}), Level.LIMITED, "filling up"),
    ("old CRL", changed(authority={"crl_next_update_us": NOW_US - 1}), Level.LIMITED, "revocation"),
    ("no CRL yet", changed(authority={"crl_next_update_us": None}), Level.POSSIBLE, "Everything"),
    ("clock", changed(clock={"quality": ClockQuality.UNKNOWN}), Level.LIMITED, "clock"),
]


@pytest.mark.parametrize(
    ("snapshot", "level", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_cause_gives_its_level_and_says_why(snapshot: Snapshot, level: Level, why: str):
    judged = verdict(snapshot)
    assert judged.level is level
    assert why in judged.why


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_whoever_is_told_of_a_cause_is_told_what_to_do(case: tuple[str, Snapshot, Level, str]):
    judged = verdict(case[1])
    assert bool(judged.remedy) == (not judged.why.startswith("Everything"))


def test_what_stops_speaks_first_and_the_rest_is_listed():
    snapshot = replace(
        offline(NOW_US + DAY_US),
        token=TokenView(TokenState.ABSENT),
        line=LineState.STOPPED,
        line_reason="shift change",
    )
    judged = verdict(snapshot)
    assert judged.level is Level.STOPPED
    assert "shift change" in judged.why
    assert len(judged.further) == 3


def test_the_three_headlines_differ():
    headlines = {verdict(case[1]).headline for case in CASES}
    assert headlines == {
        "Production possible",
        "Production possible, limited",
        "Production stopped",
    }


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Tokyo"])
def test_times_are_those_of_the_line_and_a_ca_may_have_no_end(monkeypatch, zone: str):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        there = datetime_of(NOW_US).astimezone(ZoneInfo(zone))
        assert local_text(NOW_US) == f"{there:%Y-%m-%d %H:%M}"
        assert local_text(NO_EXPIRY_US) == "never"
    finally:
        monkeypatch.undo()
        time.tzset()
