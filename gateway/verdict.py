"""The one sentence: can this line produce, why, and what to do. Pure, so that a table tests it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.snapshot import HistoryState, LineState, Snapshot, TokenState, local_text
from shared.kernel.clock import US_PER_SECOND, ClockQuality

_DAY_US = 24 * 3600 * US_PER_SECOND
#: Share of a lifetime or quota below which the page warns.
_WARN_SHARE = 10


class Level(StrEnum):
    """What a technician needs to know first."""

    POSSIBLE = "possible"
    LIMITED = "limited"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The banner: level, why, what to do, and how many further causes there are."""

    level: Level
    why: str
    remedy: str
    further: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The sentence in the banner."""
        return _HEADLINES[self.level]


_HEADLINES = {
    Level.POSSIBLE: "Production possible",
    Level.LIMITED: "Production possible, limited",
    Level.STOPPED: "Production stopped",
}


@dataclass(frozen=True, slots=True)
class _Cause:
    """One thing that can be wrong; ``holds`` decides, ``why`` and ``remedy`` say it."""

    level: Level
    holds: Callable[[Snapshot], bool]
    why: Callable[[Snapshot], str] | str
    remedy: str


def verdict(snapshot: Snapshot) -> Verdict:
    """Judge a snapshot; the first cause of the worst level speaks, the others are listed."""
    causes = [cause for cause in _CAUSES if cause.holds(snapshot)]
    if not causes:
        return Verdict(Level.POSSIBLE, "Everything that issuing needs is in place.", "")
    first, *others = causes  # _CAUSES is ordered from what stops to what is only worth knowing
    return Verdict(
        first.level,
        _text(first, snapshot),
        first.remedy,
        tuple(_text(other, snapshot) for other in others),
    )


def _text(cause: _Cause, snapshot: Snapshot) -> str:
    return cause.why if isinstance(cause.why, str) else cause.why(snapshot)


def _now(snapshot: Snapshot) -> int:
    return snapshot.clock.now_us


def _offline_limit_passed(snapshot: Snapshot) -> bool:
    return _now(snapshot) >= snapshot.link.offline_until_us


def _offline_limit_near(snapshot: Snapshot) -> bool:
    remaining_us = snapshot.link.offline_until_us - _now(snapshot)
    return not snapshot.link.online and 0 < remaining_us < 7 * _DAY_US


def _quota_low(snapshot: Snapshot) -> bool:
    authority = snapshot.authority
    return 0 < authority.remaining * _WARN_SHARE <= authority.quota


_STOPS = (
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.history is HistoryState.CLONED,
        "Two boxes speak with this gateway's name and history.",
        "Switch off the copy and call the administrator: central decides which one goes on.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.history is HistoryState.RESTORED,
        "The database of this box is an older copy than what it has already reported.",
        "Connect central: what is missing comes back by itself. Without a link, call the "
        "administrator about “tma-gateway history continue”.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.history is HistoryState.UNKNOWN,
        "Central does not know the history of this box.",
        "Call the administrator: this gateway must join again.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.line is LineState.STOPPED,
        lambda snapshot: f"The line was stopped by an operator: {snapshot.line_reason}",
        "When the reason is gone, run “tma-gateway line continue”.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.token.state is TokenState.ABSENT,
        "The HSM token with the issuing key is not there.",
        "Plug the token in. If it is plugged in, unplug it for ten seconds and plug it in again.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.token.state is TokenState.STARTING,
        "The HSM token is being checked.",
        "Wait a few seconds; issuing goes on by itself.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.token.state is TokenState.FOREIGN,
        "The HSM token that is plugged in is not the one of this gateway.",
        "Plug in the token that belongs to this gateway.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.token.state is TokenState.LOCKED,
        "The HSM token does not accept its PIN.",
        "Do not try again: call the administrator, a token locks itself after wrong tries.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.authority.ended,
        "The administrator ended this gateway's issuing CA.",
        "Call the administrator of central.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: _now(snapshot) >= snapshot.authority.issue_until_us,
        lambda snapshot: (
            f"The issuing period ended on {local_text(snapshot.authority.issue_until_us)}."
        ),
        "Check the clock above; if it is right, call the administrator for a new issuing CA.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: (
            not snapshot.authority.granted and snapshot.clock.quality is ClockQuality.UNKNOWN
        ),
        "The clock of this box is wrong: it stands before the last answer of central.",
        "Set it, or connect a time server.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: not snapshot.authority.granted,
        "This gateway has no valid grant to issue.",
        "Connect the gateway to central, or ask the administrator for a grant.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.authority.granted and snapshot.authority.remaining == 0,
        "The quota of this gateway is used up.",
        "Connect the gateway to central and ask the administrator for a new quota.",
    ),
    _Cause(
        Level.STOPPED,
        _offline_limit_passed,
        lambda snapshot: f"The time without central is over: {snapshot.link.offline_until_why}.",
        "Connect the gateway to central.",
    ),
    _Cause(
        Level.STOPPED,
        lambda snapshot: snapshot.disk.free < snapshot.disk.reserve,
        "The disk is full; the rest is kept for revocations.",
        "Free disk space; issuing goes on by itself.",
    ),
)

_LIMITS = (
    _Cause(
        Level.LIMITED,
        _offline_limit_near,
        lambda snapshot: (
            "Without central this box stops on "
            f"{local_text(snapshot.link.offline_until_us)}: {snapshot.link.offline_until_why}."
        ),
        "Repair the connection to central before that date.",
    ),
    _Cause(
        Level.LIMITED,
        _quota_low,
        lambda snapshot: f"Only {snapshot.authority.remaining} certificates are left in the quota.",
        "Ask the administrator for a new quota.",
    ),
    _Cause(
        Level.LIMITED,
        lambda snapshot: 0 < snapshot.authority.issue_until_us - _now(snapshot) < 30 * _DAY_US,
        lambda snapshot: (
            f"The issuing period ends on {local_text(snapshot.authority.issue_until_us)}."
        ),
        "Ask the administrator for a new issuing CA before that date.",
    ),
    _Cause(
        Level.LIMITED,
        lambda snapshot: snapshot.disk.reserve <= snapshot.disk.free < snapshot.disk.warning,
        "The disk is filling up.",
        "Free disk space before issuing stops.",
    ),
    _Cause(
        Level.LIMITED,
        lambda snapshot: bool(snapshot.authority.crl_refused),
        lambda snapshot: (
            f"The revocation list cannot be signed: {snapshot.authority.crl_refused} Devices learn "
            "of revocations by OCSP only."
        ),
        "Call the administrator of central: a new issuing CA (renew-authority) starts an empty "
        "list, and crl.keep_expired_days says how long ended certificates stay on it.",
    ),
    _Cause(
        Level.LIMITED,
        lambda snapshot: (snapshot.authority.crl_next_update_us or _now(snapshot)) < _now(snapshot),
        "The revocation list of this gateway is out of date; some devices may refuse certificates.",
        "The list is renewed by itself once the token is ready; if not, call the administrator.",
    ),
    _Cause(
        Level.LIMITED,
        lambda snapshot: snapshot.clock.quality is ClockQuality.UNKNOWN,
        "The clock of this box is in doubt.",
        "Compare the time above with a watch; connect a time server.",
    ),
)

_REMARKS = (
    _Cause(
        Level.POSSIBLE,
        lambda snapshot: not snapshot.link.online,
        "Central is out of reach; everything is kept here and reported when it is back.",
        "Nothing needs to be done at the line. Tell the network's administrator.",
    ),
)

_CAUSES = _STOPS + _LIMITS + _REMARKS
