"""Time as an argument: the core never asks the operating system what time it is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

US_PER_SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ClockQuality(StrEnum):
    """How well the wall clock is known; recorded with each event (design.md §4, *Clock*)."""

    NTP = "ntp"  # a quorum of time servers agrees
    SIGNED = "signed"  # not before a time that central signed, not contradicted since
    RTC = "rtc"  # battery clock, monotonic since boot, no confirmation
    UNKNOWN = "unknown"  # may be wrong by years


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of the clock: wall time in UTC µs, monotonic ns of the named boot, quality."""

    utc_us: int
    mono_ns: int
    boot_id: str
    quality: ClockQuality

    @property
    def datetime(self) -> datetime:
        """The wall time as an aware UTC datetime."""
        return datetime_of(self.utc_us)


class Clock(Protocol):
    """The port through which every part learns the time."""

    def now(self) -> Instant:
        """Read wall and monotonic time together."""
        ...


def datetime_of(utc_us: int) -> datetime:
    """Turn UTC microseconds since 1970 into an aware datetime."""
    return _EPOCH + timedelta(microseconds=utc_us)


def utc_us_of(moment: datetime) -> int:
    """Turn an aware datetime into UTC microseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
