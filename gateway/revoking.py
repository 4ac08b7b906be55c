"""Revocation at a gateway: CRLs that outlive the link's absence, and revocation by query."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from gateway.ca_cache import Rules
from gateway.config import GatewaySettings
from gateway.issuing import Authorities
from shared.issuance.crls import CrlSchedule
from shared.issuance.mass_revocation import MassRevocation
from shared.issuance.ports import Ledger
from shared.issuance.status import StatusService
from shared.kernel.clock import Clock
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.operations import SqlOperations
from shared.store.outbox import Outbox

_HOUR_S = 3600


class Ground(Protocol):
    """What it stands on (``gateway.agent.Ground``)."""

    @property
    def settings(self) -> GatewaySettings: ...  # noqa: D102
    @property
    def database(self) -> Database: ...  # noqa: D102
    @property
    def outbox(self) -> Outbox: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102


def status_service(
    ground: Ground, *, ledger: Ledger, authorities: Authorities, rules: Rules
) -> StatusService:
    """CRLs must outlive the time that the grant allows without contact (design.md §4)."""
    grant = rules.known_grant
    offline_s = (grant.last_contact_max_s or 0) if grant else 0
    wanted = ground.settings.crl
    schedule = CrlSchedule(
        delta_s=wanted.delta_hours * _HOUR_S,
        delta_lifetime_s=wanted.delta_lifetime_hours * _HOUR_S,
        keep_expired_s=wanted.keep_expired_days * 24 * _HOUR_S,
    )
    status = StatusService(
        keys=authorities,
        ledger=ledger,
        crls=SqlCrls(ground.database, ground.outbox),
        clock=ground.clock,
        ca_ids=[key.issuer.ca_id for key in authorities.own],
        schedule=replace(schedule, lifetime_s=max(schedule.lifetime_s, 2 * offline_s)),
    )
    ground.database.writer.watch(status)
    return status


def mass_revocation(
    database: Database, status: StatusService, changed: Callable[[], None]
) -> MassRevocation:
    """Revoke many by one order; ``changed`` hears that some are revoked."""
    return MassRevocation(SqlOperations(database), status, changed)
