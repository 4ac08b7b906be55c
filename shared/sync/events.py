"""What one side tells the other: the catalogue of event types and the encoding of one event.

A type has a lane, a schema version and a body. An event whose type or schema is not known here is
still an event: it decodes, is stored as received, and goes to quarantine (design.md §5, *Poison*).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, Strict, ValidationError, model_validator

from shared.kernel import cbor, limits
from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import BadRequestError
from shared.kernel.ids import Random, uuid7
from shared.sync.bodies import (
    Body,
    Directive,
    DirectiveAccess,
    DirectiveAuthority,
    DirectiveBundle,
    DirectiveCodes,
    DirectiveCommand,
    DirectiveCrl,
    DirectiveDevices,
    DirectiveGrant,
    DirectiveHold,
    DirectiveIdentity,
    DirectiveKeys,
    DirectiveResponder,
    DirectiveRevoke,
    FrozenBody,
)


class Lane(IntEnum):
    """The two queues of each segment; the number is what is stored and sent."""

    URGENT = 0  # revocation, key compromise, security: always first
    NORMAL = 1


class Direction(StrEnum):
    """Which way an event travels; part of each hash and each signature."""

    UP = "up"  # gateway to central
    DOWN = "dn"  # central to gateway


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. Times are UTC µs, and monotonic ns of the named boot; ``id`` is a UUIDv7."""

    id: str
    type: str
    schema: int
    utc_us: int
    mono_ns: int
    boot_id: str
    clock: str
    actor: str
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])


_Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class SegmentOpened(Body):
    """Sequence 1 of both lanes; ``parent_heads`` maps lane names to (sequence, hash)."""

    segment: str
    parent: str | None
    parent_heads: dict[str, Annotated[tuple[int, bytes], Strict(strict=False)]]
    start_counter: int
    boot_id: str
    version: str


class CertificateIssued(Body):
    """A certificate that was released; the one time its DER travels. ``replaces``: ca_id/serial."""

    ca_id: str
    serial: str
    der: bytes
    profile: str
    profile_version: int
    purpose: str
    device_id: str | None
    alias: str
    protocol: str
    principal: str
    metadata: dict[str, str]
    grant_id: str | None
    test: bool
    replaces: str | None
    intent_id: str


class CertificateVoided(Body):
    """A serial that counts as signed although nothing was released."""

    ca_id: str
    serial: str
    reason: str
    profile: str | None
    device_id: str | None
    grant_id: str | None


class CertificateRevoked(FrozenBody):
    """Revoked for good; ``reason`` is an RFC 5280 §5.3.1 name in snake case."""

    ca_id: str
    serial: str
    reason: str
    revoked_at_us: int
    device_id: str | None = None


class CertificateHold(FrozenBody):
    """One hold id was added (``certificate.held``) or lifted (``certificate.released``)."""

    ca_id: str
    serial: str
    hold_id: str


class EnrollmentRefused(Body):
    """A request that a rule refused, with the reason in plain words."""

    profile: str
    principal: str
    protocol: str
    device_id: str | None
    rule: str
    value: str
    why: str


class EnrollmentForwarded(Body):
    """A request that central is to decide and sign; the event's id is its reference.

    ``subject`` has pairs of dotted OID and text, ``alt_names`` of kind and text; ``replaces`` reads
    ca_id/serial. ``code`` is the hash of the one-time code that was spent for it here. The last
    three are what the gateway knows a retry by: a restored copy takes them back.
    """

    operation: str
    protocol: str
    alias: str
    profile: str
    profile_version: int
    principal: str
    public_key: bytes
    csr_hash: str | None
    subject: list[_Pair]
    alt_names: list[_Pair]
    device_id: str | None
    validity_days: int | None
    metadata: dict[str, str]
    replaces: str | None
    test: bool
    code: bytes | None
    idempotency_key: str
    request_hash: bytes
    replay_us: int


class CertificateReceived(Body):
    """A certificate that central signed for a forwarded request has reached the gateway."""

    reference: str
    ca_id: str
    serial: str


class CodeSpent(Body):
    """A one-time code is used up; ``digest`` is its SHA-256, ca_id and serial what it opened."""

    digest: bytes
    ca_id: str
    serial: str


class CrlPublished(Body):
    """A CRL as it is served."""

    ca_id: str
    number: int
    der: bytes


