"""What CRL signing needs from storage: ``shared.issuance.crls.CrlStore``."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from cryptography import x509
from sqlalchemy import Text, bindparam, delete, exists, func, insert, or_, select, update

from shared.issuance.crls import (
    CrlStanding,
    DeltaListing,
    Listing,
    PartitionStanding,
    SignedCrl,
)
from shared.kernel import cbor
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import ConflictError, NotFoundError, UntrustedError
from shared.pki.crl import REMOVED, CrlEntry, Entry
from shared.pki.partitions import Partition
from shared.store import crl_parts, partitions
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.schema import (
    COMPLETE,
    DELTA,
    LAST_OCTET,
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
#: So many of the 256 last octets are looked up one by one; more cost less by reading all.
_OCTETS_MAX = 64

_LISTED = (certificate.c.serial, certificate.c.revoked_at, certificate.c.reason)
_OF_CA = certificate.c.ca_id == bindparam("ca")
_NOT_ENDED = or_(certificate.c.not_after.is_(None), certificate.c.not_after >= bindparam("cutoff"))
_ENTRIES = (
    select(certificate.c.id, *_LISTED)
    .where(NOT_GOOD, _OF_CA, certificate.c.id > bindparam("after"), _NOT_ENDED)
    .order_by(certificate.c.id)
    .limit(_PAGE_ROWS)
)
_ENTRIES_OF_OCTET = _ENTRIES.where(bindparam("octet", type_=Text()) == LAST_OCTET)
_OLDEST_END = select(func.min(certificate.c.not_after).label("at")).where(
    NOT_GOOD, _OF_CA, certificate.c.not_after >= bindparam("cutoff")
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
_CHANGED_SERIALS = (
    select(status_change.c.id, status_change.c.serial)
    .where(status_change.c.ca_id == bindparam("ca"), status_change.c.id > bindparam("after"))
    .order_by(status_change.c.id)
    .limit(_PAGE_ROWS)
)
_LAST_CHANGE = select(func.coalesce(func.max(status_change.c.id), 0).label("id")).where(
    status_change.c.ca_id == bindparam("ca")
)
_CERTIFICATE = select(ca.c.der).where(ca.c.ca_id == bindparam("ca"))
_NUMBER = select(ca.c.crl_number).where(ca.c.ca_id == bindparam("ca"))
_NEWEST_OF_ALL = select(crl.c.ca_id, crl.c.scope, crl.c.number, crl.c.this_update, crl.c.through)
_NEWEST = _NEWEST_OF_ALL.where(crl.c.ca_id == bindparam("ca"))
_EVERY_CA = select(
    ca.c.ca_id,
    select(func.coalesce(func.max(status_change.c.id), 0))
    .where(status_change.c.ca_id == ca.c.ca_id)
    .scalar_subquery()
    .label("last_change"),
    exists().where(crl_base.c.ca_id == ca.c.ca_id).label("based"),
)
_ONE_CA = _EVERY_CA.where(ca.c.ca_id == bindparam("ca"))
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

    async def number(self, ca_id: str) -> int:
        """Tell the highest CRLNumber of the CA; 0: none."""
        rows = await self._database.read(_NUMBER, {"ca": ca_id})
        return rows[0].crl_number if rows else 0

    async def standings(self) -> dict[str, CrlStanding]:
        """Tell what was signed last for each CA."""
        return await self._standings(_EVERY_CA, _NEWEST_OF_ALL, {})

    async def standing(self, ca_id: str) -> CrlStanding:
        """Tell what was signed last for one CA."""
        found = await self._standings(_ONE_CA, _NEWEST, {"ca": ca_id})
        return found.get(ca_id, CrlStanding())

    async def _standings(
        self, of: Any, newest: Any, these: dict[str, Any]
    ) -> dict[str, CrlStanding]:
        last: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in await self._database.read(newest, these):
            last[row.ca_id][row.scope] = row
        rows = await self._database.read(of, these)
        return {row.ca_id: _standing(row, last[row.ca_id]) for row in rows}

    async def changes(self, ca_id: str, after: int) -> dict[int, int]:
        """Give the serial numbers whose status changed, each with its last change."""
        found: dict[int, int] = {}
        async for rows in self._pages(_CHANGED_SERIALS, {"ca": ca_id, "after": after}):
            found.update((int(row.serial, 16), row.id) for row in rows)
        return found

    async def listing(
        self, ca_id: str, keep_expired_us: int, only: Sequence[Partition] = ()
    ) -> Listing:
        """Give every serial of the CA that is revoked, voided or held and not long expired.

        With ``only`` give those of some partitions, at least. Pages are not one snapshot. So what
        changes meanwhile may be in it or not, and counts as not: deltas list it, too.
        """
        bases = await self._database.read(_BASES, {"ca": ca_id})
        [last_change] = await self._database.read(_LAST_CHANGE, {"ca": ca_id})
        cutoff_us = await self._cutoff_us(ca_id, bases, keep_expired_us)
        # What the last complete CRL does not list must be in this one, though it has ended (§3.3).
        changed = await self._changed(ca_id, bases[-1].through) if bases else {}
        late = [row for row in changed.values() if row.status != _GOOD and _ended(row, cutoff_us)]
        entries: list[Entry] = [_entry(row) for row in late]
        octets = {octet for one in only for octet in one.octets}
        these = {"ca": ca_id, "cutoff": cutoff_us}
        if 0 < len(octets) <= _OCTETS_MAX:
            for octet in sorted(octets):
                await self._read_entries(
                    entries, _ENTRIES_OF_OCTET, these | {"octet": f"{octet:02x}"}
                )
        else:
            await self._read_entries(entries, _ENTRIES, these)
        # Looked up last: whatever was read above and is still revoked counts.
        [oldest] = await self._database.read(_OLDEST_END, these)
        ends = [row.not_after for row in late] + [oldest.at] * (oldest.at is not None)
        return Listing(entries, last_change.id, cutoff_us, min(ends, default=cutoff_us))

    async def delta_listing(self, ca_id: str, keep_expired_us: int) -> DeltaListing:
        """Give what changed since the oldest complete CRL that deltas build on.

        Released holds and, as the complete CRL of this moment would leave them out, certificates
        that ended are removed (RFC 5280 §5.2.4). Raises ConflictError while there is no base.
        """
        bases = await self._database.read(_BASES, {"ca": ca_id})
        if not bases:
            raise ConflictError(f"The CA {ca_id} has no CRL that a delta could build on.")
        base, last = bases[0], bases[-1]
        [last_change] = await self._database.read(_LAST_CHANGE, {"ca": ca_id})
        cutoff_us = await self._cutoff_us(ca_id, bases, keep_expired_us)
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
        async for rows in self._pages(_ENDED, {"ca": ca_id, "begin": begin, "end": end}):
            for row in rows:
                if row.serial not in found:  # listed again, if entries stay longer than before
                    gone = _ended(row, cutoff_us)
                    found[row.serial] = _removed(row, row.not_after) if gone else _entry(row)
        return DeltaListing(base.number, list(found.values()), last_change.id)

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
        scope = DELTA if listing is None else str(signed.partition or COMPLETE)
        row = _row(ca_id, number, signed.der, signed.this_update_us, signed.next_update_us)
        through = listing.through if listing else signed.through
        this = {"ca": ca_id, "newest": number}

        def unit(tx: Transaction) -> None:
            _serve(tx, {**row, "scope": scope, "through": through})
            tx.execute(_COUNT, this)
            if listing is not None and scope == COMPLETE:
                _remember(tx, signed, listing)
            crl_parts.publish(tx, self._outbox, ca_id, number, signed.der, scope=scope)

        await self._database.writer.run(unit)

    async def _read_entries(self, into: list[Entry], statement: Any, these: Any) -> None:
        async for rows in self._pages(statement, these):
            into.extend((int(text, 16), at_us, why) for _, text, at_us, why in rows)

    async def _cutoff_us(self, ca_id: str, bases: Sequence[Any], keep_expired_us: int) -> int:
        """Tell whose entries may go: those that ended so long before the last CRL of each scope.

        So each entry stood on a CRL of its partition, too, that was issued after the end of its
        certificate (RFC 5280 §3.3): partitions are not all signed at the same moment.
        """
        if not bases:
            return 0
        standing = await self.standing(ca_id)
        moments = [one.this_update_us for one in standing.partitions.values()]
        return min([bases[-1].this_update, *moments]) - keep_expired_us

    async def _changed(self, ca_id: str, after: int) -> dict[str, Any]:
        """Give the last change of each certificate, as the certificate is now."""
        pages = self._pages(_CHANGED, {"ca": ca_id, "after": after})
        return {row.serial: row async for rows in pages for row in rows}

    async def _pages(
        self, statement: Any, parameters: dict[str, Any]
    ) -> AsyncIterator[Sequence[Any]]:
        parameters = {"after": 0, **parameters}
        while rows := await self._database.read(statement, parameters):
            yield rows
            if len(rows) < _PAGE_ROWS:
                return
            parameters["after"] = rows[-1].id


def _standing(row: Any, last: dict[str, Any]) -> CrlStanding:
    complete, delta = last.get(COMPLETE), last.get(DELTA)
    return CrlStanding(
        complete_us=None if complete is None else complete.this_update,
        delta_us=None if delta is None else delta.this_update,
        based=bool(row.based),
        behind=bool(complete and delta and delta.number < complete.number),
        news=row.last_change > max((one.through for one in (complete, delta) if one), default=0),
        partitions={
            partition: PartitionStanding(one.this_update, one.through)
            for scope, one in last.items()
            if (partition := Partition.parse(scope))
        },
    )


def take_over(tx: Transaction, ca_id: str, der: bytes) -> None:
    """Serve a CRL that was signed elsewhere, if it is newer than the one of its scope here.

    Deltas and partitions stand beside the complete one and never replace it. Raises NotFoundError
    (the CA is not known), UntrustedError (the CA did not sign it, or it lists a part of what is
    revoked that is none of these).
    """
    row = tx.one(_CERTIFICATE, {"ca": ca_id})
    if row is None:
        raise NotFoundError(f"The CA {ca_id} is not known here.")
    parsed = _genuine(x509.load_der_x509_certificate(row.der), der)
    extensions = {extension.oid: extension.value for extension in parsed.extensions}
    number = extensions[x509.CRLNumber.oid].crl_number
    point = extensions.get(x509.IssuingDistributionPoint.oid)
    scope = DELTA if x509.DeltaCRLIndicator.oid in extensions else COMPLETE
    if point is not None:
        if scope == DELTA:
            raise UntrustedError("The CRL is a delta to a part of what its CA has revoked.")
        scope = str(partitions.learn(tx, ca_id, point))
    newest = {row.scope: row.number for row in tx.all(_NEWEST, {"ca": ca_id})}
    behind = {scope, COMPLETE} if scope == DELTA else {scope}
    if number <= max(newest.get(one, 0) for one in behind):
        return
    this_update_us = utc_us_of(parsed.last_update_utc)
    next_update = parsed.next_update_utc
    next_update_us = this_update_us if next_update is None else utc_us_of(next_update)
    served = _row(ca_id, number, der, this_update_us, next_update_us)
    _serve(tx, {**served, "scope": scope, "through": 0})
    if scope == COMPLETE and x509.FreshestCRL.oid not in extensions:
        tx.execute(_DROP_OLDER, {"ca": ca_id, "of_scope": DELTA, "newest": number})
    tx.execute(_COUNT, {"ca": ca_id, "newest": number})


def _genuine(issuer: x509.Certificate, der: bytes) -> x509.CertificateRevocationList:
    """Read a CRL with a number that this CA signed; raises UntrustedError."""
    try:
        parsed = x509.load_der_x509_crl(der)
        parsed.extensions.get_extension_for_class(x509.CRLNumber)
        key: Any = issuer.public_key()
        genuine = parsed.issuer == issuer.subject and parsed.is_signature_valid(key)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UntrustedError("The CRL is malformed.") from error
    if not genuine:
        raise UntrustedError("The CRL is not signed by its CA.")
    return parsed


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
