"""What gateways ask for in time: new identities on the link, and their CA's next period.

A request comes as an event and waits in the database until it is signed here: the transaction that
applies events cannot sign. The old keys count until the gateway says that it adopted the new ones.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography import x509
from sqlalchemy import bindparam, delete, select

from central.authority import plans
from central.authority.hierarchy import (
    Hierarchy,
    certify,
    gateway_title,
    record,
    store_authority,
)
from central.authority.join import responder_key_name
from central.sync import directives, fleet
from shared.issuance.ports import Purpose
from shared.kernel import cbor, limits
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.ids import Random, serial_text
from shared.pki import keys
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import ca, renewal
from shared.store.transaction import Transaction
from shared.store.vault import Vault

_LOG = logging.getLogger(__name__)
_DAY_US = 24 * 3600 * US_PER_SECOND

_WAITING = select(renewal.c.gateway, renewal.c.kind, renewal.c.document).order_by(
    renewal.c.requested_at
)
_THIS = (
    (renewal.c.gateway == bindparam("which"))
    & (renewal.c.kind == bindparam("what"))
    & (renewal.c.document == bindparam("asked"))
)
_TAKE = delete(renewal).where(_THIS)
_KNOWN_CA = select(ca.c.ca_id).where(ca.c.ca_id == bindparam("wanted"))


class Renewals:
    """Certifies what waits. ``accept`` hears of each gateway CA that was certified, in DER."""

    def __init__(
        self,
        *,
        database: Database,
        hierarchy: Hierarchy,
        vault: Vault,
        organization: str,
        issue_days: int,
        clock: Clock,
        random: Random,
        accept: Callable[[bytes], None],
    ) -> None:
        """Take what signs and what stores."""
        self._database = database
        self._hierarchy = hierarchy
        self._vault = vault
        self._organization = organization
        self._issue_days = issue_days
        self._clock = clock
        self._random = random
        self._accept = accept

    async def certify_waiting(self) -> None:
        """Certify every request that waits; one that cannot be signed now waits on."""
        for row in await self._database.read(_WAITING):
            wanted = cbor.decode(row.document, limit=limits.EVENT_BYTES_MAX)
            if row.kind == fleet.IDENTITY:
                await self._identity(row, wanted)
            else:
                await self._authority(row, wanted)
            _LOG.info("Gateway %s was given a new %s.", row.gateway, row.kind)

    async def _identity(self, row: Any, wanted: dict[str, bytes]) -> None:
        now_us = self._clock.now().utc_us
        plan = plans.gateway_transport(row.gateway, wanted["transport"], now_us)
        transport = self._hierarchy.transport
        der = await certify(transport, plan, Purpose.LEAF, self._random)
        serial = serial_text(x509.load_der_x509_certificate(der).serial_number)

        def unit(transaction: Transaction) -> None:
            if not _take(transaction, row):
                return
            record(transaction, transport.issuer.ca_id, der, "transport")
            fleet.expect(transaction, row.gateway, wanted["event"], wanted["exchange"], serial)
            directives.order_identity(transaction, row.gateway, der, _actor(row))

        await self._database.writer.run(unit)

    async def _authority(self, row: Any, wanted: dict[str, bytes]) -> None:
        spki = wanted["authority"]
        run = self._database.writer.run
        title = await run(partial(gateway_title, gateway=row.gateway))
        plan = plans.authority(
            title,
            self._organization,
            spki,
            path_length=0,
            now_us=self._clock.now().utc_us,
        )
        issuer = self._hierarchy.fleet.issuer
        der = await certify(self._hierarchy.fleet, plan, Purpose.CA, self._random)
        ca_id = keys.key_identifier(spki).hex()
        stored = await run(
            partial(self._store_authority, row=row, title=title, der=der, ca_id=ca_id)
        )
        if stored:
            self._accept(der)
        else:
            _LOG.warning(
                "Gateway %s asked for a CA that exists under %s.", row.gateway, issuer.name
            )

    def _store_authority(
        self, transaction: Transaction, *, row: Any, title: str, der: bytes, ca_id: str
    ) -> bool:
        """Store the CA, order the gateway to use it, and prepare central's responder for it."""
        if not _take(transaction, row) or transaction.one(_KNOWN_CA, {"wanted": ca_id}):
            return False
        issuer = self._hierarchy.fleet.issuer
        issue_until_us = transaction.now.utc_us + self._issue_days * _DAY_US
        store_authority(
            transaction,
            kind="gateway",
            name=title,
            der=der,
            parent_id=issuer.ca_id,
            gateway=row.gateway,
            issue_until_us=issue_until_us,
        )
        responder = keys.generate()
        self._vault.keep_key(transaction, responder_key_name(ca_id), responder)
        facts.put(transaction, fleet.responder_spki(ca_id), keys.spki(responder.public_key()).hex())
        order = {
            "ca_id": ca_id,
            "der": der,
            "chain": list(issuer.chain),
            "issue_until_us": issue_until_us,
        }
        directives.order_authority(transaction, row.gateway, order, _actor(row))
        return True


def _take(transaction: Transaction, row: Any) -> bool:
    """Take the request up; False if another one has come in its place."""
    place = {"which": row.gateway, "what": row.kind, "asked": row.document}
    return transaction.execute(_TAKE, place) > 0


def _actor(row: Any) -> str:
    return f"gateway:{row.gateway}"
