"""What EST needs from outside, each port as small as its need; composition roots plug in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from shared.enroll.refusing import Refusals
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.ports import Rules
from shared.enroll.rest.ports import AuthorityRow, CertificateRow, KeptKey, RestPorts
from shared.issuance.ports import CertificateRecord
from shared.issuance.service import Issued
from shared.kernel.clock import Clock
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest


class Issuance(Protocol):
    """The use case (shared.issuance.service)."""

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate, or give the one that an equal request got."""
        ...


class Status(Protocol):
    """Revocation (shared.issuance.status)."""

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good."""
        ...


class Reads(Protocol):
    """What is looked up."""

    async def certificate(self, ca_id: str, serial: str) -> CertificateRow | None:
        """Find one certificate."""
        ...

    async def certificate_of(self, idempotency_key: str) -> CertificateRow | None:
        """Find the newest certificate that was issued under this key of ours."""
        ...

    async def authorities(self) -> Sequence[AuthorityRow]:
        """Give the CAs that are known here."""
        ...

    async def cross_certificates(self) -> Sequence[bytes]:
        """Give the cross-certificates and links of roll-overs that are known here, DER."""
        ...


class Kept(Protocol):
    """Server-made keys that wait for a retry."""

    async def keep_key(self, name: str, private_key: bytes, *, after: int = 0) -> KeptKey:
        """Give the key that is kept under this name, else keep this one for 15 minutes, wrapped."""
        ...


@dataclass(frozen=True, slots=True)
class EstPorts:
    """Everything that the routes need.

    ``profile`` finds a profile in force (NotFoundError); ``chain`` gives the DER certificates from
    the CA that issues for a profile to its root, also while its token is away.
    """

    issuance: Issuance
    status: Status
    refusals: Refusals
    reads: Reads
    kept: Kept
    doorkeeper: Doorkeeper
    rules: Rules
    clock: Clock
    profile: Callable[[str], Profile]
    chain: Callable[[str], tuple[bytes, ...]]

    @classmethod
    def of_rest(
        cls,
        rest: RestPorts,
        *,
        doorkeeper: Doorkeeper,
        rules: Rules,
        profile: Callable[[str], Profile],
        chain: Callable[[str], tuple[bytes, ...]],
    ) -> Self:
        """Share what REST has."""
        return cls(
            issuance=rest.issuance,
            status=rest.status,
            refusals=rest.refusals,
            reads=rest.reads,
            kept=rest.kept,
            doorkeeper=doorkeeper,
            rules=rules,
            clock=rest.clock,
            profile=profile,
            chain=chain,
        )
