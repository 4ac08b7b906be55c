"""CRLs on their way to central: whole in one event, or in parts when they are too large for it."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, ForbiddenError
from shared.kernel.limits import CRL_BYTES_MAX, CRL_PART_BYTES_MAX
from shared.pki.partitions import Partition
from shared.store import cursors, facts
from shared.store.outbox import Outbox
from shared.store.schema import COMPLETE, ca, crl, crl_part
from shared.store.transaction import Transaction
from shared.sync.events import Lane
from shared.sync.join import CENTRAL_NAME

_ACTOR = "system"
#: Parts go up at most daily; less than a day, so that a daily CRL is never late by a moment.
#: Deltas and partitions are what is new: hourly.
_DAILY_US, _HOURLY_US = 20 * 3600 * US_PER_SECOND, 3600 * US_PER_SECOND

_OF_CA = and_(crl_part.c.ca_id == bindparam("ca"), crl_part.c.scope == bindparam("of_scope"))
_KNOWN = select(ca.c.ca_id).where(ca.c.ca_id == bindparam("ca"))
_SERVED = select(func.coalesce(func.max(crl.c.number), 0).label("number")).where(
    crl.c.ca_id == bindparam("ca"), crl.c.scope == bindparam("of_scope")
)
_NEWEST_BEGUN = select(crl_part.c.number, crl_part.c.parts).where(_OF_CA)
_DROP = delete(crl_part).where(_OF_CA)
_ADD = insert(crl_part).on_conflict_do_nothing()
_HAVE = select(func.count().label("parts")).where(_OF_CA)
_PARTS = select(crl_part.c.der).where(_OF_CA).order_by(crl_part.c.part)


def publish(
    tx: Transaction, outbox: Outbox | None, ca_id: str, number: int, der: bytes, *, scope: str
) -> None:
    """Emit ``crl.published``, or ``crl.part``s for a large CRL of a gateway.

    A gateway that is offline for months would fill its outbox with sets of parts: the next set is
    emitted only when central has applied the one before of its scope, and at most daily. What
    central serves meanwhile is an older CRL, and each revocation by OCSP. Central hands down no
    large CRL. Raises ForbiddenError for one that central could never put together.
    """
    if outbox is not None and len(der) > CRL_BYTES_MAX:
        raise ForbiddenError(f"A CRL of a gateway has at most {CRL_BYTES_MAX:,} bytes.")
    if len(der) <= CRL_PART_BYTES_MAX:
        body = {"ca_id": ca_id, "number": number, "der": der}
        tx.emit("crl.published", body, actor=_ACTOR)
    elif outbox is not None and _is_due(tx, ca_id, scope):
        starts = range(0, len(der), CRL_PART_BYTES_MAX)
        for part, start in enumerate(starts):
            piece = der[start : start + CRL_PART_BYTES_MAX]
            body = {"ca_id": ca_id, "number": number, "part": part, "parts": len(starts)}
            if Partition.parse(scope):  # older peers do not know it, nor partitions
                body["scope"] = scope
            tx.emit("crl.part", {**body, "der": piece}, actor=_ACTOR)
        _remember(tx, outbox, ca_id, scope)


def collect(tx: Transaction, body: Mapping[str, Any]) -> bytes | None:
    """Keep a part (the body of ``crl.part``) and give the DER of the CRL once all are here.

    Of each scope only the parts of the newest number are kept. The DER is not verified. Raises
    BadRequestError for a part that contradicts those before it.
    """
    scope = body.get("scope", "")
    this = {"ca": body["ca_id"], "of_scope": scope}
    served: Any = tx.one(_SERVED, {**this, "of_scope": scope or COMPLETE})
    if tx.one(_KNOWN, this) is None or body["number"] <= served.number:
        return None
    begun: Any = tx.one(_NEWEST_BEGUN, this)
    if begun is not None and begun.number > body["number"]:
        return None
    if begun is not None and begun.number < body["number"]:
        tx.execute(_DROP, this)
    elif begun is not None and begun.parts != body["parts"]:
        raise BadRequestError(f"The parts of CRL {body['number']} disagree about their number.")
    tx.execute(_ADD, {**body, "scope": scope})
    have: Any = tx.one(_HAVE, this)
    if have.parts < body["parts"]:
        return None
    der = b"".join(row.der for row in tx.all(_PARTS, this))
    tx.execute(_DROP, this)
    return der


def _is_due(tx: Transaction, ca_id: str, scope: str) -> bool:
    sent = facts.get(tx, _fact(ca_id, scope))
    if sent is None:
        return True
    segment, sequence, at_us = json.loads(sent)
    applied = cursors.get(tx, CENTRAL_NAME, "out", segment, Lane.NORMAL).applied
    every_us = _DAILY_US if scope == COMPLETE else _HOURLY_US
    return applied >= sequence and not 0 <= tx.now.utc_us - at_us < every_us


def _remember(tx: Transaction, outbox: Outbox, ca_id: str, scope: str) -> None:
    opened = outbox.heads(tx, CENTRAL_NAME)
    if opened is not None:
        segment, heads = opened
        sent = [segment.name, heads[Lane.NORMAL].sequence, tx.now.utc_us]
        facts.put(tx, _fact(ca_id, scope), json.dumps(sent))


def _fact(ca_id: str, scope: str) -> str:
    name = f"crl_parts_sent/{ca_id}"
    return name if scope == COMPLETE else f"{name}/{scope}"
