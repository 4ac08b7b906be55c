"""What administrators do, by page or by command: each act is audited in its own transaction."""

from collections.abc import Collection
from typing import Any

from central.authority.join import Joining, revoke_transport
from central.console import CommandOrder, StationOrder
from central.core import Core
from central.identity.approvals import Approvals, Content, Operation
from central.inventory import audit
from central.inventory.reads import Inventory
from central.issuing import CentralProfiles
from central.sync import directives, fleet
from central.transport import Transport
from shared.issuance.ports import CertificateRecord
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.kernel.ids import Random
from shared.policy.rights import Permission, Scope
from shared.store.access import Access
from shared.store.transaction import Transaction
from shared.web.auth import Authenticator, new_token
from shared.web.pages import utc_text

#: As ``approvals.operations`` names it.
END_GATEWAY = "gateway.end"
_HOUR_US = 3600 * US_PER_SECOND
_DAY_US = 24 * _HOUR_US


class Operations:
    """Implements ``central.console.Console``, and what the pages change."""

    def __init__(
        self,
        central: Core,
        *,
        joining: Joining,
        profiles: CentralProfiles,
        transport: Transport,
        inventory: Inventory,
        access: Access,
        authenticator: Authenticator,
        approvals: Approvals,
        random: Random,
    ) -> None:
        """Take what acts."""
        self._central = central
        self._joining = joining
        self._profiles = profiles
        self._transport = transport
        self._inventory = inventory
        self._access = access
        self._authenticator = authenticator
        self._random = random
        self._approvals = approvals
        ending = Operation(END_GATEWAY, Permission.GATEWAY_END, self._end, self._shut_out)
        approvals.register(END_GATEWAY, ending)

    async def invite(self, name: str, actor: str) -> str:
        """Give a join token as text."""
        return await self._joining.invite(name, actor)

    async def gateways(self) -> list[dict[str, Any]]:
        """List the gateways as the command line shows them."""
        return [
            {
                "name": row.name,
                "state": row.state,
                "link": row.link,
                "since": utc_text(row.link_since_us),
                "last contact": utc_text(row.last_contact_us),
                "behind": row.backlog,
                "applied": row.applied,
                "waiting": row.waiting,
                "version": row.version,
                "state_reason": row.state_reason,
                "ca_id": row.ca_id,
                "lacking": row.lacking,
            }
            for row in await self._inventory.gateways()
        ]

    async def end_gateway(self, name: str, reason: str, actor: str) -> int | None:
        """End a gateway: it is cut off at once and can never speak again under its identity.

        Gives the number under which it waits for a second person, if the settings say so.
        """
        if (await self._inventory.gateway(name)).state == fleet.ENDED:
            raise ConflictError(f"The gateway {name} is ended already.")
        content = {"name": name, "reason": reason}
        where = Scope(line=name)
        return await self._approvals.do(END_GATEWAY, name, content, actor, scope=where)

    async def command_gateway(self, order: CommandOrder, actor: str) -> str:
        """Order one thing of a gateway; gives the id under which the audit log has its answer."""

        def unit(transaction: Transaction) -> str:
            if fleet.find(transaction, order.name).state != fleet.ACTIVE:
                raise ConflictError(f"The gateway {order.name} is not active.")
            not_after_us = transaction.now.utc_us + order.within_hours * _HOUR_US
            command_id = directives.order_command(
                transaction, order.name, order.command, not_after_us, actor
            )
            detail = {"command": order.command, "command_id": command_id}
            audit.add(transaction, actor, "gateway.commanded", order.name, detail)
            return command_id

        return await self._central.storage.database.writer.run(unit)

    async def add_station(self, order: StationOrder, actor: str) -> str:
        """Make a station; gives its token, which is kept as a hash only."""
        self._require_profiles(order)
        token, digest = new_token(self._random)
        await self._access.add_station(
            order.name,
            role=order.role,
            profiles=order.profiles,
            token_hash=digest,
            expires_at_us=self._now_us() + order.days * _DAY_US,
            actor=actor,
        )
        return token

    async def stations(self, names: Collection[str] | None = None) -> list[dict[str, Any]]:
        """List some stations, or all (None), the ended ones too."""
        now_us = self._now_us()
        return [
            {
                "name": row.name,
                "role": row.role,
                "profiles": ", ".join(row.profiles),
                "state": "revoked"
                if row.revoked_at_us is not None
                else "active"
                if now_us < (row.expires_at_us or now_us + 1)
                else "expired",
                "ends": utc_text(row.expires_at_us),
            }
            for row in await self._access.stations(names)
        ]

    async def revoke_station(self, name: str, actor: str) -> None:
        """End a station's token at once; raises NotFoundError."""
        await self._access.revoke_station(name, actor)
        self._authenticator.forget()

    async def revoke(self, serial: str, reason: str, actor: str) -> dict[str, str]:
        """Revoke by serial number; raises NotFoundError, BadRequestError when two CAs used it."""
        normal = serial.replace(":", "").strip().lower().removeprefix("0x").zfill(32)
        found = await self._central.reads.search({"serial": normal}, None, 0, 2)
        if not found:
            raise NotFoundError(f"No certificate with serial number {serial} is known.")
        if len(found) > 1:
            raise BadRequestError("Two CAs used this serial number; revoke it on the web page.")
        record = await self.revoke_certificate(found[0].ca_id, normal, reason, actor)
        return {"ca_id": record.ca_id, "serial": record.serial, "status": record.status.value}

    async def revoke_certificate(
        self, ca_id: str, serial: str, reason: str, actor: str
    ) -> CertificateRecord:
        """Revoke for good, wherever it was issued; the gateway hears of it in the same commit."""
        record = await self._central.status.revoke(ca_id, serial, reason, actor)
        self._authenticator.forget()
        return record

    def _end(self, transaction: Transaction, content: Content, actor: str) -> None:
        name = content["name"]
        row = fleet.find(transaction, name)
        if row.state == fleet.ENDED:
            raise ConflictError(f"The gateway {name} is ended already.")
        if row.transport_serial is not None:
            hierarchy = self._central.hierarchy
            revoke_transport(transaction, hierarchy, row.transport_serial, "cessation_of_operation")
        fleet.end(transaction, name, content["reason"], actor)

    async def _shut_out(self, content: Content) -> None:
        await self._transport.shut_out(content["name"])

    def _require_profiles(self, order: StationOrder) -> None:
        known = {found.name for found in self._profiles.all} | {"*"}
        if unknown := set(order.profiles) - known:
            raise BadRequestError(
                f"There is no profile {', '.join(sorted(unknown))}.",
                remedy=f"There are: {', '.join(sorted(known - {'*'}))}.",
            )

    def _now_us(self) -> int:
        return self._central.clock.now().utc_us
