"""What this gateway's own events mean to its own tables, when they come back from central.

The database was an old copy: certificates, revocations, holds and CRL numbers that it had forgotten
become its own again by the same functions that wrote them first. Nothing is emitted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from shared.store import certificates, crls, devices, forwarded
from shared.store.schema import certificate, grant_use, intent
from shared.store.transaction import Transaction
from shared.sync.events import Event

_OWN = ""  # the origin of what this box issued itself
_COUNTED = (
    select(func.count())
    .select_from(certificate)
    .where(certificate.c.grant_id == grant_use.c.grant_id)
    .scalar_subquery()
)
_OPEN = select(func.count()).select_from(intent).scalar_subquery()
#: What was issued and voided counts, and what is open may be of any grant.
_RECOUNT = update(grant_use).values(used=_COUNTED + _OPEN)
_DONE = delete(intent).where(
    select(certificate.c.id)
    .where(certificate.c.ca_id == intent.c.ca_id, certificate.c.serial == intent.c.serial)
    .exists()
)
_USED = (
    update(grant_use)
    .where(grant_use.c.state == "active")
    .values(used=func.max(grant_use.c.used, grant_use.c.quota - bindparam("remaining")))
)


def reapply(transaction: Transaction, event: Event) -> None:
    """Make the effect of one own event ours again; what is known already changes nothing."""
    effect = _EFFECTS.get(event.type)
    if effect is not None:
        effect(transaction, event)


def recount(transaction: Transaction) -> None:
    """Drop open requests that had been finished, and count each grant's use again."""
    transaction.execute(_DONE)
    transaction.execute(_RECOUNT)


def assume_used(transaction: Transaction, remaining: int) -> None:
    """Let no grant have more than ``remaining`` units left: what was issued is not known."""
    transaction.execute(_USED, {"remaining": remaining})


def _issued(transaction: Transaction, event: Event) -> None:
    certificates.record_issued(
        transaction, _OWN, event.body, issued_at_us=event.utc_us, clock_quality=event.clock
    )


def _voided(transaction: Transaction, event: Event) -> None:
    certificates.record_voided(transaction, _OWN, event.body)


def _revoked(transaction: Transaction, event: Event) -> None:
    certificates.record_revoked(transaction, _OWN, event.body)


def _held(transaction: Transaction, event: Event) -> None:
    certificates.record_held(transaction, _OWN, event.body, actor=event.actor)


def _released(transaction: Transaction, event: Event) -> None:
    certificates.record_released(transaction, _OWN, event.body, actor=event.actor)


def _code(transaction: Transaction, event: Event) -> None:
    body = event.body
    by = f"{body['ca_id']}/{body['serial']}"
    devices.mark_spent(transaction, body["digest"], _OWN, by)


def _crl(transaction: Transaction, event: Event) -> None:
    body: Mapping[str, Any] = event.body
    crls.take_over(transaction, body["ca_id"], body["der"])


_EFFECTS: Mapping[str, Callable[[Transaction, Event], None]] = {
    "certificate.issued": _issued,
    "certificate.voided": _voided,
    "certificate.revoked": _revoked,
    "certificate.held": _held,
    "certificate.released": _released,
    "enrollment.forwarded": forwarded.waits_again,
    "code.spent": _code,
    "crl.published": _crl,
}
