"""What follows from central's own acts, in their transaction: audit, and orders to gateways.

It is the outbox's addressee for events without one: whoever revokes here, by page, REST or
command line, ends in the same line below.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select

from central.inventory import audit
from central.sync import directives
from shared.store.schema import ca, certificate, gateway
from shared.store.transaction import Transaction
from shared.sync.events import Event

_ORDERS = {
    "certificate.revoked": "revoke",
    "certificate.held": "hold",
    "certificate.released": "release",
}
_ORDERED_FIELDS = ("ca_id", "serial", "reason", "hold_id")
_OWNER = select(ca.c.gateway, ca.c.kind).where(ca.c.ca_id == bindparam("wanted"))
#: What central signed for a gateway's requesters is known there, too.
_REQUESTED = select(certificate.c.origin).where(
    certificate.c.ca_id == bindparam("ca"),
    certificate.c.serial == bindparam("number"),
    certificate.c.origin.in_(select(gateway.c.name)),
)
_ACTIVE = select(gateway.c.name).where(gateway.c.state == "active")
_PARENT_KINDS = ("root", "fleet")


def enter(transaction: Transaction, event: Event) -> None:
    """Take an event of central's own."""
    body = event.body
    if event.type == "crl.published":
        _hand_down(transaction, body, event.actor)
        return
    subject = f"{body['ca_id']}/{body['serial']}" if "serial" in body else str(body["profile"])
    audit.add(transaction, event.actor, event.type, subject, _told(body))
    kind = _ORDERS.get(event.type)
    holder = _holder(transaction, body) if kind else None
    if kind is not None and holder is not None:
        order = {name: body[name] for name in _ORDERED_FIELDS if name in body}
        directives.order_status(transaction, holder, kind, order, event.actor)


def _holder(transaction: Transaction, body: Mapping[str, Any]) -> str | None:
    """Name the gateway that keeps the status of a certificate, if one does."""
    owner: Any = transaction.one(_OWNER, {"wanted": body["ca_id"]})
    if owner is not None and owner.gateway is not None:
        return owner.gateway
    place = {"ca": body["ca_id"], "number": body["serial"]}
    requested: Any = transaction.one(_REQUESTED, place)
    return requested and requested.origin


def _hand_down(transaction: Transaction, body: Mapping[str, Any], actor: str) -> None:
    """Give every gateway the CRL of a CA above its own."""
    owner: Any = transaction.one(_OWNER, {"wanted": body["ca_id"]})
    if owner is None or owner.kind not in _PARENT_KINDS:
        return
    for row in transaction.all(_ACTIVE):
        directives.order_crl(transaction, row.name, body["ca_id"], body["der"], actor)


def _told(body: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is no text: the certificate itself is in the inventory."""
    return {name: value for name, value in body.items() if not isinstance(value, bytes)}
