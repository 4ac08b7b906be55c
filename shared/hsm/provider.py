"""What keeps keys: the interface of providers. All calls come from one thread."""

from dataclasses import dataclass
from typing import Protocol

from shared.kernel.errors import UnavailableError
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.keys import KeyType


class TokenLostError(UnavailableError):
    """Drop the token and look for it again: it does not work any more.

    ``used`` tells whether the key may have been used before it was lost.
    """

    def __init__(self, reason: str, *, used: bool = False) -> None:
        """Take the reason for the log, e.g. the provider's error name."""
        super().__init__(reason)
        self.used = used


class PinRefusedError(UnavailableError):
    """Never try again by itself: the PIN is wrong, locked or expired."""


class SeveralTokensError(UnavailableError):
    """Name the serial number in the URI: more than one token fits it."""


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token as it shows itself without any PIN.

    ``pin_doubt``: the token says that the last try of its PIN was wrong. ``public_keys`` holds the
    DER SubjectPublicKeyInfo of each public key object.
    """

    label: str
    serial: str
    pin_doubt: bool
    public_keys: frozenset[bytes]


class Provider(Protocol):
    """A token, or what stands for one. Each call may raise TokenLostError."""

    def find(self) -> FoundToken | None:
        """Look for the token of the URI; raises SeveralTokensError."""
        ...

    def present(self) -> bool:
        """Check quickly that the token in use is still there."""
        ...

    def login(self, secret: bytes) -> None:
        """Open the token that ``find`` gave; raises PinRefusedError."""
        ...

    def keys(self) -> dict[str, bytes]:
        """List the key pairs of known types: label to DER SubjectPublicKeyInfo."""
        ...

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        """Sign data with the key of this label; gives the signature value as documents hold it."""
        ...

    def generate(self, key: str, kind: KeyType) -> bytes:
        """Make a key that cannot leave; gives its DER SubjectPublicKeyInfo.

        Raises BadRequestError for a type that is not made here.
        """
        ...

    def drop(self) -> None:
        """Forget the token in use; never fails."""
        ...
