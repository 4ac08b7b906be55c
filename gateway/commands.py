"""What central orders: each directive is applied in the transaction that receives it.

The newest (incarnation, number) of a kind and subject is in force; an older one is answered
``ignored``. A directive that this version cannot read is quarantined by the inbox, not applied in
part (design.md §5, *Poison*).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from gateway import identity, receiving
from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.policy.access import Access
from shared.policy.bundle import Bundle
from shared.policy.device import DeviceRecord
from shared.policy.grant import Grant
from shared.store import certificates, crls, devices, facts
from shared.store.schema import certificate, directive, grant_use, profile
from shared.store.transaction import Transaction
from shared.sync.events import Event
from shared.sync.join import CENTRAL_NAME

_PREFIX = "directive."
#: Event types after which others may enroll.
OF_ENROLLMENT: Final = frozenset(
    {"directive.access", "directive.devices", "directive.codes", "directive.enrollment"}
)
#: The event type after which other directive keys are trusted.
OF_KEYS: Final = "directive.keys"
_ACTOR = "system"
_ORIGIN = ""  # what this box issued itself

_KNOWN = select(directive.c.incarnation, directive.c.number).where(
    directive.c.peer == CENTRAL_NAME,
    directive.c.kind == bindparam("which"),
    directive.c.subject == bindparam("about"),
)
_held = insert(directive)
_HOLD = _held.on_conflict_do_update(
    index_elements=[directive.c.peer, directive.c.kind, directive.c.subject],
    set_={
        name: getattr(_held.excluded, name)
        for name in ("incarnation", "number", "envelope", "created_at")
    },
)
_WITHDRAW = update(profile).values(state="withdrawn")
_PROFILE = insert(profile).on_conflict_do_update(
    index_elements=[profile.c.name, profile.c.version], set_={"state": "active"}
)
_END_GRANTS = update(grant_use).where(grant_use.c.grant_id != bindparam("id")).values(state="ended")
#: A database that was an old copy knows the certificates of a grant before the grant.
_KNOWN_USE = select(func.count().label("count")).where(certificate.c.grant_id == bindparam("id"))
_granted = insert(grant_use)
_GRANT = _granted.on_conflict_do_update(
    index_elements=[grant_use.c.grant_id],  # what is used stays used
    set_={
        name: getattr(_granted.excluded, name) for name in ("version", "quota", "state", "document")
    },
)

Body = Mapping[str, Any]


def apply(transaction: Transaction, event: Event) -> None:
    """Apply a directive and tell central what became of it.

    Raises BadRequestError when its content cannot be read.
    """
    kind, body = event.type.removeprefix(_PREFIX), event.body
    subject = _SUBJECTS[kind](body)
    if _outdated(transaction, kind, subject, body):
        why = "A newer one is in force."
        answer(transaction, kind, subject, body, result="ignored", detail=why)
        return
    row = {
        "peer": CENTRAL_NAME,
        "kind": kind,
        "subject": subject,
        "incarnation": body["incarnation"],
        "number": body["number"],
        "envelope": cbor.encode(dict(body)),
        "created_at": event.utc_us,
    }
    transaction.execute(_HOLD, row)
    effect = _EFFECTS.get(kind)
    if effect is not None:
        effect(transaction, event)
        answer(transaction, kind, subject, body, result="applied")


def answer(
    transaction: Transaction,
    kind: str,
    subject: str,
    body: Body,
    *,
    result: str,
    detail: str = "",
) -> None:
    """Tell central what became of a directive: applied, ignored or failed."""
    told = {
        "kind": kind,
        "subject": subject,
        "incarnation": body["incarnation"],
        "number": body["number"],
        "result": result,
        "detail": detail,
    }
    transaction.emit("directive.applied", told, actor=_ACTOR)


def _outdated(transaction: Transaction, kind: str, subject: str, body: Body) -> bool:
    """Tell if a directive of the same incarnation that is as new is held already."""
    known = transaction.one(_KNOWN, {"which": kind, "about": subject})
    return (
        known is not None
        and known.incarnation == body["incarnation"]
        and known.number >= body["number"]
    )


def _bundle(transaction: Transaction, event: Event) -> None:
    """Put exactly the bundle's profiles and rules in force; its CAs are known from the join."""
    bundle = Bundle.from_document(event.body["document"])
    transaction.execute(_WITHDRAW)
    for one in bundle.profiles:
        row = {
            "name": one.name,
            "version": one.version,
            "sha256": one.sha256,
            "document": one.document,
            "state": "active",
            "created_at": transaction.now.utc_us,
        }
        transaction.execute(_PROFILE, row)
    facts.put(transaction, facts.RULES, json.dumps(bundle.rules.to_document()))


