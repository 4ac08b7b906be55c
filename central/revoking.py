"""Revocation by query at central: a second person may have to agree before it begins.

The order is kept at once, with its own id and its bounds, and waits: so what is agreed to is what
was asked for, and who asked sees and stops it where it will run.
"""

from collections.abc import Callable
from typing import Any, Final

from central.core import Core
from central.identity.approvals import Approvals, Content, Operation
from shared.issuance.mass_revocation import MassRevocation
from shared.issuance.revocation_orders import Operation as Revocation
from shared.policy.rights import EVERYWHERE, Permission
from shared.store import operations
from shared.store.operations import SqlOperations
from shared.store.transaction import Transaction

#: As ``approvals.operations`` names it.
REVOKE_MANY: Final = "certificate.revoke-many"


def mass_revocation(
    central: Core, approvals: Approvals, changed: Callable[[], None]
) -> MassRevocation:
    """Make it; ``changed`` must hear that certificates were revoked."""

    async def ask(order: Revocation) -> None:
        scopes = order.wanted.scopes
        where = scopes[0] if len(scopes) == 1 else EVERYWHERE
        subject = f"{order.found:,} certificates"
        await approvals.do(REVOKE_MANY, subject, _content(order), order.wanted.actor, scope=where)

    async def begun(_content: Content) -> None:
        mass.resume()

    needed = REVOKE_MANY in central.settings.approvals.operations
    store = SqlOperations(central.storage.database)
    mass = MassRevocation(store, central.status, changed, ask if needed else None)
    approvals.register(
        REVOKE_MANY,
        Operation(REVOKE_MANY, Permission.CERTIFICATE_REVOKE, _release, begun, _cancel),
    )
    return mass


def _content(order: Revocation) -> dict[str, Any]:
    return {
        "operation_id": order.operation_id,
        "filter": order.wanted.selection.model_dump(mode="json", exclude_defaults=True),
        "reason": order.wanted.reason,
        "found": order.found,
    }


def _release(transaction: Transaction, content: Content, _actor: str) -> None:
    operations.release(transaction, content["operation_id"])


def _cancel(transaction: Transaction, content: Content) -> None:
    operations.cancel(transaction, content["operation_id"])
