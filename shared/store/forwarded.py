"""Requests that wait at a gateway for central: the port ``shared.issuance.ports.Forwards``.

A row and its event are one commit, so central hears of exactly what waits here. The certificate
that answers it is a row of ``certificate`` like any other, with the request's idempotency key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.issuance import forwarding
from shared.issuance.ports import CertificateRecord, Forward
from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import (
    KeyReusedError,
    PendingError,
    RefusedError,
    TmaError,
    UnavailableError,
)
from shared.store import certificates, devices, ledger
from shared.store.certificates import RECORD_COLUMNS
from shared.store.database import Database
from shared.store.schema import certificate, forwarded
from shared.store.transaction import Transaction
from shared.sync.events import Event

WAITING, ISSUED, REFUSED = "waiting", "issued", "refused"
#: After somebody heard of it a refusal is given again for so long; then the same request is a new
#: one, because what was wrong may be right by now.
_TOLD_US = 15 * 60 * US_PER_SECOND
_KEPT_US = 30 * 24 * 3600 * US_PER_SECOND
#: Who waits asks again after a quarter of the time that he has waited: that may become weeks.
_RETRY_MIN_S, _RETRY_MAX_S, _RETRY_PART = 5, 300, 4

_OF_KEY = (
    select(forwarded)
    .where(forwarded.c.idempotency_key == bindparam("key"))
    .order_by(forwarded.c.created_at.desc())
    .limit(1)
)
_OF_REFERENCE = select(forwarded).where(forwarded.c.reference == bindparam("which"))
_SHOWN = (
    select(*RECORD_COLUMNS)
    .where(certificate.c.ca_id == bindparam("ca"), certificate.c.serial == bindparam("number"))
    .limit(1)
)
_WAITING = (
    select(func.count().label("requests"))
    .select_from(forwarded)
    .where(forwarded.c.state == WAITING)
)
_ADD = insert(forwarded).on_conflict_do_nothing()
_TOLD = (
    update(forwarded)
    .where(forwarded.c.reference == bindparam("which"))
    .values(told_at=bindparam("now"))
)
_ANSWER = (
    update(forwarded)
    .where(forwarded.c.reference == bindparam("which"))
    .values(
        state=bindparam("becomes"),
        ca_id=bindparam("ca"),
        serial=bindparam("number"),
        rule=bindparam("by_rule"),
        value=bindparam("of_value"),
        message=bindparam("why"),
        remedy=bindparam("what_helps"),
        answered_at=bindparam("now"),
    )
)
_FORGET = delete(forwarded).where(
    forwarded.c.state != WAITING, forwarded.c.answered_at <= bindparam("long_ago")
)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A forwarded request as its requester may see it: what he would get if he asked again."""

    profile: str
    principal: str
    outcome: CertificateRecord | TmaError


class SqlForwards:
    """Implements ``Forwards``; ``find`` and ``waiting`` are for showing."""

    def __init__(self, database: Database) -> None:
        """Take the database; its event sink gets what is forwarded."""
        self._database = database

    async def forward(self, wanted: Forward) -> CertificateRecord:
        """Let a request wait, or give what an equal one has got; raises as the port says."""
        self._database.reserve.require_room()
        result = await self._database.writer.run(lambda tx: _forward(tx, wanted))
        if isinstance(result, TmaError):
            raise result
        return result

    async def earlier(self, idempotency_key: str, request_hash: bytes) -> CertificateRecord | None:
        """Give what an equal request has got; raises as the port says."""
        result = await self._database.writer.run(
            lambda tx: _earlier(tx, idempotency_key, request_hash)
        )
        if isinstance(result, TmaError):
            raise result
        return result

    async def find(self, reference: str) -> Forwarded | None:
        """Find a request by the name under which it waits or waited."""
        return await self._database.writer.run(lambda tx: _find(tx, reference))

    async def waiting(self) -> int:
        """Count what waits; there are ``limits.FORWARDED_WAITING_MAX`` at most."""
        return (await self._database.read(_WAITING))[0].requests

    async def purge(self) -> None:
        """Forget what was answered 30 days ago."""

        def unit(tx: Transaction) -> None:
            tx.execute(_FORGET, {"long_ago": tx.now.utc_us - _KEPT_US})

        await self._database.writer.run(unit)


def waits_again(tx: Transaction, event: Event) -> None:
    """Know a request again that this database, an old copy, had forgotten; its event came back."""
    body = event.body
    if tx.execute(_ADD, _row(body, event.id, event.utc_us)) and body["code"] is not None:
        devices.spend_code(tx, body["code"], body["idempotency_key"])


def public_key(tx: Transaction, reference: str) -> bytes | None:
    """Give the key (DER SPKI) that a request is for; None if it is not known here."""
    row: Any = tx.one(_OF_REFERENCE, {"which": reference})
    return row and row.public_key


