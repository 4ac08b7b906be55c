"""The gateway CA's next period: a new key in the token, certified by central, before the old ends.

The old CA's key stays for its CRLs and OCSP responders only (design.md §4, key table); both can
verify, so nothing at the line notices. Central may also send a new certificate for the same key:
when a parent is rolled over, or to let the CA go on.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.x509.oid import NameOID

from gateway import certified
from gateway.issuing import Authorities
from gateway.snapshot import TokenState
from gateway.standing_orders import Order, StandingOrders
from shared.hsm.client import HsmClient
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import UntrustedError
from shared.pki import chain
from shared.pki.key_types import KeyType
from shared.pki.plan import NameAttribute
from shared.store import facts
from shared.store.database import Database
from shared.store.transaction import Transaction, Unit

#: Facts: the CA whose successor is asked for, and the label of the successor's key.
_ASKED: Final = "authority_asked"
_LABEL: Final = "authority_next_label"
_LABEL_BYTES = 4
_EARLY_US = 30 * 24 * 3600 * US_PER_SECOND
_EARLY_PART = 4  # of a short period: its last quarter
_CHECK_S = 2


class AuthorityRenewal:
    """Lets the issuing CA be followed by the next one in time, or when it is ordered."""

    def __init__(
        self,
        *,
        gateway: str,
        authorities: Authorities,
        client: HsmClient,
        key_type: KeyType,
        database: Database,
        clock: Clock,
        adopted: Callable[[], Awaitable[None]],
    ) -> None:
        """Take the ports; ``adopted`` is awaited when another CA or certificate is in force.

        ``key_type`` is that of the next CA's key.
        """
        self._gateway = gateway
        self._authorities = authorities
        self._client = client
        self._key_type = key_type
        self._database = database
        self._clock = clock
        self._adopted = adopted
        self._orders = StandingOrders("authority", database)
        self._adopting = False

    async def step(self) -> float:
        """Take up what central certified, and ask when it is time; gives the next pause."""
        if self._authorities.token.state is not TokenState.READY:
            return _CHECK_S
        await self._orders.obey(self._adopt)
        if self._adopting:
            self._adopting = False
            await self._adopted()
        if self._is_due():
            await self.ask()
        return _CHECK_S

    async def ask(self) -> None:
        """Make the next key and ask central to certify it; once for each CA.

        Raises TokenUnavailableError, UnavailableError (no CA issues here).
        """
        present = self._authorities.active("").issuer.ca_id
        label = await self._database.writer.run(_next_label)
        if label not in (await self._client.state()).keys:
            await self._client.generate(label, self._key_type)
        subject = (NameAttribute(NameOID.COMMON_NAME.dotted_string, self._gateway),)
        csr = await self._client.birth_csr(label, subject)

        def unit(transaction: Transaction) -> None:
            if facts.get(transaction, _ASKED) != present:
                transaction.emit("authority.requested", {"csr": csr}, actor="system")
                facts.put(transaction, _ASKED, present)

        await self._database.writer.run(unit)

    def _is_due(self) -> bool:
        present = self._authorities.issuing
        if present is None or present.issue_until is None:
            return False
        early_us = min(_EARLY_US, (present.issue_until - present.created_at) // _EARLY_PART)
        return self._clock.now().utc_us >= present.issue_until - early_us

    async def _adopt(self, order: Order) -> Unit[None]:
        """Check the certificate, hand it to the token's daemon, see the key prove itself."""
        body = order.body
        der: bytes = body["der"]
        parents = tuple(body["chain"])
        if not parents or certified.ca_id(der) != body["ca_id"]:
            raise UntrustedError("The CA certificate is not for the CA that the order names.")
        chain.verify(der, parents[:-1], parents[-1:], self._clock.now().utc_us)
        known = self._authorities.rows.get(body["ca_id"])
        if known is not None and known.key_uri is not None:
            label = self._authorities.label(body["ca_id"])
        else:
            label = await self._database.writer.run(_next_label)
        await self._client.adopt(label, der)
        await certified.prove(self._client, label, self._gateway, der)
        self._adopting = True

        def unit(transaction: Transaction) -> None:
            certified.store(
                transaction,
                der,
                parents,
                gateway=self._gateway,
                label=label,
                issue_until_us=body["issue_until_us"],
            )
            certified.keep_links(transaction, body.get("links", ()))
            facts.put(transaction, _ASKED, None)
            facts.put(transaction, _LABEL, None)

        return unit


def _next_label(transaction: Transaction) -> str:
    """Choose the label of the next key once, durably."""
    label = facts.get(transaction, _LABEL)
    if label is None:
        label = f"gateway-ca-{transaction.random(_LABEL_BYTES).hex()}"
        facts.put(transaction, _LABEL, label)
    return label
