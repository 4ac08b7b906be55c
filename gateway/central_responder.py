"""Central's OCSP responder for this gateway's CA: ordered by directive, certified by the token."""

from gateway.issuing import Authorities
from gateway.responder import certify
from gateway.standing_orders import Order, StandingOrders
from shared.hsm.client import HsmClient
from shared.issuance.ports import Purpose
from shared.kernel.clock import Clock
from shared.kernel.ids import Random
from shared.store.database import Database
from shared.store.transaction import Transaction, Unit

_CHECK_S = 2


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
        self._orders = StandingOrders("responder", database)
        self._clock = clock
        self._random = random

    async def step(self) -> float:
        """Do what is ordered and not answered; gives the seconds until the next look."""
        await self._orders.obey(self._certify)
        return _CHECK_S

    async def _certify(self, order: Order) -> Unit[None]:
        """Have hsmd pin the key, then sign its certificate until the CA's end."""
        ca_id, spki = order.subject, order.body["spki"]
        key = self._authorities.of(ca_id)
        await self._client.pin_responder(self._authorities.label(ca_id), spki)
        validity_us = (self._clock.now().utc_us, key.issuer.limits.not_after_us)
        der = await certify(key, spki, Purpose.CENTRAL_RESPONDER, validity_us, self._random)

        def unit(transaction: Transaction) -> None:
            issued = {"ca_id": ca_id, "der": der}
            transaction.emit("responder.issued", issued, actor="system")

        return unit
