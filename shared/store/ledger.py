"""The ledger: serials, intents and certificates of what this box issues (design.md §3).

Implements ``shared.issuance.ports.Ledger``. Each call is one unit of the writer; what can be
computed before is computed before, because all units share one writer.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cryptography.x509.oid import NameOID
from pydantic import ConfigDict, TypeAdapter
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from shared.issuance.ports import CertificateRecord, CertificateStatus, Intent
from shared.kernel.errors import (
    ConflictError,
    InProgressError,
    KeyReusedError,
    RefusedError,
    TmaError,
)
from shared.policy.profile import Existing
from shared.policy.request import EnrollmentRequest
from shared.store import certificates, counters, devices, facts
from shared.store.certificates import RECORD_COLUMNS
from shared.store.database import Database
from shared.store.schema import ca, certificate, fact, grant_use, intent
from shared.store.transaction import Transaction, Unit

_ACTOR = "system"
#: What a profile that allows one certificate of a device finds, at most, after it allowed many.
_EXISTING_MAX = 100
#: How an open intent is stored; pydantic takes a configuration around a dataclass only.
_DOCUMENT = TypeAdapter(
    tuple[Intent], config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
)

_REPLAY = (
    select(
        *RECORD_COLUMNS,
        certificate.c.replay_until,
        certificate.c.not_after,
    )
    .where(certificate.c.idempotency_key == bindparam("key"))
    .order_by(certificate.c.id.desc())
    .limit(1)
)
_LINE_REASON = select(fact.c.value).where(fact.c.name == facts.LINE).scalar_subquery()
_CA_STATE = select(ca.c.state).where(ca.c.ca_id == bindparam("ca_id")).scalar_subquery()
_LINE = select(_LINE_REASON.label("line"))
_FENCE = select(_LINE_REASON.label("line"), _CA_STATE.label("ca"))
_PASSABLE: ColumnElement[bool] = _LINE_REASON.is_(None) & (_CA_STATE == "active")
_BOOK = (
    update(grant_use)
    .where(
        grant_use.c.grant_id == bindparam("id"),
        grant_use.c.state == "active",
        grant_use.c.used < grant_use.c.quota,
    )
    .values(used=grant_use.c.used + 1)
)
_UNBOOK = (
    update(grant_use)
    .where(grant_use.c.grant_id == bindparam("id"))
    .values(used=grant_use.c.used - 1)
)
#: What a device has of a profile already, whichever CA signed it.
_EXISTING = (
    select(certificate.c.ca_id, certificate.c.serial)
    .where(
        certificate.c.device_id == bindparam("device"),
        # Not comparable by an index: it would be read for all devices (``central.sync.apply``).
        func.coalesce(certificate.c.profile, "") == bindparam("used_profile"),
        certificate.c.state == "issued",
        certificate.c.status != "revoked",
        certificate.c.not_after > bindparam("now"),
        certificate.c.test == 0,
    )
    .order_by(certificate.c.id.desc())
    .limit(_EXISTING_MAX)
)
_GRANT = select(grant_use.c.state, grant_use.c.quota).where(grant_use.c.grant_id == bindparam("id"))
_OPEN = insert(intent).on_conflict_do_nothing()
_OPEN_BY_KEY = select(intent.c.request_hash).where(intent.c.idempotency_key == bindparam("key"))
_THIS_INTENT = (intent.c.idempotency_key == bindparam("key")) & (
    intent.c.intent_id == bindparam("id")
)
_TAKE = delete(intent).where(_THIS_INTENT, _PASSABLE)
_DROP = delete(intent).where(_THIS_INTENT)
_ALL_OPEN = select(intent.c.document).order_by(intent.c.created_at, intent.c.intent_id)


class SqlLedger:
    """One issuer's serials and certificates in the database."""

    def __init__(self, database: Database) -> None:
        """Take the database; its event sink gets what the ledger emits."""
        self._database = database
        self._run = database.writer.run

    async def intend(self, intent: Intent) -> CertificateRecord | None:
        """Commit the intent and the grant's unit; or give what an equal request got.

        Raises KeyReusedError, InProgressError, RefusedError (rules ``grant.quota``,
        ``grant.ended`` and ``code.spent``), ConflictError, StorageFullError, OutcomeUnknownError.
        """
        [result] = await self.intend_each([intent])
        if isinstance(result, Exception):
            raise result
        return result

    async def intend_each(
        self, intents: Sequence[Intent]
    ) -> list[CertificateRecord | Exception | None]:
        """Do that for some that came together, each for itself; give what each would raise.

        Raises StorageFullError, UnavailableError (nothing happened).
        """
        self._database.reserve.require_room()
        units = [partial(_intend, wanted=intent, row=_intent_row(intent)) for intent in intents]
        return await self._database.writer.run_each(units)

    async def complete(self, intent: Intent, der: bytes) -> CertificateRecord:
        """Release the one DER, with its event; raises ConflictError when fenced."""
        [result] = await self.complete_each([(intent, der)])
        if isinstance(result, Exception):
            raise result
        return result

    async def complete_each(
        self, signed: Sequence[tuple[Intent, bytes]]
    ) -> list[CertificateRecord | Exception]:
        """Do that for some that came together, each for itself; give what each would raise.

        Raises UnavailableError (nothing happened).
        """
        units = [_completing(intent, der) for intent, der in signed]
        return await self._database.writer.run_each(units)

    async def release(self, intent: Intent) -> None:
        """Drop an intent whose key was surely not used; its unit returns to the grant."""
        await self._run(lambda tx: _release(tx, intent), brief=True)

    async def void(self, intent: Intent, reason: str) -> None:
        """Count an intent as signed; one that is no longer open stays what it became."""
        await self._run(lambda tx: _void(tx, intent, reason))

    async def refuse(self, request: EnrollmentRequest, rule: str, value: str, why: str) -> None:
        """Emit ``enrollment.refused``."""
        body = {
            "profile": request.profile,
            "principal": request.principal,
            "protocol": request.protocol,
            "device_id": request.device,
            "rule": rule,
            "value": value,
            "why": why,
        }

        def unit(tx: Transaction) -> None:
            counters.add(tx, "refused", request.gateway)
            tx.emit("enrollment.refused", body, actor=request.actor)

        await self._run(unit)

    async def replay(
        self, idempotency_key: str, request_hash: bytes, now_us: int
    ) -> CertificateRecord | None:
        """Find what an equal earlier request got; raises KeyReusedError for another content."""
        rows = await self._database.read(_REPLAY, {"key": idempotency_key})
        return _replayable(rows[0] if rows else None, request_hash, now_us)

    async def open_intents(self) -> list[Intent]:
        """Give what a crash left open, oldest first."""
        rows = await self._database.read(_ALL_OPEN)
        return [_DOCUMENT.validate_json(row.document)[0] for row in rows]

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good; the same again changes nothing. Raises NotFoundError."""

        def unit(tx: Transaction) -> CertificateRecord:
            certificates.require(tx, ca_id, serial)
            certificates.revoke_each(tx, [(ca_id, serial)], reason, actor)
            return certificates.require(tx, ca_id, serial)

        return await self._run(unit)

    async def hold(self, ca_id: str, serial: str, hold_id: str, actor: str) -> CertificateRecord:
        """Add a hold id. Raises NotFoundError, ConflictError when it is revoked for good."""

        def unit(tx: Transaction) -> CertificateRecord:
            known = certificates.require(tx, ca_id, serial)
            if known.status is CertificateStatus.REVOKED:
                raise ConflictError("The certificate is revoked for good; it cannot be held.")
            body = {"ca_id": ca_id, "serial": serial, "hold_id": hold_id}
            if certificates.record_held(tx, known.origin, body, actor=actor):
                tx.emit("certificate.held", body, actor=actor)
            return certificates.require(tx, ca_id, serial)

        return await self._run(unit)

    async def release_hold(
        self, ca_id: str, serial: str, hold_id: str, actor: str
    ) -> CertificateRecord:
        """Release one hold id for good. Raises NotFoundError."""

        def unit(tx: Transaction) -> CertificateRecord:
            known = certificates.require(tx, ca_id, serial)
            body = {"ca_id": ca_id, "serial": serial, "hold_id": hold_id}
            if certificates.record_released(tx, known.origin, body, actor=actor):
                tx.emit("certificate.released", body, actor=actor)
            return certificates.require(tx, ca_id, serial)

        return await self._run(unit)


def earlier(
    tx: Transaction, key: str, request_hash: bytes, now_us: int
) -> CertificateRecord | None:
    """Give the certificate that a retry asks for; raises KeyReusedError for another content."""
    return _replayable(tx.one(_REPLAY, {"key": key}), request_hash, now_us)


def require_running(tx: Transaction) -> None:
    """Raise ConflictError while an operator has stopped the line."""
    _require_running(tx.one(_LINE))


def spend_code(tx: Transaction, request: EnrollmentRequest, key: str) -> None:
    """Spend the request's one-time code, if it has one; raises RefusedError ``code.spent``."""
    if request.code is not None and not devices.spend_code(tx, request.code, key):
        raise RefusedError(
            "code.spent",
            request.principal,
            "This one-time code was used by another request.",
            "Repeat the request that used it unchanged, or ask central for a new code.",
        )


