"""New keys for the link, before the old certificate ends: asked for by event, given by directive.

The transport identity, the event-signing key and the exchange key change together (design.md §4,
key table). Until central's answer is here everything goes on with the old ones; the answer puts
the new ones in force in one commit, and the link begins anew with them.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway import identity
from gateway.identity import Identity
from gateway.standing_orders import Order, StandingOrders
from shared.kernel.clock import Clock, utc_us_of
from shared.kernel.errors import UntrustedError
from shared.pki import chain
from shared.store import facts
from shared.store.database import Database
from shared.store.transaction import Transaction, Unit
from shared.store.vault import Vault

#: Fact: the certificate (SHA-256 in hex) whose successor is asked for.
_ASKED: Final = "identity_asked"
_NEXT: Final = "_next"  # ends the names of the secrets that wait for central's answer
_CHECK_S = 2


class IdentityRenewal:
    """Renews the gateway's identity on the link at half of its life, or when it is ordered."""

    def __init__(
        self,
        *,
        present: Identity,
        database: Database,
        vault: Vault,
        clock: Clock,
        adopted: Callable[[Identity], None],
    ) -> None:
        """Take the identity in force; ``adopted`` hears of each new one once it is durable."""
        self._present = present
        self._database = database
        self._vault = vault
        self._clock = clock
        self._adopted = adopted
        self._orders = StandingOrders("identity", database)
        self._adopting = False  # another identity may be in force by now

    async def step(self) -> float:
        """Take up what central answered, and ask when it is time; gives the next pause."""
        await self._orders.obey(self._adopt)
        if self._adopting:
            self._adopting = False
            self._present = await Identity.load(self._database, self._vault)
            self._adopted(self._present)
        if self._half_spent():
            await self.ask()
        return _CHECK_S

    async def ask(self) -> None:
        """Ask central for new certificates; once for each that is to be followed."""
        name = self._present.name
        csrs = {
            f"{which}_csr": identity.csr(await self._vault.key_or_new(which + _NEXT), name)
            for which in identity.SECRETS
        }
        marker = hashlib.sha256(self._present.answer.transport_certificate).hexdigest()

        def unit(transaction: Transaction) -> None:
            if facts.get(transaction, _ASKED) != marker:
                transaction.emit("identity.requested", csrs, actor="system")
                facts.put(transaction, _ASKED, marker)

        await self._database.writer.run(unit)

    def _half_spent(self) -> bool:
        certificate = x509.load_der_x509_certificate(self._present.answer.transport_certificate)
        begin_us = utc_us_of(certificate.not_valid_before_utc)
        end_us = utc_us_of(certificate.not_valid_after_utc)
        return self._clock.now().utc_us >= (begin_us + end_us) // 2

    async def _adopt(self, order: Order) -> Unit[None]:
        """Check that the certificate is for our key and name, under the root of the join."""
        der: bytes = order.body["certificate"]
        fresh = {which: await self._vault.key_or_new(which + _NEXT) for which in identity.SECRETS}
        certificate = x509.load_der_x509_certificate(der)
        if certificate.public_key() != fresh[identity.TRANSPORT].public_key():
            raise UntrustedError("The certificate is not for the key that was asked for.")
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [name.value for name in names] != [self._present.name]:
            raise UntrustedError("The certificate names another gateway.")
        now_us = self._clock.now().utc_us
        chain.verify(der, [], [self._present.answer.transport_root], now_us)
        answer = self._present.answer.model_copy(update={"transport_certificate": der})
        self._adopting = True

        def unit(transaction: Transaction) -> None:
            for which, key in fresh.items():
                self._vault.keep_key(transaction, which, key)
                self._vault.drop(transaction, which + _NEXT)
            facts.put(transaction, identity.ANSWER, answer.encode().hex())
            facts.put(transaction, _ASKED, None)

        return unit
