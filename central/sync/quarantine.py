"""Events that an earlier version could not apply get another try at each start.

They are whole and authentic, and what came after them was applied already: effects commute, so
late is as good as in time.
"""

import logging
from typing import Any

from sqlalchemy import bindparam, select, update

from central.sync.apply import Applier
from shared.kernel.errors import Kind, TmaError
from shared.store.database import Database
from shared.store.schema import quarantine
from shared.store.transaction import Transaction
from shared.sync import events

_LOG = logging.getLogger(__name__)
_ROWS_MAX = 10_000
_OPEN = (
    select(quarantine)
    .where(quarantine.c.resolved_at.is_(None))
    .order_by(quarantine.c.created_at)
    .limit(_ROWS_MAX)
)
_RESOLVE = (
    update(quarantine)
    .where(
        quarantine.c.peer == bindparam("link"),
        quarantine.c.segment == bindparam("name"),
        quarantine.c.lane == bindparam("lane_number"),
        quarantine.c.sequence == bindparam("number"),
    )
    .values(resolved_at=bindparam("now"))
)


async def drive_again(database: Database) -> int:
    """Apply what can be applied now; gives how many events left the quarantine."""
    resolved = 0
    for row in await database.read(_OPEN):
        try:
            await database.writer.run(lambda transaction, row=row: _apply(transaction, row))
        except Exception as error:  # one poisonous event must not stop the others
            if isinstance(error, TmaError) and error.kind is Kind.RETRYABLE:
                raise
            continue
        resolved += 1
    if resolved:
        _LOG.info("%d events left the quarantine.", resolved)
    return resolved


def _apply(transaction: Transaction, row: Any) -> None:
    event = events.decode(row.event)
    events.check(event)
    Applier(row.peer).apply(transaction, event)
    place = {
        "link": row.peer,
        "name": row.segment,
        "lane_number": row.lane,
        "number": row.sequence,
    }
    transaction.execute(_RESOLVE, {**place, "now": transaction.now.utc_us})
