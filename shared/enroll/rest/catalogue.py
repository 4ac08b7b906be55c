"""What a client can ask for, and of whom: profiles, CAs, state."""

import asyncio

from aiohttp import web
from cryptography import x509

from shared.enroll.rest import documents, downloads, paging
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import authority_resource
from shared.kernel import limits
from shared.pki import formats
from shared.policy.rights import Permission, Place

_FILES = ("pem", "pkcs7", "truststore")
#: By what the lanes of replication are filtered, as ``filter[…]``.
LANE_FILTERS = ("gateway", "direction", "segment", "lane", "waits")
_JAVA_PASSWORD = b"changeit"  # Java's own default; it protects nothing secret


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
            if principal.may(Permission.PROFILE_READ, Place(profile=profile.name))
        ]
        return documents.answer(documents.encode({"data": data}))

    async def authorities(self, request: web.Request) -> web.Response:
        """Give the CAs that are known here, with their certificates, also as a file.

        The trust store holds the roots only: anchors of trust, for Java under ``changeit``.
        """
        rows = await self._ports.reads.authorities()
        name = downloads.wanted(request, _FILES)
        if name is not None:
            body = await asyncio.to_thread(_packed, name, [row.der for row in rows])
            return downloads.file(name, body, "cas")
        data = [authority_resource(row) for row in rows]
        return documents.answer(documents.encode({"data": data}))

    async def sync(self, request: web.Request) -> web.Response:
        """Say how far each lane of replication is, and why its events wait; page by page."""
        principal = await self._ports.authenticator.principal(request)
        principal.require_somewhere(Permission.GATEWAY_READ)
        page = paging.read(request.query, LANE_FILTERS, size=limits.PAGE_ROWS_MAX)
        lanes = {
            f"{lane['gateway']}/{lane['direction']}/{lane['segment']}/{lane['lane']}": lane
            for lane in await self._ports.sync()
            if principal.may(Permission.GATEWAY_READ, Place(line=lane["gateway"]))
            and all(lane[name] == value for name, value in page.filters.items())
        }
        following = [name for name in sorted(lanes) if name > page.after]
        links = {"self": request.path_qs}
        if len(following) > page.size:
            links["next"] = page.link("/sync", following[page.size - 1])
        data = [
            {"type": "sync_lane", "id": name, "attributes": lanes[name]}
            for name in following[: page.size]
        ]
        return documents.answer(documents.encode({"data": data, "links": links}))

    async def status(self, request: web.Request) -> web.Response:
        """Say how this box is."""
        del request
        attributes = dict(await self._ports.health())
        data = {"type": "status", "id": "self", "attributes": attributes}
        return documents.answer(documents.encode({"data": data}))


def _packed(name: str, ders: list[bytes]) -> bytes:
    match name:
        case "pem":
            return formats.pem(ders).encode()
        case "pkcs7":
            return formats.pkcs7(ders)
        case _:
            return formats.java_truststore(filter(_is_root, ders), _JAVA_PASSWORD)


def _is_root(der: bytes) -> bool:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.issuer == certificate.subject
