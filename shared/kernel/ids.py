"""Identifiers, made from injected time and randomness."""

from collections.abc import Callable
from uuid import UUID

from shared.kernel.clock import Instant

#: ``random(n)`` gives n bytes from a cryptographic source (``os.urandom`` in production).
Random = Callable[[int], bytes]


def uuid7(now: Instant, random: Random) -> str:
    """Make a UUIDv7 (RFC 9562 §5.7): 48 bits of wall-clock milliseconds, then random bits."""
    milliseconds = max(now.utc_us, 0) // 1_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(random(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def random_serial(random: Random) -> int:
    """Draw a certificate serial number of 128 random bits, never zero (RFC 5280 §4.1.2.2)."""
    while (serial := int.from_bytes(random(16), "big")) == 0:
        pass
    return serial


def serial_text(serial: int) -> str:
    """Write a serial as it is stored and shown everywhere: lower-case hex, at least 32 digits."""
    return f"{serial:032x}"


def random_name(random: Random) -> str:
    """Name a segment or an incarnation: 128 random bits in hex."""
    return random(16).hex()
