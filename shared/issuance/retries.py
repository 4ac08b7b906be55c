"""What makes two requests the same, so that a retry is free (design.md §3, *Idempotency key*)."""

import hashlib
from dataclasses import dataclass

from shared.kernel import cbor
from shared.kernel.clock import US_PER_SECOND
from shared.policy.request import EnrollmentRequest

#: How long an equal request is answered with the same certificate: without and with a key.
IMPLICIT_REPLAY_US = 24 * 3600 * US_PER_SECOND
EXPLICIT_REPLAY_US = 30 * 24 * 3600 * US_PER_SECOND


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two requests the same."""

    key: str
    content: bytes
    replay_us: int


def explicit_key(sent: str) -> str:
    """Give the ledger's key for a key that a client sent (scoped to principal and route)."""
    return f"k:{sent}"


def identify(request: EnrollmentRequest) -> Identity:
    """Compute what makes a retry of this request equal to it."""
    content = hashlib.sha256(cbor.encode(_requested_content(request))).digest()
    if request.idempotency_key is not None:
        return Identity(explicit_key(request.idempotency_key), content, EXPLICIT_REPLAY_US)
    scope = [
        request.principal,
        request.alias,
        request.operation.value,
        list(request.replaces or ()),
        request.public_key,
        content,
    ]
    return Identity(
        f"c:{hashlib.sha256(cbor.encode(scope)).hexdigest()}", content, IMPLICIT_REPLAY_US
    )


def _requested_content(request: EnrollmentRequest) -> cbor.CborValue:
    return [
        request.operation.value,
        request.alias,
        request.profile,
        request.public_key,
        [[attribute.oid, attribute.value] for attribute in request.subject],
        [[name.kind.value, name.value] for name in request.alt_names],
        request.device_id,
        request.validity_days,
        dict(request.metadata),
        list(request.replaces or ()),
        request.test,
    ]