class CrlPart(Body):
    """A piece of a CRL that is too large for one event; ``part`` counts from 0.

    ``scope`` is that of a partition (``16-3``); none: a complete CRL or a delta.
    """

    ca_id: str
    number: Annotated[int, Field(ge=0, lt=2**63)]
    part: Annotated[int, Field(ge=0, lt=limits.CRL_PARTS_MAX)]
    parts: Annotated[int, Field(gt=0, le=limits.CRL_PARTS_MAX)]
    der: bytes
    scope: Annotated[str, Field(pattern=r"^[0-9]{1,3}-[0-9]{1,3}$")] | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.part >= self.parts:
            raise ValueError("there is no such part")
        return self


class ResponderIssued(Body):
    """The certificate of central's pinned OCSP responder key for this gateway's CA."""

    ca_id: str
    der: bytes


class DirectiveApplied(Body):
    """What became of a directive: ``result`` is applied, ignored or failed."""

    kind: str
    subject: str
    incarnation: str
    number: int
    result: str
    detail: str


class AgentStarted(Body):
    """The agent runs; ``recovered`` counts the open intents that it finished or voided."""

    version: str
    recovered: int


class CrlRefused(Body):
    """The key is there, and no CRL can be signed: it is too large, or its policy forbids it."""

    ca_id: str
    why: Annotated[str, Field(max_length=1024)]


class TokenChanged(Body):
    """The token that holds the CA key came, went or failed."""

    state: str
    detail: str


class OperatorActed(Body):
    """What a person did at the console of a gateway; the event's actor is who."""

    action: str
    subject: str
    detail: dict[str, str]


class HistoryGap(FrozenBody):
    """An operator went on although events may be missing."""

    detail: str


class IdentityRequested(Body):
    """New keys of the gateway for the link, each proven by a PKCS#10 request (DER)."""

    transport_csr: bytes
    event_csr: bytes
    exchange_csr: bytes


class AuthorityRequested(Body):
    """A new key of the gateway's CA, proven by the birth CSR (DER) that the token's daemon made."""

    csr: bytes


class EnrollmentRefusal(FrozenBody):
    """Why central does not sign."""

    rule: str
    value: str
    message: str
    remedy: str


class DirectiveEnrollment(Directive):
    """The answer to a forwarded request (``reference``: the id of its event): one of the two.

    ``chain`` is DER from the CA that signed to its root, ``issued_at_us`` when it did.
    """

    reference: str
    issued: CertificateIssued | None
    issued_at_us: int
    chain: list[bytes]
    refusal: EnrollmentRefusal | None


@dataclass(frozen=True, slots=True)
class EventType:
    """One line of the catalogue. ``lane`` None: the event opens both lanes."""

    lane: Lane | None
    schema: int
    body: type[Body]

    def accepts(self, schema: int) -> bool:
        """Tell if a body of that schema version can be read: frozen ones always can."""
        return schema == self.schema or (schema > 0 and issubclass(self.body, FrozenBody))


OPENED: Literal["segment.opened"] = "segment.opened"

