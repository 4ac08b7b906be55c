"""Central decides and signs what gateways forward (design.md §4, mode ``forward``).

A request waits in the database from the transaction that received it until its answer is ordered.
It is issued by the one issuance core, under an idempotency key made of gateway and event: after a
crash in between the same certificate is found, and the answer is ordered then.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import bindparam, select

from central.issuing import CentralProfiles
from central.sync import fleet, forwards
from shared.issuance import forwarding
from shared.issuance.service import IssuanceService
from shared.kernel import cbor, limits
from shared.kernel.errors import Kind, RefusedError, TmaError
from shared.store.database import Database
from shared.store.link import LACKING
from shared.store.schema import fact, forward_request, gateway
from shared.store.transaction import Transaction

_LOG = logging.getLogger(__name__)
_TOGETHER = 100
_LOOK_S = 0.5

#: A central that was put back answers nothing to a gateway before it knows what it had answered.
_WAITING = (
    select(forward_request)
    .join(gateway, gateway.c.name == forward_request.c.gateway)
    .outerjoin(fact, fact.c.name == LACKING + gateway.c.name)
    .where(
        gateway.c.state == fleet.ACTIVE,
        fact.c.value.is_(None),
        forward_request.c.id > bindparam("after"),
    )
    .order_by(forward_request.c.id)
    .limit(_TOGETHER)
)


class Forwarding:
    """Answers what waits, oldest first; ``step`` runs in the background."""

    def __init__(
        self,
        database: Database,
        issuance: IssuanceService,
        profiles: CentralProfiles,
        chain: Callable[[str], Sequence[bytes]],
    ) -> None:
        """Take what decides and signs; ``chain`` gives DER from a CA of central to its root."""
        self._database = database
        self._issuance = issuance
        self._profiles = profiles
        self._chain = chain
        self._after = 0  # so that what cannot be answered now is in nobody's way

    async def step(self) -> float:
        """Answer some of what waits; gives the next pause."""
        rows = await self._database.read(_WAITING, {"after": self._after})
        if rows:
            await self._profiles.refresh()  # grants are changed by many doors
            await asyncio.gather(*map(self._answer, rows))
        self._after = rows[-1].id if len(rows) == _TOGETHER else 0
        return 0 if self._after else _LOOK_S

    async def _answer(self, row: Any) -> None:
        body = cbor.decode(row.document, limit=limits.EVENT_BYTES_MAX)
        request = forwarding.understood(body, row.gateway, row.reference)
        try:
            issued = await self._issuance.issue(request)
        except TmaError as error:
            if error.kind is Kind.RETRYABLE:
                _LOG.warning("A request of %s waits on: %s", row.gateway, error.message)
                return
            await self._database.writer.run(
                partial(forwards.refused, row=row, refusal=_refusal(error, request.profile))
            )
            return

        def unit(transaction: Transaction) -> None:
            chain = self._chain(issued.ca_id)
            place = issued.ca_id, issued.serial
            forwards.issued(transaction, row, *place, chain=chain, code=body["code"])

        await self._database.writer.run(unit)


def _refusal(error: TmaError, profile: str) -> dict[str, str]:
    """Say it as the gateway's requester will read it."""
    rule, value = (
        (error.rule, error.value) if isinstance(error, RefusedError) else (error.code, profile)
    )
    remedy = error.remedy or type(error).__doc__ or ""
    return {"rule": rule, "value": value, "message": error.message, "remedy": remedy}
