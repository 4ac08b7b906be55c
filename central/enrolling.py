"""Who may enroll, wired: registry, records, codes, doorkeeper, and what shows and serves them."""

from collections.abc import Callable, Sequence

from aiohttp.web import AbstractRouteDef, RouteDef
from cryptography.hazmat.primitives.asymmetric import ec

from central.admin.access_pages import routes as access_pages
from central.admin.device_pages import routes as device_pages
from central.admin.frame import Frame
from central.config import in_url
from central.core import Core
from central.enrollment import console, rest
from central.enrollment.operations import EnrollmentOperations
from central.enrollment.registry import Registry
from central.inventory.reads import Inventory
from central.issuing import CentralProfiles
from shared.enroll.est.catalogue import AliasCatalogue
from shared.enroll.est.commands import Place
from shared.enroll.est.ports import EstPorts
from shared.enroll.est.routes import routes as est_routes
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.webhook import Webhooks
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.routes import Route
from shared.kernel.ids import Random
from shared.pki.cms import Signer
from shared.store.devices import Devices
from shared.web.auth import Authenticator
from shared.web.throttle import Throttle


class Enrolling:
    """Everything about who may enroll, at central and at its gateways."""

    def __init__(
        self,
        central: Core,
        profiles: CentralProfiles,
        exchange_key: ec.EllipticCurvePrivateKey,
        *,
        trusted: Callable[[Sequence[bytes]], None],
        random: Random,
    ) -> None:
        """Put the parts together; ``trusted`` lets central's TLS accept the CAs of devices."""
        database = central.storage.database
        self._central = central
        self._profiles = profiles
        self._random = random
        self._trusted = trusted
        self._registry = Registry(database, lambda: profiles.all, exchange_key)
        self._catalogue = AliasCatalogue(self._registry.rules, profiles.profile, self._place)
        self.devices = Devices(database)
        self.operations = EnrollmentOperations(
            database,
            self._registry,
            self.devices,
            trusted=trusted,
            clock=central.clock,
            random=random,
        )

    async def load(self) -> None:
        """Read what is kept; TLS accepts the manufacturers' devices from then on."""
        await self._registry.load()
        await self.devices.load()
        self._trusted(self.operations.device_cas)

    def console_routes(self) -> list[AbstractRouteDef]:
        """Give the routes of the unix socket."""
        return [*console.routes(self.operations), *self._catalogue.console_routes()]

    def rest_routes(self) -> list[Route]:
        """Give what REST has beside enrolling."""
        return [*rest.routes(self.operations), *self._catalogue.routes()]

    def pages(self, frame: Frame, inventory: Inventory) -> list[RouteDef]:
        """Give the pages."""
        return [
            *access_pages(frame, self.operations, self._catalogue, lambda: self._profiles.all),
            *device_pages(frame, self.operations, inventory),
        ]

    def est(
        self,
        rest_ports: RestPorts,
        authenticator: Authenticator,
        failures: Throttle,
        signer: Callable[[], Signer],
    ) -> list[RouteDef]:
        """Give the routes of EST, which shares REST's ports."""
        doorkeeper = Doorkeeper(
            rules=self._registry.rules,
            authenticator=authenticator,
            codes=self.devices,
            passwords=Passwords(rest_ports.clock, self._random),
            webhooks=Webhooks(self._registry.unseal),
            failures=failures,
            clock=rest_ports.clock,
        )
        return est_routes(
            EstPorts.of_rest(
                rest_ports,
                doorkeeper=doorkeeper,
                rules=self._registry.rules,
                profile=self._profiles.profile,
                chain=lambda profile: rest_ports.keys.active(profile).issuer.chain,
                random=self._random,
                signer=signer,
            )
        )

    def _place(self) -> Place:
        """Say where a machine reaches central, for ready-made commands."""
        settings, root = self._central.settings, self._central.hierarchy.root
        machines = f"https://{in_url(settings.host)}:{settings.web.machine_port}"
        return Place(machines, settings.status_url, root.issuer.chain[0])