def issued(tx: Transaction, reference: str, ca_id: str, serial: str) -> None:
    """Note that central signed; retries find the certificate that was just stored."""
    row = _answer(tx, reference, {"becomes": ISSUED, "ca": ca_id, "number": serial})
    if row is not None:
        certificates.let_retries_find(
            tx,
            ca_id,
            serial,
            idempotency_key=row.idempotency_key,
            request_hash=row.request_hash,
            replay_until=tx.now.utc_us + row.replay_us,
        )


def refused(tx: Transaction, reference: str, refusal: Mapping[str, Any]) -> None:
    """Note that central does not sign, and why; a one-time code may be used again."""
    said = {
        "becomes": REFUSED,
        "by_rule": refusal["rule"],
        "of_value": refusal["value"],
        "why": refusal["message"],
        "what_helps": refusal["remedy"],
    }
    row = _answer(tx, reference, said)
    if row is not None and row.code is not None:
        devices.give_code_back(tx, row.code, row.idempotency_key)


def _forward(tx: Transaction, wanted: Forward) -> CertificateRecord | TmaError:
    known = _earlier(tx, wanted.idempotency_key, wanted.request_hash)
    if known is not None:
        return known
    ledger.require_running(tx)
    waiting: Any = tx.one(_WAITING)
    if waiting.requests >= limits.FORWARDED_WAITING_MAX:
        raise UnavailableError(
            f"{waiting.requests} requests wait for central already; no more are taken.",
            remedy="Restore the link to central.",
            retry_after_s=_RETRY_MAX_S,
        )
    request = wanted.request
    ledger.spend_code(tx, request, wanted.idempotency_key)
    body = forwarding.told(wanted)
    reference = tx.emit("enrollment.forwarded", body, actor=request.principal)
    tx.execute(_ADD, _row(body, reference, tx.now.utc_us))
    return _pending(tx, reference, tx.now.utc_us)


def _earlier(
    tx: Transaction, idempotency_key: str, request_hash: bytes
) -> CertificateRecord | TmaError | None:
    record = ledger.earlier(tx, idempotency_key, request_hash, tx.now.utc_us)
    if record is not None:
        return record
    row: Any = tx.one(_OF_KEY, {"key": idempotency_key})
    if row is None or not _counts(tx, row):
        return None
    if row.request_hash != request_hash:
        raise KeyReusedError("This Idempotency-Key belongs to a request with another content.")
    return _outcome(tx, row)


def _counts(tx: Transaction, row: Any) -> bool:
    """Tell if an equal request is still the same one. What was issued is the ledger's to judge."""
    return row.state == WAITING or (
        row.state == REFUSED and tx.now.utc_us < (row.told_at or tx.now.utc_us) + _TOLD_US
    )


def _outcome(tx: Transaction, row: Any) -> TmaError:
    if row.state == WAITING:
        return _pending(tx, row.reference, row.created_at)
    if row.told_at is None:
        tx.execute(_TOLD, {"which": row.reference, "now": tx.now.utc_us})
    return RefusedError(row.rule, row.value, row.message, row.remedy)


def _find(tx: Transaction, reference: str) -> Forwarded | None:
    row: Any = tx.one(_OF_REFERENCE, {"which": reference})
    if row is None:
        return None
    if row.state == ISSUED:
        place = {"ca": row.ca_id, "number": row.serial}
        outcome = certificates.record_of(tx.one(_SHOWN, place))
    else:
        outcome = _outcome(tx, row)
    return Forwarded(row.profile, row.principal, outcome)


def _pending(tx: Transaction, reference: str, since_us: int) -> PendingError:
    waited_s = (tx.now.utc_us - since_us) // US_PER_SECOND
    pause_s = min(max(_RETRY_MIN_S, waited_s // _RETRY_PART), _RETRY_MAX_S)
    return PendingError(reference, retry_after_s=pause_s)


def _answer(tx: Transaction, reference: str, values: Mapping[str, Any]) -> Any:
    """Write the answer; gives the request, None if it is not known here or was answered."""
    row: Any = tx.one(_OF_REFERENCE, {"which": reference})
    if row is None or row.state != WAITING:
        return None
    blank = dict.fromkeys(("ca", "number", "by_rule", "of_value", "why", "what_helps"))
    tx.execute(_ANSWER, {**blank, **values, "which": reference, "now": tx.now.utc_us})
    return row


def _row(body: Mapping[str, Any], reference: str, created_at_us: int) -> dict[str, Any]:
    told = ("idempotency_key", "request_hash", "replay_us", "profile", "principal", "public_key")
    return {name: body[name] for name in (*told, "code")} | {
        "reference": reference,
        "state": WAITING,
        "created_at": created_at_us,
    }
