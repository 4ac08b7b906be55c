"""Central's answers to forwarded requests, applied in the transaction that receives them."""

from collections.abc import Mapping
from typing import Any

from cryptography import x509
from sqlalchemy import select

from gateway import certified
from gateway.issuing import ISSUING
from shared.kernel import cbor, limits
from shared.kernel.errors import UntrustedError
from shared.pki import chain, keys
from shared.policy.bundle import Bundle
from shared.store import certificates, forwarded
from shared.store.schema import ca, directive
from shared.store.transaction import Transaction
from shared.sync.events import Event
from shared.sync.join import CENTRAL_NAME

_ROOTS = select(ca.c.der).where(ca.c.kind == "root")
_BUNDLE = select(directive.c.envelope).where(
    directive.c.peer == CENTRAL_NAME, directive.c.kind == "bundle"
)
_ACTOR = "system"


def receive(transaction: Transaction, event: Event) -> None:
    """Take an answer: a certificate with its chain, or why there is none.

    A certificate is kept also if the request is not known here any more: it was issued, and who
    looks for it finds it. Raises UntrustedError when it is not what was asked for, or leads to no
    root that central named.
    """
    body = event.body
    if body["refusal"] is not None:
        forwarded.refused(transaction, body["reference"], body["refusal"])
        return
    issued = body["issued"]
    parsed = _checked(transaction, body)
    certified.know(transaction, body["chain"], first=ISSUING)
    certificates.record_issued(
        transaction,
        CENTRAL_NAME,
        {**issued, "grant_id": None},  # central has booked the unit
        issued_at_us=body["issued_at_us"],
        clock_quality=event.clock,
        parsed=parsed,
    )
    place = {"ca_id": issued["ca_id"], "serial": issued["serial"]}
    forwarded.issued(transaction, body["reference"], **place)
    told = {"reference": body["reference"], **place}
    transaction.emit("certificate.received", told, actor=_ACTOR)


def _checked(transaction: Transaction, body: Mapping[str, Any]) -> x509.Certificate:
    der, above = body["issued"]["der"], body["chain"]
    try:
        parsed = x509.load_der_x509_certificate(der)
        ca_id = certified.ca_id(above[0]) if above else ""
        serial = int(body["issued"]["serial"], 16)
    except ValueError as error:
        raise UntrustedError("The certificate or its chain cannot be read.") from error
    asked = forwarded.public_key(transaction, body["reference"])
    key = keys.of(parsed)
    if asked is not None and (key is None or keys.spki(key) != asked):
        raise UntrustedError("The certificate is for another key than the request.")
    if ca_id != body["issued"]["ca_id"]:
        raise UntrustedError("The certificate's chain does not begin with its CA.")
    if parsed.serial_number != serial:
        raise UntrustedError("The certificate has another serial number than the answer says.")
    # At the time of issue: this box's clock may be wrong, and the answer may have waited.
    chain.verify(der, above, _roots(transaction, above[-1]), body["issued_at_us"])
    return parsed


def _roots(transaction: Transaction, wanted: bytes) -> list[bytes]:
    """Give the roots that are trusted: those of the join, and all that the bundle names."""
    known = [row.der for row in transaction.all(_ROOTS)]
    held: Any = None if wanted in known else transaction.one(_BUNDLE)
    if held is not None:
        document = cbor.decode(held.envelope, limit=limits.EVENT_BYTES_MAX)["document"]
        known += [der for der in Bundle.from_document(document).certificates if der == wanted]
    return known