def _intend(tx: Transaction, wanted: Intent, row: Mapping[str, Any]) -> CertificateRecord | None:
    now_us = wanted.decided_at.utc_us
    replayed = earlier(tx, wanted.idempotency_key, wanted.request_hash, now_us)
    if replayed is not None:
        return replayed
    _require_open(tx, wanted.ca_id)
    if wanted.existing is Existing.REFUSE and (found := _existing(tx, wanted)):
        raise _one_exists(wanted, found[0].serial)
    if wanted.grant_id is not None and not tx.execute(_BOOK, {"id": wanted.grant_id}):
        raise _not_granted(tx, wanted.grant_id)
    if not tx.execute(_OPEN, row):
        raise _already_open(tx, wanted)
    spend_code(tx, wanted.request, wanted.idempotency_key)
    return None


def _completing(taken: Intent, der: bytes) -> Unit[CertificateRecord]:
    row = _certificate_row(taken) | {"der": der, "sha256": hashlib.sha256(der).hexdigest()}
    return partial(_complete, taken=taken, row=row, body=_issued_body(taken, der))


def _complete(
    tx: Transaction, taken: Intent, row: dict[str, Any], body: Mapping[str, Any]
) -> CertificateRecord:
    if not tx.execute(_TAKE, {**_this(taken), "ca_id": taken.ca_id}):
        _require_open(tx, taken.ca_id)
        raise ConflictError("The request is no longer open; it was completed or voided meanwhile.")
    if taken.existing is Existing.SUPERSEDE:
        former = [(one.ca_id, one.serial) for one in _existing(tx, taken)]
        certificates.revoke_each(tx, former, "superseded", taken.request.actor)
    certificates.add_issued(tx, row | {"issued_at": tx.now.utc_us})
    tx.emit("certificate.issued", body, actor=taken.request.actor)
    _tell_code(tx, taken)
    return CertificateRecord(
        taken.ca_id,
        taken.serial,
        body["der"],
        CertificateStatus.GOOD,
        taken.request_hash,
        tx.now.utc_us,
        taken.request.gateway,
    )


