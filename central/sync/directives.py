"""What central orders a gateway, written to its outbox in the transaction of the decision."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from shared.kernel import cbor
from shared.kernel.ids import uuid7
from shared.kernel.limits import EVENT_BYTES_MAX
from shared.policy.access import Access
from shared.policy.bundle import Bundle
from shared.policy.grant import Grant
from shared.store import facts
from shared.store.schema import directive
from shared.store.transaction import Transaction
from shared.sync.events import create
from shared.sync.ports import Directive

#: The kind of directive that says which directive keys to trust.
KEYS: Final = "keys"
#: The kind of directive that answers a forwarded request.
ENROLLMENT: Final = "enrollment"
_INCARNATION = "incarnation"
_NUMBER = "directive_number"
_GIVEN = (
    select(directive)
    .where(directive.c.peer == bindparam("gateway_name"))
    .order_by(directive.c.number)
)
_KNOWN = select(directive.c.incarnation, directive.c.number).where(
    directive.c.peer == bindparam("gateway_name"),
    directive.c.kind == bindparam("which"),
    directive.c.subject == bindparam("about"),
)
_FORGET = delete(directive).where(
    directive.c.peer == bindparam("gateway_name"), directive.c.kind == bindparam("which")
)
_inserted = insert(directive)
_PUT = _inserted.on_conflict_do_update(
    index_elements=[directive.c.peer, directive.c.kind, directive.c.subject],
    set_={
        name: getattr(_inserted.excluded, name)
        for name in ("incarnation", "number", "envelope", "created_at")
    },
)


def incarnation(transaction: Transaction) -> str:
    """Name this life of central's database; the first call gives the name."""
    known = facts.get(transaction, _INCARNATION)
    if known is None:
        known = transaction.random(16).hex()
        facts.put(transaction, _INCARNATION, known)
    return known


def renew_incarnation(transaction: Transaction) -> str:
    """Begin another life: this database was put back from a backup. Gives the former's name."""
    former = incarnation(transaction)
    facts.put(transaction, _INCARNATION, transaction.random(16).hex())
    return former


def order_bundle(transaction: Transaction, gateway: str, bundle: Bundle, actor: str) -> None:
    """Put profiles and CA certificates in force."""
    body = {"document": bundle.to_document()}
    _order(transaction, gateway, "bundle", "", body, actor=actor)


def order_grant(transaction: Transaction, gateway: str, grant: Grant, actor: str) -> None:
    """Say what the gateway may do without asking."""
    body = {"document": grant.to_document()}
    _order(transaction, gateway, "grant", grant.grant_id, body, actor=actor)


def order_responder(
    transaction: Transaction, gateway: str, ca_id: str, spki: bytes, actor: str
) -> None:
    """Have central's OCSP key for this CA certified."""
    body = {"ca_id": ca_id, "spki": spki}
    _order(transaction, gateway, "responder", ca_id, body, actor=actor)


def order_crl(transaction: Transaction, gateway: str, ca_id: str, der: bytes, actor: str) -> None:
    """Hand down the CRL of a parent CA."""
    body = {"ca_id": ca_id, "der": der}
    _order(transaction, gateway, "crl", ca_id, body, actor=actor)


def order_identity(transaction: Transaction, gateway: str, certificate: bytes, actor: str) -> None:
    """Give the transport certificate (DER) for the keys that the gateway asked for."""
    _order(transaction, gateway, "identity", "", {"certificate": certificate}, actor=actor)


def order_authority(
    transaction: Transaction, gateway: str, body: Mapping[str, Any], actor: str
) -> None:
    """Put a certificate of the gateway's CA in force: its next period, or under another parent."""
    _order(transaction, gateway, "authority", body["ca_id"], body, actor=actor)


def order_command(
    transaction: Transaction, gateway: str, command: str, not_after_us: int, actor: str
) -> str:
    """Have one thing done by ``not_after_us`` (UTC µs) or not at all; gives the command's id."""
    command_id = uuid7(transaction.now, transaction.random)
    body = {"command_id": command_id, "command": command, "not_after_us": not_after_us}
    _order(transaction, gateway, "command", command_id, body, actor=actor)
    return command_id


def order_access(transaction: Transaction, gateway: str, access: Access, actor: str) -> None:
    """Say who may enroll."""
    body = {"document": access.to_document()}
    _order(transaction, gateway, "access", "", body, actor=actor)


