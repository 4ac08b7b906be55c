"""What is compared of certificates, and how each is told again (shared.sync.anti_entropy)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, select

from shared.store import certificates
from shared.store.schema import certificate, hold
from shared.store.transaction import Transaction
from shared.sync.events import Event, create
from shared.sync.ports import Holding, Outcome

#: Takes in what a gateway tells of a certificate.
Settle = Callable[[Transaction, Holding, Sequence[Event]], Outcome]

_ACTOR = "system"
_PAGE = (
    select(certificate.c.id, certificate.c.ca_id, certificate.c.serial, certificate.c.status)
    .where(
        certificate.c.origin == "",
        certificate.c.id > bindparam("after"),
        certificate.c.issued_at <= bindparam("until"),
    )
    .order_by(certificate.c.id)
    .limit(bindparam("most"))
)
_THIS = (certificate.c.ca_id == bindparam("ca")) & (certificate.c.serial == bindparam("number"))
_ONE = select(certificate).where(_THIS)
_HOLDS = (
    select(hold)
    .where(hold.c.ca_id == bindparam("ca"), hold.c.serial == bindparam("number"))
    .order_by(hold.c.held_at)
)
#: What the row does not keep of the event that reported it.
_UNKNOWN_INTENT = "compared"


class HoldingTables:
    """``shared.sync.ports.HoldingTransaction`` (see there) inside one transaction."""

    def __init__(self, tx: Transaction, settle: Settle) -> None:
        self._tx = tx
        self._settle = settle

    def page(self, after: int, until_us: int, most: int) -> Sequence[Holding]:
        """Read what we issued up to a moment, after a number, in order."""
        place = {"after": after, "until": until_us, "most": most}
        return [Holding(*row) for row in self._tx.all(_PAGE, place)]

    def told(self, holding: Holding) -> Sequence[Event]:
        """Say all that is known of one of them, as it was reported once."""
        this = {"ca": holding.ca_id, "number": holding.serial}
        row: Any = self._tx.one(_ONE, this)
        if row is None:
            return []
        found: list[Event] = []
        if row.state == "voided":
            named = ("ca_id", "serial", "profile", "device_id", "grant_id")
            body = {name: getattr(row, name) for name in named}
            return [self._event("certificate.voided", body | {"reason": "compared"})]
        if row.der is not None:
            issued = self._event("certificate.issued", issued_body(row))
            found.append(replace(issued, utc_us=row.issued_at, clock=row.clock_quality))
        place = {"ca_id": row.ca_id, "serial": row.serial}
        for one in self._tx.all(_HOLDS, this):
            kind = "certificate.held" if one.released_at is None else "certificate.released"
            found.append(self._event(kind, place | {"hold_id": one.hold_id}))
        if row.status == "revoked":
            body = place | {"reason": row.reason, "revoked_at_us": row.revoked_at}
            found.append(self._event("certificate.revoked", body | {"device_id": row.device_id}))
        return found

    def settle(self, holding: Holding, told: Sequence[Event]) -> Outcome:
        """Take in what a gateway tells of a certificate."""
        return self._settle(self._tx, holding, told)

    def _event(self, type_name: str, body: dict[str, Any]) -> Event:
        return create(type_name, body, actor=_ACTOR, now=self._tx.now, random=self._tx.random)


def issued_body(row: Any) -> dict[str, Any]:
    """Say of a certificate what ``certificate.issued`` said."""
    return {name: getattr(row, name) for name in certificates.AS_REPORTED} | {
        "metadata": json.loads(row.metadata or "{}"),
        "test": bool(row.test),
        "intent_id": _UNKNOWN_INTENT,
    }
