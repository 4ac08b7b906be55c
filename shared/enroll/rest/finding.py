"""Which certificate a path names, and whether it is the requester's business."""

import re

from aiohttp import web

from shared.enroll.rest.ports import CertificateRow, Reads
from shared.kernel.errors import NotFoundError
from shared.web.auth import Principal, Role

_ID = re.compile(r"(?P<ca_id>[0-9a-f]{40})-(?P<serial>[0-9a-f]{32,40})")


def certificate_id(ca_id: str, serial: str) -> str:
    """Name a certificate in addresses."""
    return f"{ca_id}-{serial}"


async def find(request: web.Request, reads: Reads, principal: Principal) -> CertificateRow:
    """Find the certificate ``{id}``; raises NotFoundError, also for what is not one's business."""
    match = _ID.fullmatch(request.match_info["id"])
    row = await reads.certificate(match["ca_id"], match["serial"]) if match else None
    if row is None or not may_see(principal, row):
        raise NotFoundError("There is no such certificate here.")
    return row


def may_see(principal: Principal, row: CertificateRow) -> bool:
    """Tell whether the requester may know and manage this certificate."""
    match principal.role:
        case Role.ADMIN | Role.AUDITOR:
            return True
        case Role.STATION:
            return principal.may_use(row.profile or "")
        case Role.DEVICE:
            return principal.certificate == (row.ca_id, row.serial)