CATALOGUE: Mapping[str, EventType] = {
    OPENED: EventType(None, 1, SegmentOpened),
    "certificate.issued": EventType(Lane.NORMAL, 1, CertificateIssued),
    "certificate.voided": EventType(Lane.NORMAL, 1, CertificateVoided),
    "certificate.revoked": EventType(Lane.URGENT, 1, CertificateRevoked),
    "certificate.held": EventType(Lane.URGENT, 1, CertificateHold),
    "certificate.released": EventType(Lane.URGENT, 1, CertificateHold),
    "enrollment.refused": EventType(Lane.NORMAL, 1, EnrollmentRefused),
    "enrollment.forwarded": EventType(Lane.NORMAL, 1, EnrollmentForwarded),
    "certificate.received": EventType(Lane.NORMAL, 1, CertificateReceived),
    "code.spent": EventType(Lane.NORMAL, 1, CodeSpent),
    "crl.published": EventType(Lane.NORMAL, 1, CrlPublished),
    "crl.part": EventType(Lane.NORMAL, 1, CrlPart),
    "crl.refused": EventType(Lane.URGENT, 1, CrlRefused),
    "responder.issued": EventType(Lane.URGENT, 1, ResponderIssued),
    "directive.applied": EventType(Lane.NORMAL, 1, DirectiveApplied),
    "agent.started": EventType(Lane.NORMAL, 1, AgentStarted),
    "token.changed": EventType(Lane.NORMAL, 1, TokenChanged),
    "operator.acted": EventType(Lane.NORMAL, 1, OperatorActed),
    "history.gap": EventType(Lane.URGENT, 1, HistoryGap),
    "identity.requested": EventType(Lane.NORMAL, 1, IdentityRequested),
    "authority.requested": EventType(Lane.NORMAL, 1, AuthorityRequested),
    "directive.bundle": EventType(Lane.NORMAL, 1, DirectiveBundle),
    "directive.grant": EventType(Lane.NORMAL, 1, DirectiveGrant),
    "directive.revoke": EventType(Lane.URGENT, 1, DirectiveRevoke),
    "directive.hold": EventType(Lane.URGENT, 1, DirectiveHold),
    "directive.release": EventType(Lane.URGENT, 1, DirectiveHold),
    "directive.crl": EventType(Lane.NORMAL, 1, DirectiveCrl),
    "directive.responder": EventType(Lane.NORMAL, 1, DirectiveResponder),
    "directive.identity": EventType(Lane.NORMAL, 1, DirectiveIdentity),
    "directive.keys": EventType(Lane.NORMAL, 1, DirectiveKeys),
    "directive.authority": EventType(Lane.NORMAL, 1, DirectiveAuthority),
    "directive.command": EventType(Lane.URGENT, 1, DirectiveCommand),
    "directive.access": EventType(Lane.NORMAL, 1, DirectiveAccess),
    "directive.devices": EventType(Lane.NORMAL, 1, DirectiveDevices),
    "directive.codes": EventType(Lane.NORMAL, 1, DirectiveCodes),
    "directive.enrollment": EventType(Lane.NORMAL, 1, DirectiveEnrollment),
}


def lane_of(type_name: str) -> Lane:
    """Give the lane in which events of that type are written. Raises BadRequestError."""
    known = CATALOGUE.get(type_name)
    if known is None or known.lane is None:
        raise BadRequestError(f"Events of type {type_name!r} are not emitted.")
    return known.lane


def create(
    type_name: str, body: Mapping[str, Any], *, actor: str, now: Instant, random: Random
) -> Event:
    """Make an event of a known type; the body must match the catalogue (BadRequestError)."""
    known = CATALOGUE.get(type_name)
    event = Event(
        id=uuid7(now, random),
        type=type_name,
        schema=known.schema if known else 0,
        utc_us=now.utc_us,
        mono_ns=now.mono_ns,
        boot_id=now.boot_id,
        clock=now.quality.value,
        actor=actor,
        body=body,
    )
    check(event)
    return event


def check(event: Event) -> BaseModel:
    """Give the body as its model. Raises BadRequestError: unknown type, schema or wrong body."""
    known = CATALOGUE.get(event.type)
    if known is None or not known.accepts(event.schema):
        raise BadRequestError(
            f"Events of type {event.type!r}, schema {event.schema}, are not known to this version."
        )
    try:
        return known.body.model_validate(event.body)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise BadRequestError(f"The body of {event.type!r} is wrong at: {fields}.") from error


def encode(event: Event) -> bytes:
    """Encode deterministically. Raises BadRequestError when it is larger than an event may be."""
    data = cbor.encode({name: getattr(event, name) for name in _TYPES} | {"body": {**event.body}})
    if len(data) > limits.EVENT_BYTES_MAX:
        raise BadRequestError(
            f"The event has {len(data)} bytes; at most {limits.EVENT_BYTES_MAX} are allowed."
        )
    return data


def decode(data: bytes) -> Event:
    """Decode an event of any type; its body is not judged (see ``check``). BadRequestError."""
    value = cbor.decode(data, limit=limits.EVENT_BYTES_MAX)
    # Exact types: a bool is an int to Python, but no time.
    if not isinstance(value, dict) or {name: type(one) for name, one in value.items()} != _TYPES:  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        raise BadRequestError("The event does not have exactly the fields of an event.")
    event = Event(**value)  # pyright: ignore[reportUnknownArgumentType] - checked just above
    if event.clock not in _QUALITIES:
        raise BadRequestError("The event's clock quality is not known.")
    return event


_QUALITIES = frozenset(quality.value for quality in ClockQuality)
_TYPES: Mapping[str, type] = {
    "id": str,
    "type": str,
    "schema": int,
    "utc_us": int,
    "mono_ns": int,
    "boot_id": str,
    "clock": str,
    "actor": str,
    "body": dict,
}
