"""Who may enroll at this gateway, as central ordered it: held here, so that it works offline."""

from typing import Any

from aiohttp.web import RouteDef
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from gateway import identity
from gateway.ca_cache import Rules
from gateway.config import EnrollSettings
from gateway.issuing import Authorities
from gateway.standing_orders import Order, StandingOrders
from shared.enroll.est.ports import EstPorts
from shared.enroll.est.routes import routes as est_routes
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.requesters.webhook import Webhooks
from shared.enroll.rest.ports import RestPorts
from shared.kernel import cbor, limits
from shared.kernel.clock import Clock
from shared.kernel.ids import Random
from shared.pki import sealing
from shared.policy.access import Access
from shared.store import devices
from shared.store.database import Database
from shared.store.devices import Devices
from shared.store.schema import directive
from shared.store.transaction import Transaction, Unit
from shared.store.vault import Vault
from shared.sync.join import CENTRAL_NAME
from shared.web.auth import Authenticator
from shared.web.throttle import Throttle

_ACCESS = select(directive.c.envelope).where(
    directive.c.peer == CENTRAL_NAME, directive.c.kind == "access"
)


class Enrollment:
    """Aliases, requesters, device records and one-time codes of this gateway."""

    def __init__(
        self,
        *,
        settings: EnrollSettings,
        profiles: Rules,
        authenticator: Authenticator,
        database: Database,
        vault: Vault,
        clock: Clock,
        random: Random,
    ) -> None:
        """Put the parts together; ``load`` comes next."""
        self._profiles = profiles
        self._database = database
        self._vault = vault
        self._codes = StandingOrders("codes", database, once=True)
        self._exchange_key: ec.EllipticCurvePrivateKey | None = None
        self.devices = Devices(database)
        self.rules = AliasRules(
            lambda: profiles.profiles, off=settings.aliases_off, on=settings.aliases_on
        )
        self.doorkeeper = Doorkeeper(
            rules=self.rules,
            authenticator=authenticator,
            codes=self.devices,
            passwords=Passwords(clock, random),
            webhooks=Webhooks(self._unseal_secret),
            failures=Throttle(clock),
            clock=clock,
        )

    @property
    def device_cas(self) -> list[bytes]:
        """The CAs (DER) of manufacturers, whose device certificates TLS must let in."""
        return [der for one in self.rules.access.manufacturers for der in one.certificates]

    def est(self, rest: RestPorts, authorities: Authorities) -> list[RouteDef]:
        """Give the routes of EST, which shares REST's ports."""
        ports = EstPorts(
            issuance=rest.issuance,
            status=rest.status,
            refusals=rest.refusals,
            reads=rest.reads,
            kept=rest.kept,
            doorkeeper=self.doorkeeper,
            rules=self.rules,
            clock=rest.clock,
            profile=self._profiles.profile,
            chain=lambda _profile: authorities.newest.issuer.chain,
        )
        return est_routes(ports)

    async def load(self) -> None:
        """Take over what central ordered; call again after a directive changed it."""
        self._exchange_key = await self._vault.key(identity.EXCHANGE)
        for row in await self._database.read(_ACCESS):
            body = cbor.decode(row.envelope, limit=limits.EVENT_BYTES_MAX)
            self.rules.access = Access.from_document(body["document"])
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
