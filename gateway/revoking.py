"""Revocation at a gateway: CRLs that outlive the link's absence, and revocation by query."""

from collections.abc import Callable
from dataclasses import replace

from gateway.ca_cache import Rules
from gateway.issuing import Authorities
from shared.issuance.mass_revocation import MassRevocation
from shared.issuance.ports import Ledger
from shared.issuance.status import CrlSchedule, StatusService
from shared.kernel.clock import Clock
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.operations import SqlOperations
from shared.store.outbox import Outbox


def status_service(
    database: Database,
    outbox: Outbox,
    *,
    ledger: Ledger,
    authorities: Authorities,
    rules: Rules,
    clock: Clock,
) -> StatusService:
    """CRLs must outlive the time that the grant allows without contact (design.md §4)."""
    grant = rules.known_grant
    offline_s = (grant.last_contact_max_s or 0) if grant else 0
    schedule = CrlSchedule()
    return StatusService(
        keys=authorities,
        ledger=ledger,
        crls=SqlCrls(database, outbox),
        clock=clock,
        ca_ids=[key.issuer.ca_id for key in authorities.own],
        schedule=replace(schedule, lifetime_s=max(schedule.lifetime_s, 2 * offline_s)),
    )


def mass_revocation(
    database: Database, status: StatusService, changed: Callable[[], None]
) -> MassRevocation:
    """Revoke many by one order; ``changed`` hears that some are revoked."""
    return MassRevocation(SqlOperations(database), status, changed)
