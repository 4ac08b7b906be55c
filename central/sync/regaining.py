"""What a central that was put back from a backup learns again from each gateway.

The gateways hold what central had ordered since the backup. It is believed: a gateway that lies
about its own orders gains nothing that its CA key does not give it already, and each of them
stands in the audit log.
"""

import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from central.authority.hierarchy import FLEET, gateway_title, store_authority
from central.inventory import audit, conflicts
from central.sync import directive_keys, directives, fleet, forwards
from central.sync.apply import Applier
from shared.kernel.errors import Kind, TmaError, UntrustedError
from shared.policy.grant import Grant
from shared.store import facts
from shared.store.link import LACKING
from shared.store.outbox import Outbox
from shared.store.schema import ca, gateway, grant_use
from shared.store.transaction import Transaction
from shared.sync.events import create
from shared.sync.ports import Directive, Lacking

Body = Mapping[str, Any]

_JOINED = select(gateway.c.name).where(gateway.c.event_key.is_not(None))
_CA = select(ca.c.ca_id).where(ca.c.ca_id == bindparam("wanted"))
_FLEET_CAS = select(ca.c.ca_id, ca.c.der).where(ca.c.kind == FLEET)
_STATUS = {
    "revoke": "certificate.revoked",
    "hold": "certificate.held",
    "release": "certificate.released",
}
_granted = insert(grant_use)
_GRANT = _granted.on_conflict_do_update(
    index_elements=[grant_use.c.grant_id],  # what is used stays used
    set_={name: getattr(_granted.excluded, name) for name in ("version", "quota", "document")},
)


def begin(transaction: Transaction, outbox: Outbox) -> None:
    """Begin another incarnation: nothing is known for certain of any gateway.

    Gateways may hold directives under the numbers that would come next, so each gets a new segment.
    What the last comparison said is void: the next one comes as soon as the gateway has sent all,
    and finds what the backup lacks and the gateway has pruned.
    """
    for row in transaction.all(_JOINED):
        outbox.open_segment(transaction, row.name)
        facts.put(transaction, LACKING + row.name, Lacking.DIRECTIVES.value)
        facts.put(transaction, fleet.COMPARED + row.name, None)


def regain(name: str, transaction: Transaction, given: Directive) -> None:
    """Learn one directive again, with what it does here; what cannot be becomes a question."""
    told = {"kind": given.kind, "subject": given.subject, "number": given.number}
    try:
        with transaction.savepoint():
            body = directives.regain(transaction, name, given)
            if body is None:
                return
            _apply(transaction, name, given, body)
    except TmaError as error:
        if error.kind is Kind.RETRYABLE:
            raise
        detail = {**told, "why": error.message}
        conflicts.add(transaction, "directive-not-regained", name, given.kind, detail)
        return
    audit.add(transaction, f"gateway:{name}", "directive.regained", name, told)


def _apply(transaction: Transaction, name: str, given: Directive, body: Body) -> None:
    if given.kind in _STATUS:
        _status(transaction, name, given, body)
    elif given.kind == "grant":
        grant = Grant.from_document(body["document"])
        row = {
            "grant_id": grant.grant_id,
            "version": grant.version,
            "quota": grant.quota,
            "used": 0,
            "state": "active",
            "document": json.dumps(grant.to_document()).encode(),
        }
        transaction.execute(_GRANT, row)
    elif given.kind == "authority":
        _authority(transaction, name, body)
    elif given.kind == directives.ENROLLMENT:
        forwards.regain(transaction, name, given, body)
    elif given.kind == directives.KEYS and (own := directive_keys.trusted(transaction)):
        directives.order_keys(transaction, name, own, "system")  # what it holds may be newer


def _authority(transaction: Transaction, name: str, body: Body) -> None:
    """Know a CA again that was certified here; raises UntrustedError if it was not."""
    ca_id, der = body["ca_id"], body["der"]
    if transaction.one(_CA, {"wanted": ca_id}) is not None:
        return
    certificate = x509.load_der_x509_certificate(der)
    for parent in transaction.all(_FLEET_CAS):
        try:
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(parent.der))
        except (InvalidSignature, ValueError, TypeError):
            continue
        store_authority(
            transaction,
            kind="gateway",
            name=gateway_title(transaction, name),
            der=der,
            parent_id=parent.ca_id,
            gateway=name,
            issue_until_us=body["issue_until_us"],
        )
        return
    raise UntrustedError("The certificate of this CA was not issued here.")


def _status(transaction: Transaction, name: str, given: Directive, body: Body) -> None:
    """Apply it as if the gateway had reported the same: central's answers follow at once."""
    said = dict(body)
    if given.kind == "revoke":
        said["revoked_at_us"] = given.ordered_us
    event = create(
        _STATUS[given.kind],
        said,
        actor="system",
        now=transaction.now,
        random=transaction.random,
    )
    Applier(name).apply(transaction, event)
