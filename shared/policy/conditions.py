"""Conditions on a request: who asks, from where, when, with which metadata.

One document serves profiles (it must hold), and rules (what they apply to, what they demand).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from shared.kernel import limits
from shared.kernel.clock import Instant, datetime_of
from shared.policy import patterns
from shared.policy.document import Document
from shared.policy.patterns import Pattern
from shared.policy.request import EnrollmentRequest, Operation

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
MetadataKey = Annotated[str, Field(min_length=1, max_length=limits.METADATA_KEY_CHARS_MAX)]
Text = Annotated[str, Field(min_length=1, max_length=limits.METADATA_VALUE_CHARS_MAX)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PrincipalKind = Literal["station", "cert", "user", "device", "code"]

_WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def _clock_time(text: str) -> str:
    if not _CLOCK_TIME.fullmatch(text):
        raise ValueError("must be a time from 00:00 to 24:00")
    return text


_ClockTime = Annotated[str, AfterValidator(_clock_time)]


class Surroundings(Protocol):
    """What a condition looks at beside the request."""

    @property
    def now(self) -> Instant: ...  # noqa: D102
    @property
    def ca_id(self) -> str: ...  # noqa: D102
    @property
    def ca_role(self) -> str: ...  # noqa: D102


class TextTest(Document):
    """One pair that must be there, and what its value must be; all that is given must hold."""

    key: MetadataKey
    equals: Text | None = None
    one_of: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    pattern: Pattern | None = None

    def passes(self, value: str | None) -> bool:
        """Tell if the value is there and as wanted."""
        return (
            value is not None
            and (self.equals is None or value == self.equals)
            and (not self.one_of or value in self.one_of)
            and (self.pattern is None or patterns.matches(self.pattern, value))
        )

    @property
    def wish(self) -> str:
        """Say what is wanted."""
        wanted = [f"“{self.equals}”"] if self.equals else []
        if self.one_of:
            wanted.append(f"one of {', '.join(self.one_of)}")
        if self.pattern:
            wanted.append(f"like {self.pattern}")
        return f"{self.key} {' and '.join(wanted) or 'with any value'}"


class TimeWindow(Document):
    """Hours of some weekdays in UTC; an end at or before the start lies on the next day."""

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)] = _WEEK
    start: _ClockTime = "00:00"
    end: _ClockTime = "24:00"

    @property
    def words(self) -> str:
        """Say it in words."""
        days = "" if self.days == _WEEK else f"{' '.join(self.days)} "
        return f"{days}{self.start} to {self.end}"

    def __contains__(self, moment: datetime) -> bool:
        """Tell if the moment lies in the window."""
        time = f"{moment:%H:%M}"
        today, yesterday = _WEEK[moment.weekday()], _WEEK[moment.weekday() - 1]
        if self.start < self.end:
            return today in self.days and self.start <= time < self.end
        return (today in self.days and time >= self.start) or (
            yesterday in self.days and time < self.end
        )


class Condition(Document):
    """What must hold of a request; every field that is given must, an empty one always does.

    ``stations`` are names, ``cas`` ids or roles of the CA that would sign; ``metadata`` looks at
    the request's metadata, ``device`` at the device's record. Times are UTC µs.
    """

    profiles: Annotated[tuple[Slug, ...], Field(max_length=100)] = ()
    cas: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    principals: Annotated[tuple[PrincipalKind, ...], Field(max_length=8)] = ()
    stations: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    aliases: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    protocols: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    operations: Annotated[tuple[Operation, ...], Field(max_length=8)] = ()
    metadata: Annotated[tuple[TextTest, ...], Field(max_length=32)] = ()
    device: Annotated[tuple[TextTest, ...], Field(max_length=32)] = ()
    times: Annotated[tuple[TimeWindow, ...], Field(max_length=32)] = ()
    not_before_us: Annotated[int, Field(ge=0)] | None = None
    not_after_us: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (self.not_before_us or 0) >= (self.not_after_us or 1 << 62):
            raise ValueError("not_before_us must lie before not_after_us")
        return self

    def holds(self, request: EnrollmentRequest, around: Surroundings) -> bool:
        """Tell if everything that is given holds."""
        return all(passes for _, _, _, passes in self.verdicts(request, around))

    def verdicts(
        self, request: EnrollmentRequest, around: Surroundings
    ) -> Iterator[tuple[str, str, str, bool]]:
        """Judge each field that is given: (field, value found, what is wanted, if it holds)."""
        for name, wanted, judge in self._tests:
            value, passes = judge(request, around)
            yield name, value, wanted, passes

    @cached_property
    def _tests(self) -> tuple[tuple[str, str, "_Judge"], ...]:
        return tuple(self._given())

    def _given(self) -> Iterator[tuple[str, str, "_Judge"]]:
        """Give a test per field that is given, once per document."""
        for name, look in _LOOKS.items():
            if allowed := getattr(self, name):
                yield name, ", ".join(allowed), _among(frozenset(allowed), look)
        for test in self.metadata:
            yield f"metadata.{test.key}", test.wish, _tested(test, _metadata)
        for test in self.device:
            yield f"device.{test.key}", test.wish, _tested(test, _record)
        if self.times:
            yield "times", f"{', '.join(window.words for window in self.times)} UTC", self._in_time
        if self.not_before_us is not None or self.not_after_us is not None:
            yield "period", self._period, self._in_period

    @property
    def _period(self) -> str:
        first, last = self.not_before_us, self.not_after_us
        words = [f"from {datetime_of(first):%Y-%m-%d %H:%MZ}"] if first is not None else []
        if last is not None:
            words.append(f"until {datetime_of(last):%Y-%m-%d %H:%MZ}")
        return " ".join(words)

    def _in_time(self, request: EnrollmentRequest, around: Surroundings) -> tuple[str, bool]:
        del request
        moment = datetime_of(around.now.utc_us)
        return f"{moment:%a %H:%M}", any(moment in window for window in self.times)

    def _in_period(self, request: EnrollmentRequest, around: Surroundings) -> tuple[str, bool]:
        del request
        now_us = around.now.utc_us
        inside = (self.not_before_us or 0) <= now_us < (self.not_after_us or 1 << 62)
        return f"{datetime_of(now_us):%Y-%m-%d %H:%MZ}", inside


_Judge = Callable[[EnrollmentRequest, Surroundings], tuple[str, bool]]
_Look = Callable[[EnrollmentRequest, Surroundings], tuple[str, ...]]

_LOOKS: Mapping[str, _Look] = {
    "profiles": lambda request, _around: (request.profile,),
    "cas": lambda _request, around: (around.ca_id, around.ca_role),
    "principals": lambda request, _around: (request.principal.partition(":")[0],),
    "stations": lambda request, _around: (station_of(request) or "none",),
    "aliases": lambda request, _around: (request.alias,),
    "protocols": lambda request, _around: (request.protocol,),
    "operations": lambda request, _around: (request.operation.value,),
}


def station_of(request: EnrollmentRequest) -> str | None:
    """Name the station that asks, if one does."""
    kind, _, name = request.principal.partition(":")
    return name if kind == "station" else None


def _among(allowed: frozenset[str], look: _Look) -> _Judge:
    def judge(request: EnrollmentRequest, around: Surroundings) -> tuple[str, bool]:
        found = look(request, around)
        return " ".join(filter(None, found)) or "none", not allowed.isdisjoint(found)

    return judge


def _metadata(key: str, request: EnrollmentRequest) -> str | None:
    return request.metadata.get(key)


def _record(key: str, request: EnrollmentRequest) -> str | None:
    return request.record.value(key) if request.record else None


def _tested(test: TextTest, look: Callable[[str, EnrollmentRequest], str | None]) -> _Judge:
    def judge(request: EnrollmentRequest, around: Surroundings) -> tuple[str, bool]:
        del around
        value = look(test.key, request)
        return value or "none", test.passes(value)

    return judge
