"""Who answers OCSP at central: for its own CAs, and for each gateway CA with a pinned key.

The responders of central's own CAs live in memory: their keys are made at each start and certified
for a few days. Those for gateway CAs are kept, because only the gateway can certify them.
"""

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, select

from central.authority import plans
from central.authority.hierarchy import Hierarchy, certify
from central.authority.join import responder_key_name
from central.inventory.reads import PublicReads
from central.sync import fleet
from central.sync.apply import responder_fact
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.ports import Purpose
from shared.kernel.clock import Clock, utc_us_of
from shared.kernel.errors import UnavailableError
from shared.kernel.ids import Random
from shared.pki import keys
from shared.pki.ocsp import State, Status
from shared.pki.partitions import Partition
from shared.store.database import Database
from shared.store.link import LACKING
from shared.store.reads import AuthorityRow, CrlRow
from shared.store.schema import ca, fact, gateway
from shared.store.vault import Vault
from shared.sync.lineage import Verdict

_FACT = select(fact.c.value).where(fact.c.name == bindparam("wanted"))
_OWNER = (
    select(
        ca.c.gateway,
        ca.c.state,
        gateway.c.state.label("gateway_state"),
        fact.c.value.label("lacking"),
    )
    .outerjoin(gateway, gateway.c.name == ca.c.gateway)
    .outerjoin(fact, fact.c.name == LACKING + ca.c.gateway)
    .where(ca.c.ca_id == bindparam("wanted"))
)


@dataclass(frozen=True, slots=True)
class Responder:
    """A delegated responder of one CA (RFC 6960 §4.2.2.2)."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class CentralValidation:
    """What central knows of status; implements ``shared.validation.ports.Validation``."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        hierarchy: Hierarchy,
        clock: Clock,
        random: Random,
        *,
        never_issued: State,
    ) -> None:
        """Take where status is known, who answers, and what our own CAs never issued counts as."""
        self._never_issued = never_issued
        self._database = database
        self._reads = PublicReads(database)
        self._vault = vault
        self._hierarchy = hierarchy
        self._clock = clock
        self._random = random
        self._responders: dict[str, Responder] = {}

    async def authorities(self) -> list[AuthorityRow]:
        """Give the CAs that relying parties may ask about."""
        return await self._reads.authorities()

    async def ca_certificate(self, ca_id: str) -> bytes | None:
        """Give the DER certificate of one CA."""
        return await self._reads.ca_certificate(ca_id)

    async def current_crl(self, ca_id: str) -> CrlRow | None:
        """Give the newest complete CRL of a CA."""
        return await self._reads.current_crl(ca_id)

    async def current_partition(self, ca_id: str, partition: Partition) -> CrlRow | None:
        """Give the newest CRL of a partition, if the CA has or had it."""
        return await self._reads.current_partition(ca_id, partition)

    async def current_delta(self, ca_id: str) -> CrlRow | None:
        """Give the newest delta CRL of a CA, if it has deltas."""
        return await self._reads.current_delta(ca_id)

    async def ocsp_status(self, ca_id: str, serial: str) -> Status:
        """Give the status; a device that was enrolled offline just now must work.

        So serials of a gateway CA that are not heard of yet are good while the gateway is
        trusted, and unknown once it is cloned, restored or ended (design.md §4). Raises
        UnavailableError while this central, put back from a backup, may lack revocations.
        """
        owner = await self._database.lookups.one(_OWNER, {"wanted": ca_id})
        if _lacking(owner):
            raise UnavailableError("Central has yet to learn again what this gateway holds.")
        return await self._reads.ocsp_status(ca_id, serial, self._unlisted(ca_id, owner))

    async def responder(self, ca_id: str) -> Responder | None:
        """Give the responder of a CA; raises UnavailableError while none is certified."""
        known = self._responders.get(ca_id)
        if known is not None and not self._stale(known):
            return known
        own = self._hierarchy.find(ca_id)
        made = await (self._certified(own) if own else self._pinned(ca_id))
        if made is not None:
            self._responders[ca_id] = made
        return made

    def responder_now(self, ca_id: str) -> Responder | None:
        """Give the responder of a CA if it is here already."""
        known = self._responders.get(ca_id)
        return None if known is None or self._stale(known) else known

    def ocsp_status_now(self, ca_id: str, serial: str) -> Status | None:
        """Give the status, None while that could make others wait."""
        lookups = self._database.lookups
        if not lookups.quick:
            return None
        owner = lookups.now(_OWNER, {"wanted": ca_id})
        if _lacking(owner):
            return None  # the slow way says why
        unlisted = self._unlisted(ca_id, owner)
        return self._reads.ocsp_status_now(ca_id, serial, unlisted)

    async def _certified(self, own: SoftwareIssuingKey) -> Responder:
        key = keys.generate()
        plan = plans.responder(
            f"OCSP {own.issuer.ca_id[:16]}", keys.spki(key.public_key()), self._clock.now().utc_us
        )
        der = await certify(own, plan, Purpose.OWN_RESPONDER, self._random)
        return Responder(key, x509.load_der_x509_certificate(der))

    async def _pinned(self, ca_id: str) -> Responder | None:
        owner: Any = await self._database.read(_OWNER, {"wanted": ca_id})
        if not owner or owner[0].gateway is None:
            return None
        rows = await self._database.read(_FACT, {"wanted": responder_fact(ca_id)})
        if not rows:
            raise UnavailableError("The gateway has not certified central's responder yet.")
        key = await self._vault.key(responder_key_name(ca_id))
        certificate = x509.load_der_x509_certificate(bytes.fromhex(rows[0].value))
        if certificate.public_key() != key.public_key():
            raise UnavailableError("The gateway certified another key than central's responder.")
        return Responder(key, certificate)

    def _stale(self, responder: Responder) -> bool:
        """Replace a short-lived responder before its last day."""
        begin = utc_us_of(responder.certificate.not_valid_before_utc)
        end = utc_us_of(responder.certificate.not_valid_after_utc)
        return self._clock.now().utc_us >= (begin + end) // 2

    def _unlisted(self, ca_id: str, owner: Any) -> State:
        if self._hierarchy.find(ca_id) is not None:
            return self._never_issued
        trusted = owner is not None and owner.state == "active" and owner.gateway_state == "active"
        return State.GOOD if trusted else State.UNKNOWN


def _lacking(owner: Any) -> bool:
    """Tell if the gateway will still give back; one that ended or is cloned will not."""
    return (
        owner is not None
        and owner.lacking is not None
        and owner.gateway_state in {fleet.ACTIVE, fleet.STOPPED[Verdict.RESTORED]}
    )
