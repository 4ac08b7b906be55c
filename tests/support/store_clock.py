"""A clock for tests: it stands still until told to go on."""

from shared.kernel.clock import ClockQuality, Instant

START_US = 1_800_000_000_000_000


class ManualClock:
    """Time moves by ``advance`` only."""

    def __init__(self, utc_us: int = START_US) -> None:
        self.utc_us = utc_us
        self.quality = ClockQuality.NTP

    def now(self) -> Instant:
        return Instant(self.utc_us, self.utc_us * 1000, "boot-1", self.quality)

    def advance(self, seconds: float) -> None:
        self.utc_us += int(seconds * 1_000_000)