def _release(tx: Transaction, dropped: Intent) -> None:
    if not tx.execute(_DROP, _this(dropped)):
        return
    if dropped.grant_id is not None:
        tx.execute(_UNBOOK, {"id": dropped.grant_id})
    if dropped.request.code is not None:
        devices.give_code_back(tx, dropped.request.code, dropped.idempotency_key)


def _void(tx: Transaction, voided: Intent, reason: str) -> None:
    if not tx.execute(_DROP, _this(voided)):
        return
    certificates.add_voided(tx, _certificate_row(voided) | {"issued_at": tx.now.utc_us})
    body = {
        "ca_id": voided.ca_id,
        "serial": voided.serial,
        "reason": reason,
        "profile": voided.plan.profile,
        "device_id": voided.request.device,
        "grant_id": voided.grant_id,
    }
    tx.emit("certificate.voided", body, actor=_ACTOR)
    _tell_code(tx, voided)


def _tell_code(tx: Transaction, used: Intent) -> None:
    """Tell that the one-time code of this request never comes back."""
    if used.request.code is not None:
        body = {"digest": used.request.code, "ca_id": used.ca_id, "serial": used.serial}
        tx.emit("code.spent", body, actor=used.request.principal)


def _replayable(row: Any, request_hash: bytes, now_us: int) -> CertificateRecord | None:
    """Judge the newest certificate of a key; None lets a new one be issued."""
    if row is None or row.replay_until < now_us:
        return None
    if row.request_hash != request_hash:
        raise KeyReusedError(
            "This Idempotency-Key was used before for a request with another content."
        )
    usable = row.status == CertificateStatus.GOOD and row.not_after > now_us
    return certificates.record_of(row) if usable else None


