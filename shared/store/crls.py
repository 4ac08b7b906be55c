"""What CRL signing needs from storage: ``shared.issuance.crls.CrlStore``."""

from typing import Any

from cryptography import x509
from sqlalchemy import bindparam, delete, func, insert, select, update

from shared.issuance.crls import CrlStanding, DeltaListing, Listing, SignedCrl
from shared.kernel import cbor
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import ConflictError, NotFoundError, UntrustedError
from shared.pki.crl import REMOVED, CrlEntry
from shared.store import crl_parts
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.schema import (
    COMPLETE,
    DELTA,
    NOT_GOOD,
    ca,
    certificate,
    crl,
    crl_base,
    status_change,
)
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME
from shared.sync.segments import encode_heads

_PAGE_ROWS = 5_000
_GOOD = "good"

_LISTED = (certificate.c.serial, certificate.c.revoked_at, certificate.c.reason)
_OF_CA = certificate.c.ca_id == bindparam("ca")
_ENTRIES = (
    select(certificate.c.id, certificate.c.not_after, *_LISTED)
    .where(NOT_GOOD, _OF_CA, certificate.c.id > bindparam("after"))
    .order_by(certificate.c.id)
    .limit(_PAGE_ROWS)
)
#: What ended between two moments, the later one left out.
_ENDED = (
    select(certificate.c.id, certificate.c.not_after, *_LISTED)
    .where(
        NOT_GOOD,
        _OF_CA,
        certificate.c.id > bindparam("after"),
        certificate.c.not_after >= bindparam("begin"),
        certificate.c.not_after < bindparam("end"),
    )
    .order_by(certificate.c.id)
    .limit(_PAGE_ROWS)
)
_CHANGED = (
    select(
        status_change.c.id,
        status_change.c.at,
        certificate.c.status,
        certificate.c.not_after,
        *_LISTED,
    )
    .join(
        certificate,
        (certificate.c.serial == status_change.c.serial)
        & (certificate.c.ca_id == status_change.c.ca_id),
    )
    .where(status_change.c.ca_id == bindparam("ca"), status_change.c.id > bindparam("after"))
    .order_by(status_change.c.id)
    .limit(_PAGE_ROWS)
)
_LAST_CHANGE = select(func.coalesce(func.max(status_change.c.id), 0).label("id")).where(
    status_change.c.ca_id == bindparam("ca")
)
_CERTIFICATE = select(ca.c.der).where(ca.c.ca_id == bindparam("ca"))
_NUMBER = select(ca.c.crl_number).where(ca.c.ca_id == bindparam("ca"))
_NEWEST = select(crl.c.scope, crl.c.number, crl.c.this_update).where(crl.c.ca_id == bindparam("ca"))
_BASES = select(crl_base).where(crl_base.c.ca_id == bindparam("ca")).order_by(crl_base.c.number)
_SAVE = insert(crl)
_SAVE_BASE = insert(crl_base)
_DROP_OLDER = delete(crl).where(
    crl.c.ca_id == bindparam("ca"),
    crl.c.scope == bindparam("of_scope"),
    crl.c.number < bindparam("newest"),
)
_SINCE = (
    select(func.max(crl_base.c.number))
    .where(crl_base.c.ca_id == bindparam("ca"), crl_base.c.this_update <= bindparam("until"))
    .scalar_subquery()
)
_DROP_BASES = delete(crl_base).where(
    crl_base.c.ca_id == bindparam("ca"), crl_base.c.number < func.coalesce(_SINCE, 0)
)
_LISTED_BY_ALL = (
    select(func.min(crl_base.c.through))
    .where(crl_base.c.ca_id == bindparam("ca"))
    .scalar_subquery()
)
_DROP_CHANGES = delete(status_change).where(
    status_change.c.ca_id == bindparam("ca"), status_change.c.id <= _LISTED_BY_ALL
)
_COUNT = (
    update(ca)
    .where(ca.c.ca_id == bindparam("ca"), ca.c.crl_number < bindparam("newest"))
    .values(crl_number=bindparam("newest"))
)


