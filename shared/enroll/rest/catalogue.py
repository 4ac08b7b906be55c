"""What a client can ask for, and of whom: profiles, CAs, state."""

from aiohttp import web

from shared.enroll.rest import documents
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import authority_resource
from shared.web.auth import Role


class Catalogue:
    """Handlers that only read."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports

    async def profiles(self, request: web.Request) -> web.Response:
        """Give the profiles in force that the requester may use."""
        principal = await self._ports.authenticator.principal(request)
        data = [
            {"type": "profile", "id": profile.name, "attributes": profile.to_document()}
            for profile in await self._ports.profiles()
            if principal.may_use(profile.name) or principal.role is Role.AUDITOR
        ]
        return documents.answer(documents.encode({"data": data}))

    async def authorities(self, request: web.Request) -> web.Response:
        """Give the CAs that are known here, with their certificates."""
        await self._ports.authenticator.principal(request)
        data = [authority_resource(row) for row in await self._ports.reads.authorities()]
        return documents.answer(documents.encode({"data": data}))

    async def sync(self, request: web.Request) -> web.Response:
        """Say how far each lane of replication is, and why its events wait."""
        principal = await self._ports.authenticator.principal(request)
        principal.require(Role.ADMIN, Role.AUDITOR)
        data = [
            {
                "type": "sync_lane",
                "id": f"{lane['gateway']}/{lane['direction']}/{lane['segment']}/{lane['lane']}",
                "attributes": lane,
            }
            for lane in await self._ports.sync()
        ]
        return documents.answer(documents.encode({"data": data}))

    async def status(self, request: web.Request) -> web.Response:
        """Say how this box is."""
        principal = await self._ports.authenticator.principal(request)
        principal.require(Role.ADMIN, Role.AUDITOR, Role.STATION)
        attributes = dict(await self._ports.health())
        data = {"type": "status", "id": "self", "attributes": attributes}
        return documents.answer(documents.encode({"data": data}))
