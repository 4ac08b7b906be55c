"""Central's OCSP responder for this gateway's CA: ordered by directive, certified by the token.

The order is durable as a directive; what was answered last is a fact. So a token that is away, or
a crash in between, only delays it.
"""

import logging
from typing import Any

from sqlalchemy import select

from gateway import commands
from gateway.issuing import Authorities
from gateway.responder import certify
from shared.hsm.client import HsmClient
from shared.issuance.ports import Purpose
from shared.kernel import cbor, limits
from shared.kernel.clock import Clock
from shared.kernel.errors import Kind, TmaError
from shared.kernel.ids import Random
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import directive, fact
from shared.store.transaction import Transaction

_LOG = logging.getLogger(__name__)
_KIND = "responder"
_ANSWERED = "responder_answered"
_CHECK_S = 2

_ORDERS = (
    select(
        directive.c.subject,
        directive.c.number,
        directive.c.incarnation,
        directive.c.envelope,
        fact.c.value.label("answered"),
    )
    .outerjoin(fact, fact.c.name == _ANSWERED + "/" + directive.c.subject)
    .where(directive.c.kind == _KIND)
)


class CentralResponder:
    """Certifies the key that central ordered, for each CA once per order."""

    def __init__(
        self,
        *,
        authorities: Authorities,
        client: HsmClient,
        database: Database,
        clock: Clock,
        random: Random,
    ) -> None:
        """Take the ports; ``step`` does it."""
        self._authorities = authorities
        self._client = client
        self._database = database
        self._clock = clock
        self._random = random

    async def step(self) -> float:
        """Do what is ordered and not answered; gives the seconds until the next look."""
        for row in await self._database.read(_ORDERS):
            if row.answered != _place(row):
                await self._obey(row)
        return _CHECK_S

    async def _obey(self, row: Any) -> None:
        body = cbor.decode(row.envelope, limit=limits.EVENT_BYTES_MAX)
        der, detail = None, ""
        try:
            der = await self._certified(row.subject, body["spki"])
        except TmaError as error:
            if error.kind is Kind.RETRYABLE:
                raise
            _LOG.error("Central's OCSP responder is not certified: %s", error.message)
            detail = error.message

        def unit(transaction: Transaction) -> None:
            if der is not None:
                issued = {"ca_id": row.subject, "der": der}
                transaction.emit("responder.issued", issued, actor="system")
            result = "failed" if der is None else "applied"
            commands.answer(transaction, _KIND, row.subject, body, result=result, detail=detail)
            facts.put(transaction, f"{_ANSWERED}/{row.subject}", _place(row))

        await self._database.writer.run(unit)

    async def _certified(self, ca_id: str, spki: bytes) -> bytes:
        """Have hsmd pin the key, then sign its certificate until the CA's end; gives DER."""
        key = self._authorities.of(ca_id)
        await self._client.pin_responder(self._authorities.label(ca_id), spki)
        validity_us = (self._clock.now().utc_us, key.issuer.limits.not_after_us)
        return await certify(key, spki, Purpose.CENTRAL_RESPONDER, validity_us, self._random)


def _place(row: Any) -> str:
    return f"{row.incarnation}/{row.number}"
