"""What EST needs from outside, each port as small as its need; composition roots plug in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from shared.enroll import made_keys
from shared.enroll.key_maker import KeyMaker
from shared.enroll.made_keys import Issuance, Kept, Status
from shared.enroll.refusing import Refusals
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.ports import Rules
from shared.enroll.rest.ports import AuthorityRow, CertificateRow, RestPorts
from shared.kernel.clock import Clock
from shared.kernel.ids import Random
from shared.pki.cms import Signer
from shared.policy.profile import Profile


class Reads(made_keys.Reads, Protocol):
    """What is looked up."""

    async def certificate(self, ca_id: str, serial: str) -> CertificateRow | None:
        """Find one certificate."""
        ...

    async def authorities(self) -> Sequence[AuthorityRow]:
        """Give the CAs that are known here."""
        ...

    async def cross_certificates(self) -> Sequence[bytes]:
        """Give the cross-certificates and links of roll-overs that are known here, DER."""
        ...


@dataclass(frozen=True, slots=True)
class EstPorts:
    """Everything that the routes need.

    ``profile`` finds a profile in force (NotFoundError); ``chain`` gives the DER certificates from
    the CA that issues for a profile to its root, also while its token is away; ``signer`` is this
    server as TLS clients know it: it signs what it made for them.
    """

    issuance: Issuance
    status: Status
    refusals: Refusals
    reads: Reads
    kept: Kept
    maker: KeyMaker
    doorkeeper: Doorkeeper
    rules: Rules
    clock: Clock
    random: Random
    profile: Callable[[str], Profile]
    chain: Callable[[str], tuple[bytes, ...]]
    signer: Callable[[], Signer]

    @classmethod
    def of_rest(
        cls,
        rest: RestPorts,
        *,
        doorkeeper: Doorkeeper,
        rules: Rules,
        random: Random,
        profile: Callable[[str], Profile],
        chain: Callable[[str], tuple[bytes, ...]],
        signer: Callable[[], Signer],
    ) -> Self:
        """Share what REST has."""
        return cls(
            issuance=rest.issuance,
            status=rest.status,
            refusals=rest.refusals,
            reads=rest.reads,
            kept=rest.kept,
            maker=rest.maker,
            doorkeeper=doorkeeper,
            rules=rules,
            clock=rest.clock,
            random=random,
            profile=profile,
            chain=chain,
            signer=signer,
        )
