"""Sharing out the CRL of one of central's CAs to partitions (RFC 5280 §5.2.5)."""

from typing import Any

from central.authority import hierarchy as kinds
from central.authority.hierarchy import Hierarchy
from central.inventory import audit
from shared.issuance.status import StatusService
from shared.kernel.errors import ConflictError
from shared.store import partitions
from shared.store.database import Database
from shared.store.transaction import Transaction


async def partition(  # noqa: PLR0917 - what it needs of the administration
    hierarchy: Hierarchy,
    database: Database,
    status: StatusService,
    row: Any,
    count: int,
    actor: str,
) -> None:
    """Let new certificates of a CA name one of ``count`` partitions of its CRL; 1: the whole.

    All partitions are signed and served before a certificate names one. Certificates of before
    keep the CRL that they name. Raises ConflictError, NotFoundError (the key is not here),
    UnavailableError.
    """
    ca_id = row.ca_id
    if row.gateway is not None:
        raise ConflictError(
            "A gateway signs the CRL of its CA.",
            remedy="Set `crl.partitions` in the gateway's settings.",
        )
    path_length = hierarchy.of(ca_id).issuer.path_length
    if row.kind == kinds.TRANSPORT or row.state != kinds.ACTIVE or path_length != 0:
        raise ConflictError("Only an active CA that issues to end entities has partitions.")

    def sign_too(tx: Transaction) -> None:
        partitions.keep(tx, ca_id, partitions.of(tx, ca_id).kept(count))

    def adopt(tx: Transaction) -> None:
        partitions.keep(tx, ca_id, partitions.of(tx, ca_id).adopted(count))
        audit.add(tx, actor, "ca.partitioned", ca_id, {"name": row.name, "count": count})

    await database.writer.run(sign_too)
    await hierarchy.refresh()
    await status.sign_crl(ca_id)
    await database.writer.run(adopt)
    await hierarchy.refresh()
