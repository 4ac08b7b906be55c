"""Who may enroll at this gateway, as central ordered it: held here, so that it works offline."""

import os
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Protocol

from aiohttp.web import RouteDef
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from gateway import identity
from gateway.ca_cache import Rules
from gateway.config import GatewaySettings
from gateway.issuing import Authorities
from gateway.standing_orders import Order, StandingOrders
from shared.enroll.est.catalogue import AliasCatalogue
from shared.enroll.est.commands import Place
from shared.enroll.est.ports import EstPorts
from shared.enroll.est.routes import routes as est_routes
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.requesters.webhook import Webhooks
from shared.enroll.rest.ports import RestPorts
from shared.kernel import cbor, limits
from shared.kernel.clock import Clock
from shared.pki import sealing
from shared.pki.cms import Signer
from shared.policy.access import Access
from shared.policy.profile import Mode
from shared.store import devices
from shared.store.database import Database
from shared.store.devices import Devices
from shared.store.schema import directive
from shared.store.transaction import Transaction, Unit
from shared.store.vault import Vault
from shared.sync.join import CENTRAL_NAME
from shared.web.auth import Authenticator
from shared.web.throttle import Throttle
from shared.web.tls import trust

_ACCESS = select(directive.c.envelope).where(
    directive.c.peer == CENTRAL_NAME, directive.c.kind == "access"
)


class Ground(Protocol):
    """What it stands on (``gateway.agent.Ground``)."""

    @property
    def settings(self) -> GatewaySettings: ...  # noqa: D102
    @property
    def database(self) -> Database: ...  # noqa: D102
    @property
    def vault(self) -> Vault: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102


class Enrollment:
    """Aliases, requesters, device records and one-time codes of this gateway."""

    def __init__(
        self,
        ground: Ground,
        profiles: Rules,
        authorities: Authorities,
        authenticator: Authenticator,
    ) -> None:
        """Put the parts together; ``load`` comes next."""
        self._ground = ground
        self._profiles = profiles
        self._authorities = authorities
        self._codes = StandingOrders("codes", ground.database, once=True)
        self._exchange_key: ec.EllipticCurvePrivateKey | None = None
        self.devices = Devices(ground.database)
        switches = ground.settings.enroll
        self.rules = AliasRules(
            lambda: profiles.profiles, off=switches.aliases_off, on=switches.aliases_on
        )
        self.doorkeeper = Doorkeeper(
            rules=self.rules,
            authenticator=authenticator,
            codes=self.devices,
            passwords=Passwords(ground.clock, os.urandom),
            webhooks=Webhooks(self._unseal_secret),
            failures=Throttle(ground.clock),
            clock=ground.clock,
        )
        self.catalogue = AliasCatalogue(self.rules, profiles.profile, self._place)

    def est(self, rest: RestPorts, signer: Callable[[], Signer]) -> list[RouteDef]:
        """Give the routes of EST, which shares REST's ports."""
        ports = EstPorts.of_rest(
            rest,
            doorkeeper=self.doorkeeper,
            rules=self.rules,
            profile=self._profiles.profile,
            chain=self._chain,
            random=os.urandom,
            signer=signer,
        )
        return est_routes(ports)

    def _chain(self, profile: str) -> tuple[bytes, ...]:
        """Give the chain of the CA that signs for a profile: central's is known by its answers."""
        theirs = self._authorities.of_central
        if self._profiles.profile(profile).mode is Mode.FORWARD and theirs:
            return tuple(self._authorities.parents(theirs[-1].ca_id))
        return self._authorities.newest.issuer.chain

    def _place(self) -> Place:
        """Say where a machine reaches this box, for ready-made commands."""
        settings, root = self._ground.settings, self._authorities.newest.issuer.chain[-1]
        return Place(settings.machine_url, settings.status_url, root)

    async def load(self, machines: SSLContext) -> None:
        """Take over what central ordered; call again after a directive changed it.

        ``machines`` must let in the device certificates of all manufacturers.
        """
        self._exchange_key = await self._ground.vault.key(identity.EXCHANGE)
        for row in await self._ground.database.read(_ACCESS):
            body = cbor.decode(row.envelope, limit=limits.EVENT_BYTES_MAX)
            self.rules.access = Access.from_document(body["document"])
        manufacturers = self.rules.access.manufacturers
        trust(machines, [der for one in manufacturers for der in one.certificates])
        trust(machines, [row.der for row in self._authorities.of_central])
        await self.devices.load()
        await self._codes.obey(self._accept_codes)

    async def _accept_codes(self, order: Order) -> Unit[None]:
        """Open a batch of one-time codes; raises UntrustedError when it is not for this box."""
        batch, sealed = order.body["batch"], order.body["sealed"]
        opened = sealing.unseal(sealed, self._key(), sealing.codes(batch))
        codes: list[Any] = cbor.decode(opened, limit=limits.EVENT_BYTES_MAX)

        def unit(transaction: Transaction) -> None:
            for digest, serial, alias, expires_at_us in codes:
                devices.put_code(
                    transaction, digest, serial, alias=alias, expires_at_us=expires_at_us
                )

        return unit

    def _unseal_secret(self, sealed: bytes) -> bytes:
        return sealing.unseal(sealed, self._key(), sealing.WEBHOOK)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        assert self._exchange_key is not None  # ``load`` came first
        return self._exchange_key
