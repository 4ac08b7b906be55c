"""What is said about a revocation by query: the order, its estimate, how far it is.

Apart from ``shared.issuance.mass_revocation``, which carries it out: the command line needs only
this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from shared.policy.rights import Scope
from shared.policy.selection import Selection


class Wanted(NamedTuple):
    """An order: what to revoke, why, within which rights, and who asks."""

    selection: Selection
    reason: str
    scopes: tuple[Scope, ...]
    actor: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An order that was accepted. Times are UTC µs; ids and position are those of the inventory.

    ``state``: waiting (for a second person), running, done, cancelled. ``found`` were good or held
    at the beginning; ``revoked`` is how many this operation has revoked.
    """

    operation_id: str
    wanted: Wanted
    state: str
    found: int
    revoked: int
    position: int
    through: int
    created_at_us: int
    updated_at_us: int


class Estimate(NamedTuple):
    """What an order would do to one CA: certificates revoked, and the size of its next CRL."""

    ca_id: str
    certificates: int
    crl_bytes: int


class Revoking(Protocol):
    """Revocation by query (shared.issuance.mass_revocation)."""

    async def estimate(self, wanted: Wanted) -> Sequence[Estimate]:
        """Say what an order would do."""
        ...

    async def begin(self, operation_id: str, wanted: Wanted) -> Operation:
        """Accept an order; the same id with the same order gives the same operation."""
        ...

    async def find(self, operation_id: str) -> Operation:
        """Find an operation; raises NotFoundError."""
        ...

    async def step(self) -> float:
        """Carry out what was accepted, then wait for more; give the seconds to the next call."""
        ...

    async def cancel(self, operation_id: str) -> Operation:
        """Stop an operation where it is; raises NotFoundError."""
        ...
