"""What admission needs from outside; composition roots plug in."""

from typing import Protocol

from shared.policy.access import Access, Alias


class Rules(Protocol):
    """What central ordered about who may enroll, and what this box switched on or off."""

    @property
    def access(self) -> Access:
        """The document in force."""
        ...

    def alias(self, name: str) -> Alias:
        """Find an alias that is on; raises NotFoundError naming those that are."""
        ...


class Code(Protocol):
    """A one-time code as it is kept: its hash names it."""

    @property
    def serial(self) -> str: ...  # noqa: D102
    @property
    def alias(self) -> str: ...  # noqa: D102  # "*": any
    @property
    def expires_at_us(self) -> int: ...  # noqa: D102


class Codes(Protocol):
    """The one-time codes that this box accepts; spending one is the ledger's."""

    async def code(self, digest: bytes) -> Code | None:
        """Find a code by the SHA-256 of its text, a spent one too."""
        ...
