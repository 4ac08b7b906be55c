"""How replication is, at this gateway: for the page, REST and metrics, all from one reading."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prometheus_client.core import Metric
from sqlalchemy import func, select

from gateway.issuing import Authorities
from gateway.link import CentralLink
from gateway.snapshot import HistoryState
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.store import lanes, pruning
from shared.store.backups import Backups
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.schema import cursor
from shared.sync.events import Direction
from shared.sync.join import CENTRAL_NAME
from shared.sync.standing import LaneStanding, Rate, Waits, shown
from shared.web import metrics

_SAMPLE_S = 5
_CONFIRMED = select(func.coalesce(func.sum(cursor.c.applied), 0).label("events")).where(
    cursor.c.peer == CENTRAL_NAME, cursor.c.direction == "out"
)


class SyncView:
    """Reads the lanes to central."""

    def __init__(
        self,
        *,
        name: str,
        database: Database,
        link: CentralLink,
        authorities: Authorities,
        backups: Backups,
        clock: Clock,
    ) -> None:
        """Take the sources; ``step`` keeps the rate."""
        self._name = name
        self._database = database
        self._link = link
        self._authorities = authorities
        self._backups = backups
        self._clock = clock
        self._reads = Reads(database)
        self._rate = Rate()

    async def step(self) -> float:
        """Sample how many events central confirmed."""
        self._rate.observe(await self._confirmed(), self._clock.now().mono_ns)
        return _SAMPLE_S

    async def lanes(self) -> list[LaneStanding]:
        """Give the lanes with why they wait."""
        found = await lanes.standing(self._database, CENTRAL_NAME, self._link.positions)
        return [replace(lane, waits=self._why(lane)) for lane in found]

    async def shown(self) -> list[Mapping[str, Any]]:
        """Give the lanes as REST shows them."""
        return [shown(self._name, Direction.UP, lane) for lane in await self.lanes()]

    async def held_by_central_only(self) -> int:
        """Count events that were deleted here although no backup of central has them."""
        return await pruning.held_by_peer_only(self._database, CENTRAL_NAME)

    async def metrics(self) -> list[Metric]:
        """Give what Prometheus collects."""
        found = await self.lanes()
        queue = await self._reads.queue(CENTRAL_NAME)
        now_us = self._clock.now().utc_us
        age_us = now_us - queue.oldest_us if queue.oldest_us is not None else 0
        counted = await self._reads.counters()
        backups = await self._backups.standing()
        newest = backups.newest()
        by_lane = {
            lane: sum(one.waiting for one in found if one.lane.name.lower() == lane)
            for lane in ("urgent", "normal")
        }
        return [
            metrics.one("tma_link_online", "Central is reached.", self._link.online),
            metrics.gauge(
                "tma_sync_waiting_events",
                "Events that central has not confirmed: lost if this box dies now.",
                ("lane",),
                metrics.by_label(by_lane),
            ),
            metrics.one("tma_sync_oldest_waiting_seconds", "Age of the oldest.", age_us / 1e6),
            metrics.one(
                "tma_sync_unarchived_events",
                "Events that no backup of central has: lost if this box and central's disk die.",
                sum(one.unarchived for one in found),
            ),
            metrics.counter(
                "tma_sync_confirmed_events",
                "Events that central confirmed.",
                (),
                [((), await self._confirmed())],
            ),
            metrics.one(
                "tma_sync_confirmed_rate",
                "Events per second, over a minute.",
                self._rate.per_second,
            ),
            metrics.one(
                "tma_sync_held_by_central_only_events",
                "Events that the opt-in rule deleted before a backup of central had them.",
                await self.held_by_central_only(),
            ),
            metrics.gauge(
                "tma_certificates",
                "Certificates that this gateway issued, by counter.",
                ("counter",),
                metrics.by_label(
                    {name: values[""] for name, values in counted.items() if "" in values}
                ),
            ),
            metrics.gauge(
                "tma_crl_next_update_timestamp_seconds",
                "When the newest CRL of a CA ends.",
                ("ca", "scope"),
                await self._crl_ends(),
            ),
            metrics.one(
                "tma_backup_newest_timestamp_seconds",
                "When the newest backup that counts was made; 0: never.",
                newest.created_at_us / US_PER_SECOND if newest else 0,
            ),
            metrics.one(
                "tma_backup_overdue", "No backup that counts is young enough.", backups.overdue
            ),
        ]

    async def _crl_ends(self) -> list[tuple[tuple[str, ...], float]]:
        return [
            ((key.issuer.ca_id, scope), end_us / US_PER_SECOND)
            for key in self._authorities.own
            for scope, end_us in (await self._reads.crl_ends(key.issuer.ca_id)).items()
        ]

    def _why(self, lane: LaneStanding) -> Waits:
        if lane.waiting == 0:
            return Waits.NOTHING
        if self._authorities.history is not HistoryState.CONTINUOUS:
            return Waits.HISTORY
        if not self._link.online:
            return Waits.LINK
        return Waits.RECEIPT if lane.sent == lane.head else Waits.TURN

    async def _confirmed(self) -> int:
        return (await self._database.read(_CONFIRMED))[0].events
