"""What a protocol front end asks for, once it has parsed and authenticated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.pki.names import SERIAL_NUMBER
from shared.pki.plan import AltName, NameAttribute
from shared.policy.device import DeviceRecord


class Operation(StrEnum):
    """What the requester wants."""

    ENROLL = "enroll"
    RENEW = "renew"


#: The protocol of what a box asks for itself: no front end ever says it of a request from outside.
INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """One wish for one certificate. Possession of the key is proven before this exists.

    ``principal`` reads ``station:x``, ``cert:<sha256>``, ``user:x`` or ``device:x``.
    ``public_key`` is a DER SubjectPublicKeyInfo; ``replaces`` is (ca_id, serial text).
    ``idempotency_key`` is what the client sent, already scoped to principal and route; None means
    that the key is computed from the content (design.md §3).
    ``record`` is what is known of the device: the issuance core looks it up, no front end does.
    ``known_devices_only``: without a record it is refused. ``code`` is the SHA-256 of the one-time
    code that this request spends, ``csr_hash`` what a CSR's signature hashed with (``sha256``).
    ``gateway`` forwarded it (at central only; '' where it was asked here); ``key_made_here``: the
    box made the key. The six are no part of what makes two requests equal.
    """

    operation: Operation
    protocol: str
    alias: str
    profile: str
    principal: str
    public_key: bytes
    subject: tuple[NameAttribute, ...]
    alt_names: tuple[AltName, ...] = ()
    device_id: str | None = None
    validity_days: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    replaces: tuple[str, str] | None = None
    test: bool = False
    idempotency_key: str | None = None
    record: DeviceRecord | None = None
    known_devices_only: bool = False
    code: bytes | None = None
    csr_hash: str | None = None
    gateway: str = ""
    key_made_here: bool = False

    @property
    def device(self) -> str | None:
        """The device: ``device_id``, else the subject's serialNumber (design.md §12)."""
        if self.device_id is not None:
            return self.device_id
        return next((item.value for item in self.subject if item.oid == SERIAL_NUMBER), None)

    @property
    def actor(self) -> str:
        """Who asks, as events name him: a gateway's requesters have no names at central."""
        return f"{self.gateway}/{self.principal}" if self.gateway else self.principal
