"""What administrators do about who may enroll, by page, by command or by REST."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from central.enrollment.codes import Codes
from central.enrollment.distribution import Distribution
from central.enrollment.orders import CodesOrder, ImportOrder, RequesterOrder
from central.enrollment.records import Records, shown
from central.enrollment.registry import KINDS, Registry
from central.scope import Of, anywhere
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError, NotFoundError
from shared.kernel.ids import Random
from shared.policy.access import Manufacturer, Requester
from shared.store.database import Database
from shared.store.devices import Devices
from shared.web import passwords

_DAY_US = 24 * 3600 * US_PER_SECOND
_PASSWORD_BYTES = 18
_SECRET_BYTES = 32


class EnrollmentOperations:
    """Everything about who may enroll, in one hand."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        devices: Devices,
        *,
        trusted: Callable[[Sequence[bytes]], None],
        clock: Clock,
        random: Random,
    ) -> None:
        """Take the parts; ``trusted`` lets central's TLS accept more device CAs."""
        self.registry = registry
        self.records = Records(database)
        self.codes = Codes(database, random)
        self.distribution = Distribution(database, registry)
        self._devices = devices
        self._trusted = trusted
        self._clock = clock
        self._random = random

    @property
    def device_cas(self) -> list[bytes]:
        """The CAs (DER) of all manufacturers."""
        return [der for one in self.registry.everything.manufacturers for der in one.certificates]

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """List the aliases, requesters or manufacturers without what is secret or long."""
        if kind not in KINDS:
            raise NotFoundError(f"There is nothing of the kind {kind}.")
        everything = self.registry.everything
        found = {
            "alias": everything.aliases,
            "requester": everything.requesters,
            "manufacturer": everything.manufacturers,
        }
        return [self.registry.shown(one) for one in found[kind]]

    async def put_manufacturer(self, manufacturer: Manufacturer, actor: str) -> None:
        """Believe the device certificates of these CAs where an alias says so."""
        await self.registry.put("manufacturer", manufacturer, actor)
        self._trusted(list(manufacturer.certificates))

    async def add_requester(self, order: RequesterOrder, actor: str) -> str | None:
        """Let somebody enroll; gives the password or webhook secret that was made for him."""
        made: str | None = None
        values: dict[str, Any] = {}
        if order.kind == "password":
            given = order.password.get_secret_value() if order.password else None
            made = None if given else secrets.token_urlsafe(_PASSWORD_BYTES)
            if given:
                passwords.require_good(given, order.name)
            encoded = await asyncio.to_thread(passwords.encode, given or made or "")
            values["password_hash"] = encoded
        elif order.kind == "certificate":
            values["certificate_sha256"] = (order.certificate or "").replace(":", "").lower()
        else:
            made = self._random(_SECRET_BYTES).hex()
            values |= {"url": order.url, "secret": self.registry.seal(made.encode())}
        document = {
            "name": order.name,
            "kind": order.kind,
            "aliases": order.aliases,
            "profiles": order.profiles,
            "gateways": order.gateways,
            "expires_at_us": order.days and self._clock.now().utc_us + order.days * _DAY_US,
        }
        await self.registry.put("requester", _requester(document | values), actor)
        return made

    async def import_devices(
        self, order: ImportOrder, actor: str, may: Of = anywhere
    ) -> list[dict[str, Any]]:
        """Take rows of a CSV file, of lines where he may; gives a verdict for each."""
        verdicts = await self.records.import_rows(
            order.header,
            order.rows,
            first_row=order.first_row,
            dry_run=order.dry_run,
            actor=actor,
            may=may,
        )
        if not order.dry_run:
            await self._devices.load()
            self.distribution.wake()
        return [asdict(verdict) for verdict in verdicts]

    async def devices(
        self, filters: Mapping[str, str], after: str, lines: frozenset[str] | None = None
    ) -> list[dict[str, Any]]:
        """Search device records; ``lines`` None: of all lines."""
        found = await self.records.search(filters, after=after, lines=lines)
        return [shown(one) for one in found]

    async def device(self, serial: str, lines: frozenset[str] | None) -> dict[str, Any]:
        """Give one record; raises NotFoundError, also for one of another line."""
        found = await self.devices({"serial": serial}, "", lines)
        if not found or found[0]["serial"] != serial:
            raise NotFoundError(f"The device {serial} is not known.")
        return found[0]

    async def remove_device(self, serial: str, actor: str, may: Of = anywhere) -> None:
        """Forget a device everywhere; raises NotFoundError, ForbiddenError."""
        await self.records.remove(serial, actor, may)
        self.distribution.wake()

    async def make_codes(self, order: CodesOrder, actor: str) -> list[dict[str, str]]:
        """Make one-time codes; they are shown this once."""
        if order.alias != "*":
            self.registry.known_alias(order.alias)
        made = await self.codes.make(
            order.serials, gateway=order.gateway, alias=order.alias, days=order.days, actor=actor
        )
        self.distribution.wake()
        return [one._asdict() for one in made]


def _requester(values: dict[str, Any]) -> Requester:
    try:
        return Requester(**{name: value for name, value in values.items() if value is not None})
    except ValueError as error:
        raise BadRequestError(
            "This requester is not complete or not well formed.",
            remedy="A password needs nothing else, a certificate its SHA-256, a webhook its URL.",
        ) from error
