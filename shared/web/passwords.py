"""Passwords: what a good one is (NIST SP 800-63B §5.1.1.2) and how it is kept.

Length counts, and that nobody finds it on the first page of a list. No rule about kinds of
characters, and no expiry: both make people choose worse ones.
"""

from importlib import resources

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.kernel.errors import BadRequestError

CHARS_MIN = 12
CHARS_MAX = 256
_KINDS_MIN = 4  # "aaaaaaaaaaaa" is long and no password

_hasher = PasswordHasher()  # Argon2id with the second recommended parameters of RFC 9106
#: Often used passwords of at least CHARS_MIN characters, lower case; shorter ones are refused.
_COMMON = frozenset(
    (resources.files("shared.web") / "common_passwords.txt").read_text("ascii").split()
)


def require_good(password: str, name: str) -> None:
    """Raise BadRequestError, with what to do better, for a password that is easily guessed."""
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        raise BadRequestError(
            f"A password has {CHARS_MIN} to {CHARS_MAX} characters.",
            remedy="Take four or five words that have nothing to do with each other.",
            pointer="/password",
        )
    low = password.lower()
    stem = low.strip("0123456789!.?-_ ")
    guessable = low in _COMMON or stem in _COMMON or len(set(low)) <= _KINDS_MIN
    if guessable or (name and name.lower() in low):
        raise BadRequestError(
            "This password would be among the first that somebody tries.",
            remedy="Take four or five words that have nothing to do with each other or with you.",
            pointer="/password",
        )


def encode(password: str) -> str:
    """Hash for storage; takes some 50 ms and 64 MiB, so never on the event loop."""
    return _hasher.hash(password)


def matches(encoded: str, password: str) -> bool:
    """Check a password; an empty or damaged hash matches none."""
    try:
        return _hasher.verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False


def is_dated(encoded: str) -> bool:
    """Tell whether a hash was made with other parameters than new ones are."""
    return _hasher.check_needs_rehash(encoded)
