"""What central makes of a certificate that a gateway tells of again, because the two may differ."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, select, update

from central.sync.apply import Applier
from shared.kernel.errors import UntrustedError
from shared.store import certificates, counters
from shared.store.schema import REPORTED, certificate, grant_use, hold
from shared.store.transaction import Transaction
from shared.sync.events import Event
from shared.sync.ports import Holding, Outcome

#: revoked > hold > good (design.md §4): who is further is right.
_RANK = {"good": 0, "hold": 1, "revoked": 2}
_FILLS_A_STUB = frozenset({"certificate.issued", "certificate.voided"})
_THIS = select(certificate).where(
    certificate.c.ca_id == bindparam("ca"), certificate.c.serial == bindparam("number")
)
_HOLDS = select(hold.c.hold_id).where(
    hold.c.ca_id == bindparam("ca"),
    hold.c.serial == bindparam("number"),
    hold.c.released_at.is_(None),
)
_NUMBERS = (
    select(certificate.c.state, certificate.c.status, func.count().label("number"))
    .where(certificate.c.origin == bindparam("name"), REPORTED)
    .group_by(certificate.c.state, certificate.c.status)
)
_GRANTS = (
    select(certificate.c.grant_id, func.count().label("number"))
    .where(
        certificate.c.origin == bindparam("name"),
        REPORTED,
        certificate.c.grant_id.is_not(None),
        certificate.c.state != "stub",
    )
    .group_by(certificate.c.grant_id)
)
_SET_USED = (
    update(grant_use).where(grant_use.c.grant_id == bindparam("id")).values(used=bindparam("units"))
)


def settle(name: str, transaction: Transaction, holding: Holding, told: Sequence[Event]) -> Outcome:
    """Learn what only the gateway knows; order again what it does not know.

    Raises UntrustedError: the certificate is not one of this gateway.
    """
    this = {"ca": holding.ca_id, "number": holding.serial}
    known: Any = transaction.one(_THIS, this)
    if known is not None and known.origin != name:
        raise UntrustedError("The certificate is not one of this gateway.")
    theirs, ours = _RANK.get(holding.status, 0), -1 if known is None else _RANK[known.status]
    issued = any(event.type in _FILLS_A_STUB for event in told)
    if known is None or theirs > ours or (known.state == "stub" and issued):
        Applier(name).apply_all(transaction, told)
        return Outcome.REPAIRED
    if theirs == ours:
        return Outcome.SAME
    place = {"ca_id": holding.ca_id, "serial": holding.serial}
    if known.status == "revoked":
        body = {"reason": known.reason, "revoked_at_us": known.revoked_at, "device_id": None}
        transaction.emit("certificate.revoked", place | body, actor="system")
    else:
        for row in transaction.all(_HOLDS, this):
            transaction.emit("certificate.held", place | {"hold_id": row.hold_id}, actor="system")
    return Outcome.ORDERED


def recount(transaction: Transaction, name: str) -> None:
    """Count anew what is counted of a gateway's certificates.

    What is taken back was counted before it got lost, perhaps: nobody knows.
    """
    this = {"name": name}
    found = {(row.state, row.status): row.number for row in transaction.all(_NUMBERS, this)}
    for state in ("issued", "voided", "stub"):
        number = sum(count for (of, _), count in found.items() if of == state)
        counters.put(transaction, state, name, number)
    for status, counter in certificates.COUNTED.items():
        counters.put(transaction, counter, name, found.get(("issued", status), 0))
    for row in transaction.all(_GRANTS, this):
        transaction.execute(_SET_USED, {"id": row.grant_id, "units": row.number})
