"""What the pages show, as plain values: no SQL beyond this point. Times are UTC µs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from central.inventory.conflicts import Choice
from shared.policy.rights import Place
from shared.web.pages import utc_text


@dataclass(frozen=True, slots=True)
class Totals:
    """Maintained counters of what gateways and central issued to others.

    ``issued`` are good, ``held`` or ``revoked``. ``announced`` ones were revoked or held before
    their issue was reported; ``voided`` serials were never released.
    """

    issued: int
    announced: int
    held: int
    revoked: int
    voided: int
    refused: int

    @property
    def good(self) -> int:
        """What is neither held nor revoked."""
        return self.issued - self.held - self.revoked


@dataclass(frozen=True, slots=True)
class LaneView:
    """How far one lane of one segment of a gateway is applied here."""

    segment: str
    lane: str
    applied: int
    archived: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One gateway.

    ``backlog``: events that it said it still holds unsent; ``applied``: events of it that are
    applied here; ``waiting``: events of ours that it has not confirmed; ``lacking``: what this
    central, put back from a backup, is still to learn again from it (``ports.Lacking``).
    """

    name: str
    state: str  # invited, active, cloned, restored, ended
    state_reason: str
    link: str  # online, offline
    link_since_us: int | None
    last_contact_us: int | None
    backlog: int
    applied: int
    waiting: int
    version: str | None
    ca_id: str | None
    created_at_us: int
    join_expires_at_us: int | None
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class ConflictView:
    """Something that two rules or two facts disagree about; the first choice changes nothing.

    ``state`` is open or settled; then it names the choice, who chose (a user, or ``profile:…`` by
    its rule) and when. ``sides`` are the certificates it is about, as (CA id, serial number).
    """

    id: int
    kind: str
    gateway: str
    subject: str
    detail: Mapping[str, object]
    created_at_us: int
    state: str = "open"
    resolution: str | None = None
    settled_by: str | None = None
    settled_at_us: int | None = None
    choices: Sequence[Choice] = ()
    sides: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class CrlView:
    """The newest CRL of a scope, or the first to end of the partitions of one number.

    ``alarm`` says what is wrong, '' if nothing is. Without a CRL number and times are None.
    ``over``: relying parties refuse it already.
    """

    ca_id: str
    name: str
    kind: str
    gateway: str | None
    scope: str
    number: int | None
    this_update_us: int | None
    next_update_us: int | None
    alarm: str
    over: bool

    def shown(self) -> dict[str, Any]:
        """Give it as REST does."""
        return {
            "id": f"{self.ca_id}/{self.scope}",
            "ca_id": self.ca_id,
            "name": self.name,
            "kind": self.kind,
            "gateway": self.gateway,
            "scope": self.scope,
            "number": self.number,
            "this_update": self.this_update_us and utc_text(self.this_update_us),
            "next_update": self.next_update_us and utc_text(self.next_update_us),
            "alarm": self.alarm,
        }

    def __str__(self) -> str:
        """Name it in a sentence."""
        kind = "" if self.scope == "complete" else f"{self.scope} "
        return f"The {kind}CRL of {self.name}"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The first page."""

    totals: Totals
    gateways: Sequence[GatewayView]
    conflicts: Sequence[ConflictView]
    quarantined: int
    crl_alarms: Sequence[CrlView] = ()
    backup_alarm: str = ""  # a sentence, if the newest backup that counts is too old or missing


@dataclass(frozen=True, slots=True)
class CertificateLine:
    """A row of the list."""

    id: int
    ca_id: str
    serial: str
    origin: str
    state: str
    status: str
    subject_cn: str | None
    device_id: str | None
    profile: str | None
    issued_at_us: int
    not_after_us: int | None


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """A CA in a chain."""

    ca_id: str
    name: str
    kind: str
    state: str
    not_after_us: int
    der: bytes
    tenant: str | None


@dataclass(frozen=True, slots=True)
class HoldView:
    """One hold id of a certificate."""

    hold_id: str
    actor: str
    held_at_us: int
    released_at_us: int | None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """The whole story of one certificate. ``chain`` runs from its issuer to the root."""

    line: CertificateLine
    sha256: str | None
    der: bytes | None
    profile_version: int | None
    purpose: str | None
    principal: str | None
    protocol: str | None
    alias: str | None
    grant_id: str | None
    clock_quality: str | None
    test: bool
    not_before_us: int | None
    revoked_at_us: int | None
    reason: str | None
    replaces: str | None
    metadata: Mapping[str, str]
    chain: Sequence[AuthorityView]
    holds: Sequence[HoldView]

    @property
    def place(self) -> Place:
        """Say where it belongs, for whoever asks what one may do with it."""
        return Place(
            tenant=self.chain[0].tenant if self.chain else None,
            ca=self.line.ca_id,
            profile=self.line.profile,
            line=self.line.origin or None,
            serial=self.line.serial,
        )
