"""How a request travels from the gateway that was asked to central, which decides and signs.

The gateway's word counts for who asked and that the key was proven: it holds a CA key anyway. All
else is judged again by central's own rules (design.md §4, mode ``forward``).
"""

from collections.abc import Mapping
from typing import Any

from shared.issuance.ports import Forward
from shared.kernel.errors import BadRequestError
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.policy.request import EnrollmentRequest, Operation


def told(wanted: Forward) -> dict[str, Any]:
    """Give the body of ``enrollment.forwarded``."""
    request = wanted.request
    return {
        "operation": request.operation.value,
        "protocol": request.protocol,
        "alias": request.alias,
        "profile": request.profile,
        "profile_version": wanted.profile_version,
        "principal": request.principal,
        "public_key": request.public_key,
        "csr_hash": request.csr_hash,
        "subject": [[attribute.oid, attribute.value] for attribute in request.subject],
        "alt_names": [[name.kind.value, name.value] for name in request.alt_names],
        "device_id": request.device_id,
        "validity_days": request.validity_days,
        "metadata": dict(request.metadata),
        "replaces": "/".join(request.replaces) if request.replaces else None,
        "test": request.test,
        "code": request.code,
        "idempotency_key": wanted.idempotency_key,
        "request_hash": wanted.request_hash,
        "replay_us": wanted.replay_us,
    }


def understood(body: Mapping[str, Any], gateway: str, reference: str) -> EnrollmentRequest:
    """Make the request that central judges; raises BadRequestError for what it does not know.

    Its idempotency key is (gateway, event), so neither a crash nor a repeated event issues twice.
    The one-time code is the gateway's affair: it is spent there already.
    """
    try:
        operation = Operation(body["operation"])
        alt_names = tuple(AltName(AltNameKind(kind), value) for kind, value in body["alt_names"])
    except ValueError as error:
        raise BadRequestError("The request asks for what this version does not know.") from error
    replaces = body["replaces"]
    ca_id, _, serial = (replaces or "").partition("/")
    return EnrollmentRequest(
        operation=operation,
        protocol=body["protocol"],
        alias=body["alias"],
        profile=body["profile"],
        principal=body["principal"],
        public_key=body["public_key"],
        csr_hash=body["csr_hash"],
        subject=tuple(NameAttribute(oid, value) for oid, value in body["subject"]),
        alt_names=alt_names,
        device_id=body["device_id"],
        validity_days=body["validity_days"],
        metadata=body["metadata"],
        replaces=(ca_id, serial) if replaces else None,
        test=body["test"],
        idempotency_key=f"forward/{gateway}/{reference}",
        gateway=gateway,
    )
