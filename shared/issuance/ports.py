"""What issuing needs from outside; each composition root plugs in its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from shared.kernel.clock import Instant
from shared.pki.certificates import Issuer
from shared.pki.plan import Plan
from shared.policy.device import DeviceRecord
from shared.policy.grant import Grant
from shared.policy.profile import Existing, Profile
from shared.policy.request import EnrollmentRequest
from shared.policy.rules import RuleSet


class Purpose(StrEnum):
    """What a document is for; the signer checks that the document agrees (design.md §4)."""

    LEAF = "leaf"
    CRL = "crl"
    OWN_RESPONDER = "own_responder"
    CENTRAL_RESPONDER = "central_responder"
    BIRTH_CSR = "birth_csr"
    CA = "ca"  # central's root and fleet keys only


class Priority(StrEnum):
    """Order of the token's queue, most urgent first (design.md §6)."""

    LINE = "line"
    INTERACTIVE = "interactive"
    RENEWAL = "renewal"
    STATUS = "status"
    AUDIT = "audit"


class CertificateStatus(StrEnum):
    """The lattice: revoked > hold > good; nothing turns revoked into good."""

    GOOD = "good"
    HOLD = "hold"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A row of the ledger as its users see it. ``der`` is None for stubs and voided serials."""

    ca_id: str
    serial: str
    der: bytes | None
    status: CertificateStatus
    request_hash: bytes | None
    issued_at_us: int
    origin: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What is committed before the key is used."""

    intent_id: str
    serial: str
    ca_id: str
    tbs: bytes
    plan: Plan
    request: EnrollmentRequest
    idempotency_key: str
    request_hash: bytes  # SHA-256 over the requested content: tells a retry from a reused key
    replay_until_us: int  # a later equal request is a new one
    grant_id: str | None
    decided_at: Instant
    existing: Existing = Existing.ALLOW


@dataclass(frozen=True, slots=True)
class Forward:
    """A request that central is to decide and sign, and what a retry of it is known by."""

    request: EnrollmentRequest
    profile_version: int
    idempotency_key: str
    request_hash: bytes
    replay_us: int


class IssuingKey(Protocol):
    """An issuing CA whose key signs documents, not digests."""

    @property
    def issuer(self) -> Issuer:
        """The CA's certificate, id and the addresses that go into what it issues."""
        ...

    @property
    def immediate(self) -> bool:
        """Whether ``sign`` answers without a wait: the key is in this process."""
        ...

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        """Sign a DER TBS; gives the raw signature value of the issuer's algorithm.

        Raises TokenUnavailableError (before use of the key: the signer surely refused),
        OutcomeUnknownError (it may have signed), ForbiddenError (document against its policy).
        """
        ...


class Profiles(Protocol):
    """The rules in force."""

    def profile(self, name: str) -> Profile:
        """Find the version in force; raises NotFoundError naming the known ones."""
        ...

    def grant(self) -> Grant | None:
        """Give the grant in force; None where none is needed (central)."""
        ...

    def rules(self) -> RuleSet:
        """Give the rules that are judged after the profile."""
        ...

    def last_contact_us(self) -> int | None:
        """When central last proved that it knows this gateway, UTC µs; None at central."""
        ...


class Devices(Protocol):
    """The device records that are held here."""

    async def record(self, serial: str) -> DeviceRecord | None:
        """Find what is known of a device."""
        ...


class IssuingKeys(Protocol):
    """Which CA signs now."""

    def active(self, profile: str) -> IssuingKey:
        """Give the key for this profile; raises UnavailableError when none can issue."""
        ...

    def of(self, ca_id: str) -> IssuingKey:
        """Give the key of one CA, also a retired one; raises NotFoundError."""
        ...


class Forwards(Protocol):
    """Requests that wait for central (design.md §4, mode ``forward``)."""

    async def forward(self, wanted: Forward) -> CertificateRecord:
        """Let a request wait, in one commit with its event; give what an equal one has got.

        Raises PendingError (it waits, now or already), RefusedError (central said no; also
        ``code.spent``), KeyReusedError, ConflictError (line stopped), UnavailableError (too many
        wait), StorageFullError, OutcomeUnknownError.
        """
        ...

    async def earlier(self, idempotency_key: str, request_hash: bytes) -> CertificateRecord | None:
        """Give what an equal request has got; None if there was none. Raises as ``forward``."""
        ...


class Ledger(Protocol):
    """Serials and certificates, each call one durable commit (shared with others: group commit)."""

    async def intend(self, intent: Intent) -> CertificateRecord | None:
        """Commit the intent and the grant's unit; or give the certificate that a retry asks for.

        Raises KeyReusedError, InProgressError (an equal one, or one for the same device, profile
        and purpose is open), RefusedError (quota), ConflictError (line stopped, CA ended),
        StorageFullError, OutcomeUnknownError.
        """
        ...

    async def intend_each(
        self, intents: Sequence[Intent]
    ) -> Sequence[CertificateRecord | Exception | None]:
        """Do that for some that came together, each for itself; give what each would raise.

        Raises StorageFullError, UnavailableError (nothing happened).
        """
        ...

    async def complete(self, intent: Intent, der: bytes) -> CertificateRecord:
        """Release the one DER: compare-and-set on the open intent, fenced by CA and line state.

        Emits ``certificate.issued`` in the same commit. Raises ConflictError when fenced.
        """
        ...

    async def complete_each(
        self, signed: Sequence[tuple[Intent, bytes]]
    ) -> Sequence[CertificateRecord | Exception]:
        """Do that for some that came together, each for itself; give what each would raise.

        Raises UnavailableError (nothing happened).
        """
        ...

    async def release(self, intent: Intent) -> None:
        """Drop an intent whose key was surely not used; its unit returns to the grant."""
        ...

    async def void(self, intent: Intent, reason: str) -> None:
        """Count an intent as signed: unit spent, serial on the CRL, ``certificate.voided``."""
        ...

    async def refuse(self, request: EnrollmentRequest, rule: str, value: str, why: str) -> None:
        """Emit ``enrollment.refused``."""
        ...

    async def replay(
        self, idempotency_key: str, request_hash: bytes, now_us: int
    ) -> CertificateRecord | None:
        """Find what an equal earlier request got, if it may be handed out again."""
        ...

    async def open_intents(self) -> list[Intent]:
        """List what a crash left open, oldest first."""
        ...

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good (RFC 5280 §5.3.1 reason names in snake case); idempotent.

        Emits ``certificate.revoked`` in lane urgent. Raises NotFoundError, ConflictError.
        """
        ...

    async def hold(self, ca_id: str, serial: str, hold_id: str, actor: str) -> CertificateRecord:
        """Add a hold id to the set; one that was released before never holds again."""
        ...

    async def release_hold(
        self, ca_id: str, serial: str, hold_id: str, actor: str
    ) -> CertificateRecord:
        """Release one hold id; the certificate is good again when none is left."""
        ...
