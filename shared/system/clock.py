"""The real clock."""

import time
from pathlib import Path

from shared.kernel.clock import ClockQuality, Instant

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """Reads the operating system's clocks; quality is what the operator or NTP watcher set."""

    def __init__(self, quality: ClockQuality = ClockQuality.RTC) -> None:
        """Read the boot id once: it cannot change while this process runs."""
        self.quality = quality
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    def now(self) -> Instant:
        """Read wall and monotonic time together."""
        return Instant(time.time_ns() // 1_000, time.monotonic_ns(), self._boot_id, self.quality)
