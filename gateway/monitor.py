"""What the box itself says: free disk, whether the clock is synchronised, and the service manager.

Everything else on the page comes from the database, the token and the link.
"""

import ctypes
import os
import shutil
import socket
from pathlib import Path

from gateway.snapshot import DiskView
from shared.kernel.clock import ClockQuality

_MEGABYTE = 1_000_000
_TIMEX_BYTES = 512  # struct timex has 208 bytes on 64-bit Linux; the rest stays untouched
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def disk(path: Path, warning_mb: int, reserve_mb: int) -> DiskView:
    """Measure the file system of ``path``."""
    usage = shutil.disk_usage(path)
    return DiskView(
        free=usage.free,
        total=usage.total,
        warning=warning_mb * _MEGABYTE,
        reserve=reserve_mb * _MEGABYTE,
    )


def clock_quality() -> ClockQuality:
    """Ask the kernel whether a time service keeps the clock (adjtimex(2), read only)."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: nothing is set
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return ClockQuality.NTP if 0 <= state < _TIME_ERROR else ClockQuality.RTC


def notify(message: str) -> None:
    """Tell systemd how the service is (sd_notify(3)); without systemd this does nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(message.encode())