def _used(transaction: Transaction, grant_id: str) -> int:
    row: Any = transaction.one(_KNOWN_USE, {"id": grant_id})
    return row[0]


def _put_grant(transaction: Transaction, event: Event) -> None:
    grant = Grant.from_document(event.body["document"])
    transaction.execute(_END_GRANTS, {"id": grant.grant_id})
    row = {
        "grant_id": grant.grant_id,
        "version": grant.version,
        "quota": grant.quota,
        "used": _used(transaction, grant.grant_id),
        "state": "active",
        "document": json.dumps(grant.to_document()).encode(),
    }
    transaction.execute(_GRANT, row)


def _revoke(transaction: Transaction, event: Event) -> None:
    body = {**event.body, "revoked_at_us": event.utc_us}
    certificates.record_revoked(transaction, _ORIGIN, body)


def _hold(transaction: Transaction, event: Event) -> None:
    certificates.record_held(transaction, _ORIGIN, event.body, actor=event.actor)


def _release(transaction: Transaction, event: Event) -> None:
    certificates.record_released(transaction, _ORIGIN, event.body, actor=event.actor)


def _crl(transaction: Transaction, event: Event) -> None:
    crls.take_over(transaction, event.body["ca_id"], event.body["der"])


def _keys(transaction: Transaction, event: Event) -> None:
    """Trust other directive keys; who sent this was verified by one that is trusted now."""
    spkis: list[bytes] = event.body["spkis"]
    for spki in spkis:
        keys.load_p256(spki)
    facts.put(transaction, identity.DIRECTIVE_KEYS, json.dumps([one.hex() for one in spkis]))


def _access(_transaction: Transaction, event: Event) -> None:
    """Check that it can be read; gateway.enrollment takes it from the directive that is held."""
    Access.from_document(event.body["document"])


def _devices(transaction: Transaction, event: Event) -> None:
    body = event.body
    try:
        records = [DeviceRecord(**record) for record in body["records"]]
    except TypeError as error:
        raise BadRequestError("A device record has fields that are not known here.") from error
    devices.put(transaction, records, body["number"])
    devices.drop(transaction, body["removed"])


def _certificate(body: Body) -> str:
    return f"{body['ca_id']}/{body['serial']}"


def _certificate_hold(body: Body) -> str:
    return f"{_certificate(body)}/{body['hold_id']}"


_SUBJECTS: Mapping[str, Callable[[Body], str]] = {
    "bundle": lambda _body: "",
    "grant": lambda body: str(body["document"].get("grant_id", "")),
    "revoke": _certificate,
    "hold": _certificate_hold,
    "release": _certificate_hold,
    "crl": lambda body: body["ca_id"],
    "responder": lambda body: body["ca_id"],
    "identity": lambda _body: "",
    "keys": lambda _body: "",
    "authority": lambda body: body["ca_id"],
    "command": lambda body: body["command_id"],
    "access": lambda _body: "",
    "devices": lambda _body: "",
    "codes": lambda body: body["batch"],
    "enrollment": lambda body: body["reference"],
}

#: What a directive does at once; what takes more than a transaction is a gateway.standing_orders.
_EFFECTS: Mapping[str, Callable[[Transaction, Event], None]] = {
    "bundle": _bundle,
    "grant": _put_grant,
    "revoke": _revoke,
    "hold": _hold,
    "release": _release,
    "crl": _crl,
    "keys": _keys,
    "access": _access,
    "devices": _devices,
    "enrollment": receiving.receive,
}
