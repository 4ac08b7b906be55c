"""What REST needs from outside, each port as small as its need; composition roots plug in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.enroll.key_maker import KeyMaker
from shared.enroll.refusing import Refusals
from shared.issuance.ports import CertificateRecord, IssuingKeys
from shared.issuance.revocation_orders import Revoking
from shared.issuance.service import Issued
from shared.kernel.clock import Clock
from shared.kernel.errors import TmaError
from shared.policy.decide import Decision
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest
from shared.policy.rights import Scope
from shared.web.auth import Authenticator


class Issuance(Protocol):
    """The use case (shared.issuance.service)."""

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate, or give the one that an equal request got."""
        ...

    async def explain(self, request: EnrollmentRequest) -> Decision:
        """Decide and give the verdict of each rule; nothing is issued."""
        ...

    async def issue_many(self, requests: Sequence[EnrollmentRequest]) -> list[Issued | TmaError]:
        """Issue each for itself."""
        ...


class Status(Protocol):
    """Revocation (shared.issuance.status)."""

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good."""
        ...

    async def hold(self, ca_id: str, serial: str, hold_id: str, actor: str) -> CertificateRecord:
        """Suspend under a hold id."""
        ...

    async def release_hold(
        self, ca_id: str, serial: str, hold_id: str, actor: str
    ) -> CertificateRecord:
        """Release one hold id."""
        ...


class CertificateRow(Protocol):
    """A certificate as search gives it; times in UTC µs."""

    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def ca_id(self) -> str: ...  # noqa: D102
    @property
    def serial(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def der(self) -> bytes | None: ...  # noqa: D102
    @property
    def sha256(self) -> str | None: ...  # noqa: D102
    @property
    def subject_cn(self) -> str | None: ...  # noqa: D102
    @property
    def device_id(self) -> str | None: ...  # noqa: D102
    @property
    def profile(self) -> str | None: ...  # noqa: D102
    @property
    def principal(self) -> str | None: ...  # noqa: D102
    @property
    def protocol(self) -> str | None: ...  # noqa: D102
    @property
    def tenant(self) -> str | None: ...  # noqa: D102
    @property
    def test(self) -> bool: ...  # noqa: D102
    @property
    def not_before_us(self) -> int | None: ...  # noqa: D102
    @property
    def not_after_us(self) -> int | None: ...  # noqa: D102
    @property
    def issued_at_us(self) -> int: ...  # noqa: D102
    @property
    def revoked_at_us(self) -> int | None: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def replaces(self) -> str | None: ...  # noqa: D102
    @property
    def metadata(self) -> Mapping[str, str]: ...  # noqa: D102


class AuthorityRow(Protocol):
    """A CA that this box knows; times in UTC µs."""

    @property
    def ca_id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def der(self) -> bytes: ...  # noqa: D102
    @property
    def not_after_us(self) -> int: ...  # noqa: D102


class Reads(Protocol):
    """What is looked up."""

    async def certificate(self, ca_id: str, serial: str) -> CertificateRow | None:
        """Find one certificate."""
        ...

    async def certificate_of(self, idempotency_key: str) -> CertificateRow | None:
        """Find the newest certificate that was issued under this key of ours."""
        ...

    async def search(
        self, filters: Mapping[str, str], within: Sequence[Scope] | None, after: int, limit: int
    ) -> Sequence[CertificateRow]:
        """Give up to ``limit`` certificates, newest first, with id below ``after``.

        ``after`` 0 begins with the newest; ``filters`` are equalities; only what lies in one of the
        scopes ``within`` is given, with None all.
        """
        ...

    async def authorities(self) -> Sequence[AuthorityRow]:
        """Give the CAs that are known here."""
        ...

    async def cross_certificates(self) -> Sequence[bytes]:
        """Give the cross-certificates and links of roll-overs that are known here, DER."""
        ...


class Forwarded(Protocol):
    """A request that waits for central, or waited: what asking again would give."""

    @property
    def profile(self) -> str: ...  # noqa: D102
    @property
    def principal(self) -> str: ...  # noqa: D102
    @property
    def outcome(self) -> CertificateRecord | TmaError: ...  # noqa: D102


class Forwards(Protocol):
    """Requests that another box signs."""

    async def find(self, reference: str) -> Forwarded | None:
        """Find a request by the name under which it waits."""
        ...


class KeptKey(Protocol):
    """A server-made key (PKCS#8 DER) that is kept for its requester.

    ``generation`` counts the keys that were kept under its name.
    """

    @property
    def private_key(self) -> bytes: ...  # noqa: D102
    @property
    def generation(self) -> int: ...  # noqa: D102


class KeptAnswer(Protocol):
    """What a POST with an Idempotency-Key was answered."""

    @property
    def http_status(self) -> int: ...  # noqa: D102
    @property
    def body(self) -> bytes: ...  # noqa: D102


class Kept(Protocol):
    """What is remembered for a retry (design.md §3), beside what the ledger remembers."""

    async def kept_key(self, name: str) -> KeptKey | None:
        """Give the key that is kept under this name; None when there is none, or no more."""
        ...

    async def keep_key(self, name: str, private_key: bytes, *, after: int = 0) -> KeptKey:
        """Give the key that is kept under this name, else keep this one for 15 minutes, wrapped.

        What is kept counts only if its generation is above ``after``. One durable commit.
        """
        ...

    async def attach(self, name: str, generation: int, answer: bytes) -> bytes:
        """Keep the answer beside the key; gives the one that was kept first."""
        ...

    async def bind(
        self, principal: str, route: str, key: str, body_hash: bytes
    ) -> KeptAnswer | None:
        """Bind an Idempotency-Key to this content, or give the first request's answer if kept.

        Raises KeyReusedError when the key is bound to another content.
        """
        ...

    async def keep_answer(
        self, principal: str, route: str, key: str, http_status: int, body: bytes
    ) -> None:
        """Keep the answer for 30 days."""
        ...


@dataclass(frozen=True, slots=True)
class RestPorts:
    """Everything that the routes need.

    ``profiles`` gives the profiles in force; ``health`` what ``GET /status`` shows; ``keys`` the
    CAs that issue here; ``chain`` DER from a CA that is known here to its root, nothing for
    another; ``sync`` the lanes of replication. ``maker`` is one per box, whatever asks it: what
    long keys cost is bounded for all together. ``forwards`` None: all is signed here.
    """

    issuance: Issuance
    status: Status
    mass_revocation: Revoking
    refusals: Refusals
    reads: Reads
    kept: Kept
    keys: IssuingKeys
    chain: Callable[[str], Sequence[bytes]]
    authenticator: Authenticator
    clock: Clock
    profiles: Callable[[], Awaitable[Sequence[Profile]]]
    health: Callable[[], Awaitable[Mapping[str, Any]]]
    sync: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
    maker: KeyMaker = field(default_factory=KeyMaker)
    forwards: Forwards | None = None