class SqlCrls:
    """CRLs in the database; ``outbox`` is the gateway's, None at central."""

    def __init__(self, database: Database, outbox: Outbox | None) -> None:
        """Take the database, and the outbox whose chain heads go into each CRL."""
        self._database = database
        self._outbox = outbox

    async def standing(self, ca_id: str) -> CrlStanding:
        """Tell what was signed last."""
        this = {"ca": ca_id}
        numbers = await self._database.read(_NUMBER, this)
        last = {row.scope: row for row in await self._database.read(_NEWEST, this)}
        complete, delta = last.get(COMPLETE), last.get(DELTA)
        return CrlStanding(
            number=numbers[0].crl_number if numbers else 0,
            complete_us=None if complete is None else complete.this_update,
            delta_us=None if delta is None else delta.this_update,
            based=bool(await self._database.read(_BASES, this)),
            behind=bool(complete and delta and delta.number < complete.number),
        )

    async def listing(self, ca_id: str, keep_expired_us: int) -> Listing:
        """Give every serial of the CA that is revoked, voided or held and not long expired.

        Pages are not one snapshot. So what changes meanwhile may be in it or not, and counts as
        not: deltas list it, too.
        """
        bases = await self._database.read(_BASES, {"ca": ca_id})
        [last_change] = await self._database.read(_LAST_CHANGE, {"ca": ca_id})
        cutoff_us = bases[-1].this_update - keep_expired_us if bases else 0
        # What the last complete CRL does not list must be in this one, though it has ended (§3.3).
        news = await self._changed(ca_id, bases[-1].through) if bases else {}
        rows = [
            row
            for row in await self._pages(_ENTRIES, {"ca": ca_id})
            if not _ended(row, cutoff_us) or row.serial in news
        ]
        ends = (row.not_after for row in rows if row.not_after is not None)
        oldest_end_us = min(ends, default=cutoff_us)
        entries = [_entry(row) for row in rows]
        return Listing(entries, last_change.id, cutoff_us, oldest_end_us)

    async def delta_listing(self, ca_id: str, keep_expired_us: int) -> DeltaListing:
        """Give what changed since the oldest complete CRL that deltas build on.

        Released holds and, as the complete CRL of this moment would leave them out, certificates
        that ended are removed (RFC 5280 §5.2.4). Raises ConflictError while there is no base.
        """
        bases = await self._database.read(_BASES, {"ca": ca_id})
        if not bases:
            raise ConflictError(f"The CA {ca_id} has no CRL that a delta could build on.")
        base, last = bases[0], bases[-1]
        cutoff_us = last.this_update - keep_expired_us
        changed = await self._changed(ca_id, base.through)
        found = {
            serial: _removed(row, row.at)
            if row.status == _GOOD or (_ended(row, cutoff_us) and row.id <= last.through)
            else _entry(row)
            for serial, row in changed.items()
        }
        # Each base listed what ended from ``oldest_end`` on, and left out what did by ``cutoff``.
        begin = min(cutoff_us, *(one.oldest_end for one in bases))
        end = max(cutoff_us, *(one.cutoff for one in bases))
        for row in await self._pages(_ENDED, {"ca": ca_id, "begin": begin, "end": end}):
            if row.serial not in found:  # listed again, if entries stay longer than before
                gone = _ended(row, cutoff_us)
                found[row.serial] = _removed(row, row.not_after) if gone else _entry(row)
        return DeltaListing(base.number, list(found.values()))

    async def chain_heads(self) -> bytes | None:
        """Give CBOR of the open segment's name and heads; None where there is no outbox."""
        outbox = self._outbox
        if outbox is None:
            return None
        opened = await self._database.writer.run(lambda tx: outbox.heads(tx, CENTRAL_NAME))
        if opened is None:
            return None
        segment, heads = opened
        return cbor.encode({"segment": segment.name, "heads": encode_heads(heads)})

    async def note_refusal(self, ca_id: str, why: str) -> None:
        """Tell central that no CRL of this CA can be signed; central itself shows its own."""
        if self._outbox is not None:
            body = {"ca_id": ca_id, "why": why}
            await self._database.writer.run(lambda tx: tx.emit("crl.refused", body, actor="system"))

    async def save_crl(self, signed: SignedCrl) -> None:
        """Make the CRL the one that is served, and tell of it, in one commit."""
        ca_id, number, listing = signed.ca_id, signed.number, signed.listing
        scope = DELTA if listing is None else COMPLETE
        row = _row(ca_id, number, signed.der, signed.this_update_us, signed.next_update_us)
        this = {"ca": ca_id, "newest": number}

        def unit(tx: Transaction) -> None:
            _serve(tx, {**row, "scope": scope})
            tx.execute(_COUNT, this)
            if listing is not None:
                _remember(tx, signed, listing)
            crl_parts.publish(tx, self._outbox, ca_id, number, signed.der, scope=scope)

        await self._database.writer.run(unit)

    async def _changed(self, ca_id: str, after: int) -> dict[str, Any]:
        """Give the last change of each certificate, as the certificate is now."""
        rows = await self._pages(_CHANGED, {"ca": ca_id, "after": after})
        return {row.serial: row for row in rows}

    async def _pages(self, statement: Any, parameters: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        parameters = {"after": 0, **parameters}
        while rows := await self._database.read(statement, parameters):
            found += rows
            parameters["after"] = rows[-1].id
        return found


def take_over(tx: Transaction, ca_id: str, der: bytes) -> None:
    """Serve a CRL that was signed elsewhere, if it is newer than the one of its scope here.

    A delta stands beside the complete one and never replaces it. Raises NotFoundError (the CA is
    not known), UntrustedError (the CA did not sign it, or it lists only a part of what is revoked).
    """
    row = tx.one(_CERTIFICATE, {"ca": ca_id})
    if row is None:
        raise NotFoundError(f"The CA {ca_id} is not known here.")
    issuer = x509.load_der_x509_certificate(row.der)
    try:
        parsed = x509.load_der_x509_crl(der)
        extensions = {extension.oid: extension.value for extension in parsed.extensions}
        number: int = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        key: Any = issuer.public_key()
        genuine = parsed.issuer == issuer.subject and parsed.is_signature_valid(key)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UntrustedError("The CRL is malformed.") from error
    if not genuine:
        raise UntrustedError("The CRL is not signed by its CA.")
    if x509.IssuingDistributionPoint.oid in extensions:
        raise UntrustedError("The CRL lists only a part of what its CA has revoked.")
    scope = DELTA if x509.DeltaCRLIndicator.oid in extensions else COMPLETE
    newest = {row.scope: row.number for row in tx.all(_NEWEST, {"ca": ca_id})}
    if number <= max(newest.get(scope, 0), newest.get(COMPLETE, 0)):
        return
    this_update_us = utc_us_of(parsed.last_update_utc)
    next_update = parsed.next_update_utc
    next_update_us = this_update_us if next_update is None else utc_us_of(next_update)
    _serve(tx, {**_row(ca_id, number, der, this_update_us, next_update_us), "scope": scope})
    if scope == COMPLETE and x509.FreshestCRL.oid not in extensions:
        tx.execute(_DROP_OLDER, {"ca": ca_id, "of_scope": DELTA, "newest": number})
    tx.execute(_COUNT, {"ca": ca_id, "newest": number})


def _remember(tx: Transaction, signed: SignedCrl, listing: Listing) -> None:
    """Keep what deltas to this complete CRL need, and forget what they need no more."""
    ca_id = signed.ca_id
    base = {
        "ca_id": ca_id,
        "number": signed.number,
        "this_update": signed.this_update_us,
        "through": listing.through,
        "cutoff": listing.cutoff_us,
        "oldest_end": listing.oldest_end_us,
    }
    until_us = signed.bases_until_us
    if until_us is None:
        until_us = signed.this_update_us
        tx.execute(_DROP_OLDER, {"ca": ca_id, "of_scope": DELTA, "newest": signed.number})
    tx.execute(_SAVE_BASE, base)
    tx.execute(_DROP_BASES, {"ca": ca_id, "until": until_us})
    tx.execute(_DROP_CHANGES, {"ca": ca_id})


def _serve(tx: Transaction, row: dict[str, Any]) -> None:
    tx.execute(_SAVE, row)
    of_scope = {"ca": row["ca_id"], "of_scope": row["scope"], "newest": row["number"]}
    tx.execute(_DROP_OLDER, of_scope)


def _row(
    ca_id: str, number: int, der: bytes, this_update_us: int, next_update_us: int
) -> dict[str, Any]:
    return {
        "ca_id": ca_id,
        "number": number,
        "der": der,
        "this_update": this_update_us,
        "next_update": next_update_us,
    }


def _entry(row: Any) -> CrlEntry:
    return CrlEntry(int(row.serial, 16), row.revoked_at, row.reason)


def _removed(row: Any, at_us: int) -> CrlEntry:
    return CrlEntry(int(row.serial, 16), at_us, REMOVED)


def _ended(row: Any, cutoff_us: int) -> bool:
    return row.not_after is not None and row.not_after < cutoff_us
