"""Requests that gateways forwarded: they wait here from their event to the order that answers it.

All inside transactions; ``central.forwarding`` decides and signs. What was answered is known by
its directive, so an event that comes again, after a restore too, is not answered twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from central.sync import directives
from central.sync.tally import Tally
from shared.issuance import forwarding
from shared.kernel import cbor
from shared.store import certificates, devices, holdings
from shared.store.schema import certificate, forward_request
from shared.store.transaction import Transaction
from shared.sync.events import Event
from shared.sync.ports import Directive

Body = Mapping[str, Any]

_ADD = insert(forward_request).on_conflict_do_nothing()
_TAKE = delete(forward_request).where(
    forward_request.c.gateway == bindparam("name"),
    forward_request.c.reference == bindparam("which"),
)
_DROP = delete(forward_request).where(forward_request.c.gateway == bindparam("name"))
_CERTIFICATE = select(certificate).where(
    certificate.c.ca_id == bindparam("ca"), certificate.c.serial == bindparam("number")
)


def receive(transaction: Transaction, gateway: str, event: Event) -> None:
    """Let a request wait; raises BadRequestError when it cannot be read by this version."""
    forwarding.understood(event.body, gateway, event.id)
    if directives.is_given(transaction, gateway, directives.ENROLLMENT, event.id):
        return
    row = {
        "gateway": gateway,
        "reference": event.id,
        "document": cbor.encode(dict(event.body)),
        "received_at": transaction.now.utc_us,
    }
    transaction.execute(_ADD, row)


def issued(
    transaction: Transaction,
    row: Any,
    ca_id: str,
    serial: str,
    *,
    chain: Sequence[bytes],
    code: bytes | None,
) -> None:
    """Answer a request with a certificate of the inventory; its one-time code is used up."""
    if not _take(transaction, row.gateway, row.reference):
        return
    found: Any = transaction.one(_CERTIFICATE, {"ca": ca_id, "number": serial})
    body: Body = {
        "issued": holdings.issued_body(found),
        "issued_at_us": found.issued_at,
        "chain": list(chain),
        "refusal": None,
    }
    directives.order_enrollment(transaction, row.gateway, row.reference, body)
    if code is not None:
        devices.mark_spent(transaction, code, row.gateway, f"{ca_id}/{serial}")


def refused(transaction: Transaction, row: Any, refusal: Body) -> None:
    """Answer a request with the reason why it is refused."""
    if _take(transaction, row.gateway, row.reference):
        body: Body = {
            "issued": None,
            "issued_at_us": transaction.now.utc_us,
            "chain": [],
            "refusal": dict(refusal),
        }
        directives.order_enrollment(transaction, row.gateway, row.reference, body)


def regain(transaction: Transaction, gateway: str, given: Directive, body: Body) -> None:
    """Know again what a restored central had answered: the certificate, and the unit it took."""
    _take(transaction, gateway, given.subject)
    if body["issued"] is None:
        return
    new = certificates.record_issued(
        transaction,
        gateway,
        body["issued"],
        issued_at_us=body["issued_at_us"],
        clock_quality=transaction.now.quality.value,
    )
    if new and body["issued"]["grant_id"] is not None:
        tally = Tally(transaction, gateway)
        tally.book(body["issued"]["grant_id"])
        tally.settle()


def drop(transaction: Transaction, gateway: str) -> None:
    """Forget what a gateway asked in a life that is over: nobody waits for the answers."""
    transaction.execute(_DROP, {"name": gateway})


def _take(transaction: Transaction, gateway: str, reference: str) -> bool:
    """Take a request up; False if it was answered already."""
    return transaction.execute(_TAKE, {"name": gateway, "which": reference}) > 0
