"""What central makes of a certificate that a gateway tells of again, because the two may differ."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select

from central.sync.apply import Applier
from shared.kernel.errors import UntrustedError
from shared.store.schema import certificate, hold
from shared.store.transaction import Transaction
from shared.sync.events import Event
from shared.sync.ports import Holding, Outcome

#: revoked > hold > good (design.md §4): who is further is right.
_RANK = {"good": 0, "hold": 1, "revoked": 2}
_THIS = select(certificate).where(
    certificate.c.ca_id == bindparam("ca"), certificate.c.serial == bindparam("number")
)
_HOLDS = select(hold.c.hold_id).where(
    hold.c.ca_id == bindparam("ca"),
    hold.c.serial == bindparam("number"),
    hold.c.released_at.is_(None),
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
    if known is None or theirs > ours or known.state == "stub":
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
