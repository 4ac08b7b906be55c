"""What CRL signing needs from storage: ``shared.issuance.status.CrlStore``."""

from typing import Any

from cryptography import x509
from sqlalchemy import bindparam, delete, insert, select, update

from shared.kernel import cbor
from shared.kernel.clock import US_PER_SECOND, utc_us_of
from shared.kernel.errors import NotFoundError, UntrustedError
from shared.pki.crl import CrlEntry
from shared.store import crl_parts
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.schema import NOT_GOOD, ca, certificate, crl
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME
from shared.sync.segments import encode_heads

_PAGE_ROWS = 5_000
#: A revoked certificate stays listed until one CRL was issued after its end (RFC 5280 §3.3);
#: within this time at least one is: ``crl_hours`` may be 31 days.
_AFTER_END_US = 32 * 24 * 3600 * US_PER_SECOND
#: What lists only a part of the revoked ones must never stand in the place of all.
_PARTIAL = (x509.DeltaCRLIndicator, x509.IssuingDistributionPoint)

_ENTRIES = (
    select(
        certificate.c.id,
        certificate.c.serial,
        certificate.c.revoked_at,
        certificate.c.reason,
        certificate.c.not_after,
    )
    .where(NOT_GOOD, certificate.c.ca_id == bindparam("ca"), certificate.c.id > bindparam("after"))
    .order_by(certificate.c.id)
    .limit(_PAGE_ROWS)
)
_CERTIFICATE = select(ca.c.der).where(ca.c.ca_id == bindparam("ca"))
_NUMBER = select(ca.c.crl_number).where(ca.c.ca_id == bindparam("ca"))
_NEWEST = (
    select(crl.c.this_update).where(crl.c.ca_id == bindparam("ca")).order_by(crl.c.number.desc())
)
_SAVE = insert(crl)
_DROP_OLDER = delete(crl).where(crl.c.ca_id == bindparam("ca"), crl.c.number < bindparam("newest"))
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

    async def crl_entries(self, ca_id: str) -> list[CrlEntry]:
        """Give every serial of the CA that is revoked, voided or held and not long expired."""
        now_us = await self._database.writer.run(lambda tx: tx.now.utc_us)
        entries: list[CrlEntry] = []
        after = 0
        while rows := await self._database.read(_ENTRIES, {"ca": ca_id, "after": after}):
            after = rows[-1].id
            entries += (
                CrlEntry(int(row.serial, 16), row.revoked_at, row.reason)
                for row in rows
                if row.not_after is None or row.not_after + _AFTER_END_US > now_us
            )
        return entries

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

    async def last_crl_number(self, ca_id: str) -> int:
        """Give the highest CRLNumber ever given to this CA, 0 before the first."""
        rows = await self._database.read(_NUMBER, {"ca": ca_id})
        return rows[0].crl_number if rows else 0

    async def last_crl_update_us(self, ca_id: str) -> int | None:
        """Give thisUpdate of the newest CRL, UTC µs; None before the first."""
        rows = await self._database.read(_NEWEST, {"ca": ca_id})
        return rows[0].this_update if rows else None

    async def save_crl(
        self, ca_id: str, number: int, der: bytes, this_update_us: int, next_update_us: int
    ) -> None:
        """Make the CRL the one that is served, and tell of it, in one commit."""
        row: dict[str, Any] = {
            "ca_id": ca_id,
            "number": number,
            "der": der,
            "this_update": this_update_us,
            "next_update": next_update_us,
        }

        def unit(tx: Transaction) -> None:
            tx.execute(_SAVE, row)
            tx.execute(_DROP_OLDER, {"ca": ca_id, "newest": number})
            tx.execute(_COUNT, {"ca": ca_id, "newest": number})
            crl_parts.publish(tx, self._outbox, ca_id, number, der)

        await self._database.writer.run(unit)


def take_over(tx: Transaction, ca_id: str, der: bytes) -> None:
    """Serve a CRL that was signed elsewhere, if it is newer than the one that is served.

    Raises NotFoundError (the CA is not known), UntrustedError (the CA did not sign it, or it lists
    only a part of what is revoked).
    """
    row = tx.one(_CERTIFICATE, {"ca": ca_id})
    if row is None:
        raise NotFoundError(f"The CA {ca_id} is not known here.")
    issuer = x509.load_der_x509_certificate(row.der)
    try:
        parsed = x509.load_der_x509_crl(der)
        number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        key: Any = issuer.public_key()
        genuine = parsed.issuer == issuer.subject and parsed.is_signature_valid(key)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UntrustedError("The CRL is malformed.") from error
    if not genuine:
        raise UntrustedError("The CRL is not signed by its CA.")
    if any(isinstance(extension.value, _PARTIAL) for extension in parsed.extensions):
        raise UntrustedError("The CRL lists only a part of what its CA has revoked.")
    this_update_us = utc_us_of(parsed.last_update_utc)
    next_update = parsed.next_update_utc
    values = {
        "ca_id": ca_id,
        "number": number,
        "der": der,
        "this_update": this_update_us,
        "next_update": this_update_us if next_update is None else utc_us_of(next_update),
    }
    if tx.execute(_COUNT, {"ca": ca_id, "newest": number}):
        tx.execute(_SAVE, values)
        tx.execute(_DROP_OLDER, {"ca": ca_id, "newest": number})
