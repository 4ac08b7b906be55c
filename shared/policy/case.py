"""One request before its rules: where each rule is judged, and what the rules made of it so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from shared.kernel.clock import datetime_of
from shared.kernel.errors import RefusedError
from shared.pki.extensions import Encoded
from shared.pki.plan import AltName, NameAttribute
from shared.policy.circumstances import Circumstances
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest

_VALUE_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule says no: its name, the value that broke it, a sentence, and what would help."""

    rule: str
    value: str
    message: str
    remedy: str


class Outcome(StrEnum):
    """What became of one rule."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not_reached"  # what it needs has failed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of the request; ``message`` and ``remedy`` only where it failed."""

    rule: str
    outcome: Outcome
    value: str = ""
    message: str = ""
    remedy: str = ""


#: Gives message and remedy of a refusal, which most requests never need.
Say = Callable[[], tuple[str, str]]


@dataclass(slots=True)
class Case:
    """The request with all that is judged of it; later rules use what earlier ones made.

    Without ``trace`` the first refusal ends it (RefusedError); with one every rule leaves its
    verdict there and judging goes on. The rules are the same code in both.
    """

    profile: Profile
    grant: Grant | None
    request: EnrollmentRequest
    circumstances: Circumstances
    trace: list[Verdict] | None = None
    subject: tuple[NameAttribute, ...] = ()
    alt_names: tuple[AltName, ...] = ()
    not_before_us: int = 0
    not_after_us: int = 0
    extensions: tuple[Encoded, ...] = field(default=())

    def judge(self, passes: bool, rule: str, value: object, say: Say) -> bool:
        """Note the rule's verdict and give it back; raises RefusedError when nobody traces.

        ``value`` may be a function that gives it, where that costs.
        """
        if passes:
            if self.trace is not None:
                self.trace.append(Verdict(rule, Outcome.PASSED, excerpt(value)))
            return True
        message, remedy = say()
        if self.trace is None:
            raise RefusedError(rule, excerpt(value), message, remedy)
        self.trace.append(Verdict(rule, Outcome.FAILED, excerpt(value), message, remedy))
        return False


def excerpt(value: object) -> str:
    """Show what came from outside: without control characters and not without end."""
    if callable(value):
        value = value()
    text = str(value) if value not in {None, ""} else "none"
    return (text if text.isprintable() else ascii(text))[:_VALUE_CHARS_MAX]


def moment(utc_us: int) -> str:
    """Write a time in a sentence."""
    return f"{datetime_of(utc_us):%Y-%m-%d %H:%M:%SZ}"
