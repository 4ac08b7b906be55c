"""The certificate table and its lattice: revoked > hold > good, and nothing turns back.

The same functions serve the ledger's own acts and what a peer reports, so that the gateway's
ledger and central's inventory cannot disagree. ``origin`` is '' for what this box issued, else the
gateway's name. Each function says by its result whether it changed anything.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Integer, Text, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.issuance.ports import CertificateRecord, CertificateStatus
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import NotFoundError
from shared.store import counters
from shared.store.schema import ca, certificate, conflict, hold, status_change, term_lacking
from shared.store.transaction import Transaction

Body = Mapping[str, Any]
#: Adds one to a counter of an origin: ``counters.add``, or what adds up many of them first.
Count = Callable[[Transaction, str, str], None]

#: What a ``CertificateRecord`` is made of.
RECORD_COLUMNS = (
    certificate.c.ca_id,
    certificate.c.serial,
    certificate.c.der,
    certificate.c.status,
    certificate.c.request_hash,
    certificate.c.issued_at,
    certificate.c.origin,
)
#: What a row keeps of ``certificate.issued`` as it is.
AS_REPORTED: Final = (
    "ca_id",
    "serial",
    "der",
    "profile",
    "profile_version",
    "purpose",
    "device_id",
    "alias",
    "protocol",
    "principal",
    "grant_id",
    "replaces",
)
#: The counters of statuses.
COUNTED = {"revoked": "revoked", "hold": "held"}

_THIS = (certificate.c.ca_id == bindparam("ca")) & (certificate.c.serial == bindparam("number"))
_FIND = select(*RECORD_COLUMNS, certificate.c.state, certificate.c.id).where(_THIS)
_INSERT = insert(certificate)
_INSERT_NEW = upsert(certificate).on_conflict_do_nothing(
    index_elements=[certificate.c.serial, certificate.c.ca_id]
)
_UPDATE = update(certificate).where(_THIS)
#: Deltas list what changed (RFC 5280 §5.2.4); who has not the CA's key signs none.
_NOTE_CHANGE = insert(status_change).from_select(
    ["ca_id", "serial", "at"],
    select(ca.c.ca_id, bindparam("number", type_=Text), bindparam("now", type_=Integer)).where(
        ca.c.ca_id == bindparam("ca"), ca.c.key_uri.is_not(None)
    ),
)
#: Search has passed the row already (central.inventory.indexing).
_SEARCH_AGAIN = upsert(term_lacking).on_conflict_do_nothing()
_ADD_HOLD = upsert(hold).on_conflict_do_nothing()
_released = upsert(hold)
_RELEASE_HOLD = _released.on_conflict_do_update(
    index_elements=[hold.c.ca_id, hold.c.serial, hold.c.hold_id],
    set_={"released_at": _released.excluded.released_at},
    where=hold.c.released_at.is_(None),
)
_OPEN_HOLD = (
    select(hold.c.hold_id)
    .where(
        hold.c.ca_id == bindparam("ca"),
        hold.c.serial == bindparam("number"),
        hold.c.released_at.is_(None),
    )
    .limit(1)
)


def record_of(row: Any) -> CertificateRecord:
    """Make a record of a row that has ``RECORD_COLUMNS`` first."""
    ca_id, serial, der, status, request_hash, issued_at, origin = row[: len(RECORD_COLUMNS)]
    return CertificateRecord(
        ca_id, serial, der, CertificateStatus(status), request_hash, issued_at, origin
    )


def require(transaction: Transaction, ca_id: str, serial: str) -> CertificateRecord:
    """Find a certificate; raises NotFoundError."""
    row = _find(transaction, ca_id, serial)
    if row is None:
        raise NotFoundError(f"No certificate with serial number {serial} of this CA is known.")
    return record_of(row)


def add_issued(transaction: Transaction, values: Mapping[str, Any]) -> None:
    """Insert a certificate that was just released; its serial is new."""
    transaction.execute(_INSERT, {**values, "state": "issued", "status": "good"})
    counters.add(transaction, "issued", values["origin"])


def record_issued(
    transaction: Transaction,
    origin: str,
    body: Body,
    *,
    issued_at_us: int,
    clock_quality: str,
    parsed: x509.Certificate | None = None,
    count: Count = counters.add,
) -> bool:
    """Apply ``certificate.issued``. It fills a stub (and says whose it is), and never un-revokes.

    Another DER under a serial that is known is an alarm: both are kept, the second one in the
    ``conflict`` row. Who has parsed the DER gives that, too; ``count`` counts one that was not
    heard of before. Raises ValueError when the DER cannot be parsed.
    """
    parsed = parsed or x509.load_der_x509_certificate(body["der"])
    values = _issued_values(origin, body, parsed, issued_at_us, clock_quality)
    if transaction.execute(_INSERT_NEW, {**values, "state": "issued", "status": "good"}):
        count(transaction, "issued", origin)
        return True
    ca_id, serial = body["ca_id"], body["serial"]
    known = _find(transaction, ca_id, serial)
    if known.der is None:
        if known.state == "voided":
            _add_conflict(transaction, "issued-though-voided", origin, body, {})
        counters.add(transaction, known.state, known.origin, -1)
        counters.add(transaction, "issued", origin)
        if known.status in COUNTED:
            counters.add(transaction, COUNTED[known.status], origin)
        _change(transaction, ca_id, serial, {**values, "state": "issued"})
        transaction.execute(_SEARCH_AGAIN, {"id": known.id})
    elif known.der != body["der"]:
        second = base64.b64encode(body["der"]).decode()
        _add_conflict(transaction, "serial-reused", origin, body, {"der": second})
    else:
        return False
    return True


def add_voided(transaction: Transaction, values: Mapping[str, Any]) -> None:
    """Insert a serial that counts as signed although nothing was released."""
    revocation = {
        "status": "revoked",
        "reason": "unspecified",
        "revoked_at": transaction.now.utc_us,
    }
    transaction.execute(_INSERT, {**values, **revocation, "state": "voided"})
    _note_change(transaction, values["ca_id"], values["serial"])
    counters.add(transaction, "voided", values["origin"])


def let_retries_find(
    transaction: Transaction,
    ca_id: str,
    serial: str,
    *,
    idempotency_key: str,
    request_hash: bytes,
    replay_until: int,
) -> None:
    """Let a certificate that another box issued answer the retries of a request made here."""
    retries = {
        "idempotency_key": idempotency_key,
        "request_hash": request_hash,
        "replay_until": replay_until,
    }
    _change(transaction, ca_id, serial, retries)


def record_voided(transaction: Transaction, origin: str, body: Body) -> bool:
    """Apply ``certificate.voided``: the serial is revoked whatever else is known of it."""
    ca_id, serial = body["ca_id"], body["serial"]
    known = _find(transaction, ca_id, serial)
    if known is None:
        add_voided(transaction, _bare(transaction, origin, body))
        return True
    if known.state == "issued":
        _add_conflict(transaction, "voided-though-issued", origin, body, {})
        return _revoke(transaction, known, "unspecified", transaction.now.utc_us)
    if known.state == "stub":
        _revoke(transaction, known, "unspecified", transaction.now.utc_us)
        counters.add(transaction, "stub", known.origin, -1)
        counters.add(transaction, "voided", known.origin)
        _change(transaction, ca_id, serial, {"state": "voided"})
        return True
    return False


def record_revoked(transaction: Transaction, origin: str, body: Body) -> bool:
    """Apply a revocation; of a certificate not heard of yet, it leaves a stub.

    ``body`` has ca_id, serial, reason (RFC 5280 §5.3.1, snake case) and revoked_at_us. The first
    revocation stays as it is.
    """
    known = _known_or_stub(transaction, origin, body)
    return _revoke(transaction, known, body["reason"], body["revoked_at_us"])


def revoke_each(
    transaction: Transaction, places: Sequence[tuple[str, str]], reason: str, actor: str
) -> int:
    """Revoke certificates (CA id, serial) that are known here, tell of each, and count them."""
    revoked = 0
    for ca_id, serial in places:
        known = _find(transaction, ca_id, serial)
        if known is not None and _revoke(transaction, known, reason, transaction.now.utc_us):
            body = {
                "ca_id": ca_id,
                "serial": serial,
                "reason": reason,
                "revoked_at_us": transaction.now.utc_us,
                "device_id": None,
            }
            transaction.emit("certificate.revoked", body, actor=actor)
            revoked += 1
    return revoked


def record_held(transaction: Transaction, origin: str, body: Body, *, actor: str = "") -> bool:
    """Add ``body["hold_id"]`` to the holds; one that was released before never holds again."""
    known = _known_or_stub(transaction, origin, body)
    row = _hold_row(transaction, body, actor)
    added = transaction.execute(_ADD_HOLD, {**row, "released_at": None})
    if added and known.status == "good":
        _set_status(transaction, known, "hold", "certificate_hold", transaction.now.utc_us)
    return bool(added)


def record_released(transaction: Transaction, origin: str, body: Body, *, actor: str = "") -> bool:
    """Release ``body["hold_id"]``, also one not heard of yet; good again when none is left."""
    known = _known_or_stub(transaction, origin, body)
    row = _hold_row(transaction, body, actor)
    released = transaction.execute(_RELEASE_HOLD, {**row, "released_at": transaction.now.utc_us})
    this = {"ca": known.ca_id, "number": known.serial}
    if released and known.status == "hold" and transaction.one(_OPEN_HOLD, this) is None:
        _set_status(transaction, known, "good", None, None)
    return bool(released)


def _revoke(transaction: Transaction, known: Any, reason: str, revoked_at_us: int) -> bool:
    if known.status == "revoked":
        return False
    _set_status(transaction, known, "revoked", reason, revoked_at_us)
    return True


def _set_status(
    transaction: Transaction, known: Any, status: str, reason: str | None, at_us: int | None
) -> None:
    change = {"status": status, "reason": reason, "revoked_at": at_us}
    transaction.changed.append((known.ca_id, known.serial))
    _change(transaction, known.ca_id, known.serial, change)
    _note_change(transaction, known.ca_id, known.serial)
    for counted, by in ((known.status, -1), (status, 1)):
        if known.state == "issued" and counted in COUNTED:
            counters.add(transaction, COUNTED[counted], known.origin, by)


def _find(transaction: Transaction, ca_id: str, serial: str) -> Any:
    return transaction.one(_FIND, {"ca": ca_id, "number": serial})


def _known_or_stub(transaction: Transaction, origin: str, body: Body) -> Any:
    known = _find(transaction, body["ca_id"], body["serial"])
    if known is None:
        stub = {**_bare(transaction, origin, body), "state": "stub", "status": "good"}
        transaction.execute(_INSERT, stub)
        counters.add(transaction, "stub", origin)
        known = _find(transaction, body["ca_id"], body["serial"])
    return known


def _change(transaction: Transaction, ca_id: str, serial: str, values: Mapping[str, Any]) -> None:
    transaction.execute(_UPDATE, {**values, "ca": ca_id, "number": serial})


def _note_change(transaction: Transaction, ca_id: str, serial: str) -> None:
    noted = {"ca": ca_id, "number": serial, "now": transaction.now.utc_us}
    transaction.execute(_NOTE_CHANGE, noted)


def _bare(transaction: Transaction, origin: str, body: Body) -> dict[str, Any]:
    """Give what is known of a certificate that has no DER here."""
    return {
        "ca_id": body["ca_id"],
        "serial": body["serial"],
        "origin": origin,
        "device_id": body.get("device_id"),
        "profile": body.get("profile"),
        "grant_id": body.get("grant_id"),
        "test": 0,
        "issued_at": transaction.now.utc_us,
    }


def _issued_values(
    origin: str, body: Body, parsed: x509.Certificate, issued_at_us: int, clock_quality: str
) -> dict[str, Any]:
    common_names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {name: body[name] for name in AS_REPORTED} | {
        "origin": origin,
        "sha256": hashlib.sha256(body["der"]).hexdigest(),
        "subject_cn": common_names[0].value if common_names else None,
        "metadata": json.dumps(body["metadata"]),
        "test": int(body["test"]),
        "not_before": utc_us_of(parsed.not_valid_before_utc),
        "not_after": utc_us_of(parsed.not_valid_after_utc),
        "issued_at": issued_at_us,
        "clock_quality": clock_quality,
    }


def _hold_row(transaction: Transaction, body: Body, actor: str) -> dict[str, Any]:
    return {
        "ca_id": body["ca_id"],
        "serial": body["serial"],
        "hold_id": body["hold_id"],
        "actor": actor,
        "held_at": transaction.now.utc_us,
    }


def _add_conflict(
    transaction: Transaction, kind: str, origin: str, body: Body, detail: Mapping[str, str]
) -> None:
    row = {
        "kind": kind,
        "gateway": origin,
        "subject": f"{body['ca_id']}/{body['serial']}",
        "detail": json.dumps(detail),
        "state": "open",
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(insert(conflict).values(row))
