"""What bodies of events have in common, and those of what central orders."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A body says exactly what its schema version names."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FrozenBody(Body):
    """A body whose core never changes: what a later version adds is ignored, never in the way."""

    model_config = ConfigDict(extra="ignore")


class Directive(FrozenBody):
    """An order of central; the newest (incarnation, number) per kind and subject is in force."""

    incarnation: str
    number: int


class DirectiveBundle(Directive):
    """Profiles and CA certificates in force; ``document`` is ``shared.policy.bundle``'s."""

    document: dict[str, Any]


class DirectiveGrant(Directive):
    """What the gateway may do without asking; ``document`` is ``shared.policy.grant``'s."""

    document: dict[str, Any]


class DirectiveRevoke(Directive):
    """Revoke one of the gateway's certificates."""

    ca_id: str
    serial: str
    reason: str


class DirectiveHold(Directive):
    """Add (``directive.hold``) or lift (``directive.release``) one hold id."""

    ca_id: str
    serial: str
    hold_id: str


class DirectiveCrl(Directive):
    """The CRL of a parent CA."""

    ca_id: str
    der: bytes


class DirectiveResponder(Directive):
    """Certify this key of central (DER SubjectPublicKeyInfo) as OCSP responder of the CA."""

    ca_id: str
    spki: bytes


class DirectiveIdentity(Directive):
    """The transport certificate (DER) for the keys that the gateway asked for."""

    certificate: bytes


class DirectiveKeys(Directive):
    """The directive keys (DER SubjectPublicKeyInfos) to trust from now on, the newest first."""

    spkis: Annotated[list[bytes], Field(min_length=1, max_length=8)]


class DirectiveAuthority(Directive):
    """A certificate (DER) of the gateway's CA, its chain to the root, and when it ends issuing."""

    ca_id: str
    der: bytes
    chain: list[bytes]
    issue_until_us: int


class DirectiveCommand(Directive):
    """Do one thing now; worth nothing after ``not_after_us`` (UTC µs). Its id names its answer."""

    command_id: str
    command: str
    not_after_us: int


class DirectiveAccess(Directive):
    """Aliases, requesters and manufacturers; ``document`` is ``shared.policy.access``'s."""

    document: dict[str, Any]


class DirectiveDevices(Directive):
    """Device records that are new or changed, and serials to forget. More of them may follow.

    A record is a map with the fields of ``shared.policy.device.DeviceRecord``.
    """

    records: list[dict[str, Any]]
    removed: list[str]


class DirectiveCodes(Directive):
    """One-time codes, sealed to the gateway's exchange key (``shared.pki.sealing``).

    Inside is CBOR: a list of [SHA-256 of the code, serial, alias or "*", end in UTC µs].
    """

    batch: str
    sealed: bytes