def order_devices(
    transaction: Transaction,
    gateway: str,
    records: Sequence[Mapping[str, Any]],
    removed: Sequence[str],
    actor: str,
) -> None:
    """Hand down device records, and say which devices to forget."""
    body = {"records": list(records), "removed": list(removed)}
    _order(transaction, gateway, "devices", "", body, actor=actor)


def order_codes(
    transaction: Transaction, gateway: str, batch: str, sealed: bytes, actor: str
) -> None:
    """Hand down one-time codes, sealed to the gateway's exchange key."""
    body = {"batch": batch, "sealed": sealed}
    _order(transaction, gateway, "codes", batch, body, actor=actor)


def order_enrollment(
    transaction: Transaction, gateway: str, reference: str, body: Mapping[str, Any]
) -> None:
    """Answer a request that the gateway forwarded."""
    answer = {"reference": reference, **body}
    _order(transaction, gateway, ENROLLMENT, reference, answer, actor="system")


def is_given(transaction: Transaction, gateway: str, kind: str, subject: str) -> bool:
    """Tell if the gateway was ordered something of this kind about this subject."""
    wanted = {"gateway_name": gateway, "which": kind, "about": subject}
    return transaction.one(_KNOWN, wanted) is not None


def order_keys(transaction: Transaction, gateway: str, spkis: Sequence[bytes], actor: str) -> None:
    """Say which directive keys (SPKIs, the newest first) to trust from now on, and no others."""
    _order(transaction, gateway, KEYS, "", {"spkis": list(spkis)}, actor=actor)


def forget_keys(transaction: Transaction, gateway: str) -> None:
    """Forget what was ordered of directive keys: a gateway that joins pins the present one."""
    transaction.execute(_FORGET, {"gateway_name": gateway, "which": KEYS})


def order_status(
    transaction: Transaction, gateway: str, kind: str, body: Mapping[str, Any], actor: str
) -> None:
    """Have a certificate of the gateway revoked, held or released (``kind``)."""
    subject = "/".join(filter(None, (body["ca_id"], body["serial"], body.get("hold_id"))))
    _order(transaction, gateway, kind, subject, body, actor=actor)


def reissue(gateway: str, transaction: Transaction) -> None:
    """Write again, unchanged and in their order, all directives that a gateway was given."""
    for row in transaction.all(_GIVEN, {"gateway_name": gateway}):
        body = cbor.decode(row.envelope, limit=EVENT_BYTES_MAX)
        place = {"incarnation": row.incarnation, "number": row.number}
        transaction.emit(f"directive.{row.kind}", {**body, **place}, actor="system", peer=gateway)


def regain(transaction: Transaction, gateway: str, given: Directive) -> Mapping[str, Any] | None:
    """Learn a directive that the gateway was given and this central forgot; numbers go on above.

    Gives its body; None if what is known here is as new or, being of this incarnation, newer.
    Raises BadRequestError when it cannot be read.
    """
    body = _body(transaction, given)
    place = {"incarnation": body.pop("incarnation"), "number": body.pop("number")}
    highest = max(int(facts.get(transaction, _NUMBER) or 0), place["number"])
    facts.put(transaction, _NUMBER, str(highest))
    subject = {"gateway_name": gateway, "which": given.kind, "about": given.subject}
    known = transaction.one(_KNOWN, subject)
    if known is not None and (
        known.incarnation == incarnation(transaction) or known.number >= place["number"]
    ):
        return None
    row = {
        "peer": gateway,
        "kind": given.kind,
        "subject": given.subject,
        **place,
        "envelope": cbor.encode(body),
        "created_at": given.ordered_us,
    }
    transaction.execute(_PUT, row)
    return body


def _body(transaction: Transaction, given: Directive) -> dict[str, Any]:
    body: Any = cbor.decode(given.body, limit=EVENT_BYTES_MAX)
    create(  # only to have it checked against the catalogue
        f"directive.{given.kind}",
        body,
        actor="system",
        now=transaction.now,
        random=transaction.random,
    )
    return dict(body)


def _order(
    transaction: Transaction,
    gateway: str,
    kind: str,
    subject: str,
    body: Mapping[str, Any],
    *,
    actor: str,
) -> None:
    number = int(facts.get(transaction, _NUMBER) or 0) + 1
    facts.put(transaction, _NUMBER, str(number))
    place = {"incarnation": incarnation(transaction), "number": number}
    transaction.emit(f"directive.{kind}", {**body, **place}, actor=actor, peer=gateway)
    row = {
        "peer": gateway,
        "kind": kind,
        "subject": subject,
        **place,
        "envelope": cbor.encode(dict(body)),
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(_PUT, row)