def _require_running(row: Any) -> None:
    if row.line is not None:
        raise ConflictError(f"The line is stopped: {row.line}")


def _require_open(tx: Transaction, ca_id: str) -> None:
    fence: Any = tx.one(_FENCE, {"ca_id": ca_id})
    _require_running(fence)
    if fence.ca != "active":
        raise ConflictError("This CA does not issue any more.")


def _existing(tx: Transaction, wanted: Intent) -> Sequence[Any]:
    """Give what the device has of this profile; a renewal or a test asks nobody."""
    request = wanted.request
    if request.device is None or request.replaces is not None or request.test:
        return ()
    place = {"device": request.device, "used_profile": wanted.plan.profile}
    return tx.all(_EXISTING, {**place, "now": tx.now.utc_us})


def _one_exists(wanted: Intent, serial: str) -> RefusedError:
    return RefusedError(
        "existing",
        serial,
        f"The device has a certificate of the profile {wanted.plan.profile} already: {serial}.",
        "Renew it, or have it revoked first.",
    )


def _not_granted(tx: Transaction, grant_id: str) -> TmaError:
    row = tx.one(_GRANT, {"id": grant_id})
    if row is None or row.state != "active":
        return RefusedError(
            "grant.ended",
            grant_id,
            "The grant is not in force any more.",
            "Ask central for a new grant.",
        )
    return RefusedError(
        "grant.quota",
        str(row.quota),
        f"All {row.quota} certificates of the grant are used.",
        "Ask central for a larger grant.",
    )


def _already_open(tx: Transaction, wanted: Intent) -> TmaError:
    same_key = tx.one(_OPEN_BY_KEY, {"key": wanted.idempotency_key})
    if same_key is not None and same_key.request_hash != wanted.request_hash:
        return KeyReusedError("This Idempotency-Key belongs to a request with another content.")
    return InProgressError(
        "The same request is still running."
        if same_key is not None
        else "A request for the same device, profile and purpose is still running.",
        retry_after_s=1,
    )


def _this(opened: Intent) -> dict[str, str]:
    return {"key": opened.idempotency_key, "id": opened.intent_id}


def _intent_row(opened: Intent) -> dict[str, Any]:
    return {
        "intent_id": opened.intent_id,
        "ca_id": opened.ca_id,
        "serial": opened.serial,
        "idempotency_key": opened.idempotency_key,
        "request_hash": opened.request_hash,
        "device_id": opened.request.device,
        "profile": opened.plan.profile,
        "purpose": opened.plan.purpose,
        "document": _DOCUMENT.dump_json((opened,)),
        "created_at": opened.decided_at.utc_us,
    }


def _certificate_row(done: Intent) -> dict[str, Any]:
    plan, request = done.plan, done.request
    common_names = (
        part.value for part in plan.subject if part.oid == NameOID.COMMON_NAME.dotted_string
    )
    return {
        "ca_id": done.ca_id,
        "serial": done.serial,
        "origin": request.gateway,  # at central, as of what gateways issued themselves
        "subject_cn": next(common_names, None),
        "device_id": request.device,
        "profile": plan.profile,
        "profile_version": plan.profile_version,
        "purpose": plan.purpose,
        "principal": request.principal,
        "protocol": request.protocol,
        "alias": request.alias,
        "grant_id": done.grant_id,
        "clock_quality": done.decided_at.quality.value,
        "test": int(request.test),
        "not_before": plan.not_before_us,
        "not_after": plan.not_after_us,
        "replaces": _replaces(request),
        "metadata": json.dumps(dict(request.metadata)),
        "idempotency_key": done.idempotency_key,
        "request_hash": done.request_hash,
        "replay_until": done.replay_until_us,
    }


def _issued_body(done: Intent, der: bytes) -> dict[str, Any]:
    plan, request = done.plan, done.request
    return {
        "ca_id": done.ca_id,
        "serial": done.serial,
        "der": der,
        "profile": plan.profile,
        "profile_version": plan.profile_version,
        "purpose": plan.purpose,
        "device_id": request.device,
        "alias": request.alias,
        "protocol": request.protocol,
        "principal": request.principal,
        "metadata": dict(request.metadata),
        "grant_id": done.grant_id,
        "test": request.test,
        "replaces": _replaces(request),
        "intent_id": done.intent_id,
    }


def _replaces(request: EnrollmentRequest) -> str | None:
    return "/".join(request.replaces) if request.replaces else None
