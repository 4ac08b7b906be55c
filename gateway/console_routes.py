"""Everything that the console of this box may ask, as one table of routes."""

from functools import partial

from aiohttp.web import AbstractRouteDef

from gateway import console
from gateway.ca_cache import Rules
from gateway.operator import Operator
from gateway.recent import WatchedIssuance
from shared.enroll.rest import explain_console
from shared.enroll.rest.explaining import explain
from shared.issuance.revocation_orders import Revoking
from shared.web import backup_console, revocation_console
from shared.web.backup_console import Backups


def console_routes(
    operator: Operator,
    issuance: WatchedIssuance,
    rules: Rules,
    backups: Backups,
    mass_revocation: Revoking,
) -> list[AbstractRouteDef]:
    """Give the routes of the unix socket."""
    return [
        *console.routes(operator),
        *explain_console.routes(partial(explain, issuance, rules.all_profiles)),
        *backup_console.routes(backups),
        *revocation_console.routes(mass_revocation),
    ]
