"""Which certificate a path names, and whether it is the requester's business."""

import re

from aiohttp import web

from shared.enroll.rest.ports import CertificateRow, Reads
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission, Place
from shared.web.auth import Principal

_ID = re.compile(r"(?P<ca_id>[0-9a-f]{40})-(?P<serial>[0-9a-f]{32,40})")


def certificate_id(ca_id: str, serial: str) -> str:
    """Name a certificate in addresses."""
    return f"{ca_id}-{serial}"


async def find(
    request: web.Request, reads: Reads, principal: Principal, permission: Permission
) -> CertificateRow:
    """Find the certificate ``{id}`` for what one wants to do with it.

    Raises NotFoundError, also for what one may not even read, else ForbiddenError.
    """
    match = _ID.fullmatch(request.match_info["id"])
    row = await reads.certificate(match["ca_id"], match["serial"]) if match else None
    if row is None or not principal.may(Permission.CERTIFICATE_READ, place_of(row)):
        raise NotFoundError("There is no such certificate here.")
    principal.require(permission, on=place_of(row))
    return row


def place_of(row: CertificateRow) -> Place:
    """Say where a certificate belongs; what this box issued itself belongs to no line."""
    return Place(
        tenant=row.tenant,
        ca=row.ca_id,
        profile=row.profile,
        line=row.origin or None,
        serial=row.serial,
    )
