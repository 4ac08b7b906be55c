"""How a request travels from the gateway that was asked to central, which decides and signs.

The gateway's word counts for who asked and that the key was proven: it holds a CA key anyway. All
else is judged again by central's own rules (design.md §4, mode ``forward``).
"""

from collections.abc import Mapping
from typing import Any

from shared.issuance.ports import Forward
from shared.kernel.errors import BadRequestError
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.policy.profile import CsrHash
from shared.policy.request import EnrollmentRequest, Operation

_TEXT_CHARS_MAX = 256
#: What no rule judges, because every front end makes it.
_TEXTS = ("protocol", "alias", "profile", "principal")


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
        csr_hash = body["csr_hash"] and CsrHash(body["csr_hash"]).value
    except ValueError as error:
        raise BadRequestError("The request asks for what this version does not know.") from error
    replaces = body["replaces"]
    texts = (*(body[name] for name in _TEXTS), replaces or "-")
    if not all(text and len(text) <= _TEXT_CHARS_MAX and text.isprintable() for text in texts):
        raise BadRequestError("The request names things that have no readable name.")
    ca_id, _, serial = (replaces or "").partition("/")
    return EnrollmentRequest(
        operation=operation,
        protocol=body["protocol"],
        alias=body["alias"],
        profile=body["profile"],
        principal=body["principal"],
        public_key=body["public_key"],
        csr_hash=csr_hash,
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
