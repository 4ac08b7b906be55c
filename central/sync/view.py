"""How replication is with every gateway: for pages, REST and metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client.core import Metric
from sqlalchemy import ColumnElement, Row, bindparam, func, select, true

from central.inventory.crl_ages import CrlAges
from central.inventory.models import CrlView, GatewayView
from central.inventory.reads import Inventory
from central.sync import fleet
from central.sync.listener import Listener
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.store import lanes
from shared.store.backups import Backups
from shared.store.database import Database
from shared.store.schema import cursor
from shared.sync.events import Direction, Lane
from shared.sync.standing import LaneStanding, Rate, Waits, shown
from shared.web import metrics

_SAMPLE_S = 10
_LANES_MAX = 200
_SUMS = (
    select(
        cursor.c.peer,
        func.sum(cursor.c.applied).label("applied"),
        func.sum(cursor.c.archived).label("archived"),
    )
    .where(cursor.c.direction == "in")
    .group_by(cursor.c.peer)
)


def _newest(wanted: ColumnElement[bool]) -> Any:
    """Select the marks of the lanes of each gateway that moved last."""
    place = func.row_number().over(
        partition_by=cursor.c.peer, order_by=(cursor.c.updated_at.desc(), cursor.c.segment)
    )
    found = (
        select(cursor, place.label("place")).where(wanted, cursor.c.direction == "in").subquery()
    )
    return select(found).where(found.c.place <= _LANES_MAX).order_by(found.c.place)


_NEWEST_OF_ONE = _newest(cursor.c.peer == bindparam("link"))
_NEWEST_OF_ALL = _newest(true())


@dataclass(frozen=True, slots=True)
class Measured:
    """Sums over all lanes of one gateway, and events of it applied per second."""

    applied: int
    archived: int
    rate: float

    @property
    def unarchived(self) -> int:
        """Applied events that are in no retained backup."""
        return self.applied - self.archived


class SyncView:
    """Reads the lanes of the fleet."""

    def __init__(
        self,
        database: Database,
        inventory: Inventory,
        listener: Listener,
        backups: Backups,
        clock: Clock,
        *,
        crl_ages: CrlAges,
    ) -> None:
        """Take the sources; ``step`` keeps the rates."""
        self._database = database
        self._inventory = inventory
        self._listener = listener
        self._backups = backups
        self._crl_ages = crl_ages
        self._clock = clock
        self._rates: dict[str, Rate] = {}

    async def step(self) -> float:
        """Sample how many events of each gateway are applied."""
        now_ns = self._clock.now().mono_ns
        for row in await self._database.read(_SUMS):
            self._rates.setdefault(row.peer, Rate()).observe(row.applied, now_ns)
        return _SAMPLE_S

    async def measured(self) -> dict[str, Measured]:
        """Give the sums of every gateway that sent something."""
        return {
            row.peer: Measured(row.applied, row.archived, self._rate(row.peer))
            for row in await self._database.read(_SUMS)
        }

    async def reported(self, gateway: GatewayView) -> list[LaneStanding]:
        """Give the lanes of a gateway: how far they are here, and what it last said it holds."""
        rows = await self._database.read(_NEWEST_OF_ONE, {"link": gateway.name})
        return self._reported(gateway, rows)

    async def ordered(self, gateway: GatewayView) -> list[LaneStanding]:
        """Give the lanes of our directives to a gateway."""
        sent = self._listener.positions(gateway.name)
        found = await lanes.standing(self._database, gateway.name, sent)
        return [_explained(lane, gateway) for lane in found]

    async def shown(self) -> list[Mapping[str, Any]]:
        """Give all lanes of the fleet as REST shows them; no query is for one gateway."""
        gateways = await self._inventory.gateways()
        sent = {gateway.name: self._listener.positions(gateway.name) for gateway in gateways}
        ordered = await lanes.standings(self._database, sent)
        rows: dict[str, list[Row[Any]]] = {}
        for row in await self._database.read(_NEWEST_OF_ALL):
            rows.setdefault(row.peer, []).append(row)
        found: list[Mapping[str, Any]] = []
        for gateway in gateways:
            name = gateway.name
            up = self._reported(gateway, rows.get(name, []))
            found += [shown(name, Direction.UP, lane) for lane in up]
            down = (_explained(lane, gateway) for lane in ordered.get(name, []))
            found += [shown(name, Direction.DOWN, lane) for lane in down]
        return found

    def _reported(self, gateway: GatewayView, rows: Sequence[Row[Any]]) -> list[LaneStanding]:
        heads = dict(self._listener.heads(gateway.name))
        found: list[LaneStanding] = []
        for row in rows:
            head = max(row.applied, heads.pop((row.segment, Lane(row.lane)), 0))
            found.append(_lane(row.segment, Lane(row.lane), head, row.applied, row.archived))
        found += [_lane(segment, lane, head, 0, 0) for (segment, lane), head in heads.items()]
        return [_explained(lane, gateway) for lane in found]

    async def metrics(self) -> list[Metric]:
        """Give what Prometheus collects."""
        seen = await self._inventory.dashboard()
        measured = await self.measured()
        return [
            *_of_gateways(seen.gateways, measured),
            *await self._of_crls(),
            metrics.one("tma_quarantined_events", "Events kept but not applied.", seen.quarantined),
            metrics.gauge(
                "tma_certificates",
                "Certificates of the fleet.",
                ("status",),
                metrics.by_label(
                    {
                        "good": seen.totals.good,
                        "held": seen.totals.held,
                        "revoked": seen.totals.revoked,
                        "voided": seen.totals.voided,
                    }
                ),
            ),
            *await self._of_backups(),
        ]

    async def _of_crls(self) -> list[Metric]:
        found = await self._crl_ages.listed()
        labels = ("ca", "gateway", "scope")

        def samples(value: Callable[[CrlView], float]) -> metrics.Samples:
            return [((one.ca_id, one.gateway or "", one.scope), value(one)) for one in found]

        return [
            metrics.gauge(
                "tma_crl_next_update_timestamp_seconds",
                "When the newest CRL of a CA ends; 0: there is none.",
                labels,
                samples(lambda one: (one.next_update_us or 0) / US_PER_SECOND),
            ),
            metrics.gauge(
                "tma_crl_alarm",
                "The CRL is too old, missing, or cannot be signed.",
                labels,
                samples(lambda one: bool(one.alarm)),
            ),
        ]

    async def _of_backups(self) -> list[Metric]:
        standing = await self._backups.standing()
        newest = standing.newest()
        return [
            metrics.one(
                "tma_backup_newest_timestamp_seconds",
                "When the newest backup that counts was made; 0: never.",
                newest.created_at_us / US_PER_SECOND if newest else 0,
            ),
            metrics.one(
                "tma_backup_overdue", "No backup that counts is young enough.", standing.overdue
            ),
            metrics.one(
                "tma_backup_failed", "The last try to back up failed.", bool(standing.failure)
            ),
        ]

    def _rate(self, name: str) -> float:
        return self._rates[name].per_second if name in self._rates else 0.0


def _of_gateways(gateways: Sequence[GatewayView], measured: Mapping[str, Measured]) -> list[Metric]:
    nothing = Measured(0, 0, 0.0)
    label = ("gateway",)
    mine = {gateway.name: measured.get(gateway.name, nothing) for gateway in gateways}

    def gauge(name: str, what: str, values: Mapping[str, float]) -> Metric:
        return metrics.gauge(name, what, label, metrics.by_label(values))

    return [
        gauge(
            "tma_gateway_online",
            "The gateway's link is up.",
            {one.name: one.link == fleet.ONLINE for one in gateways},
        ),
        gauge(
            "tma_gateway_last_contact_timestamp_seconds",
            "When it was last heard.",
            {one.name: (one.last_contact_us or 0) / US_PER_SECOND for one in gateways},
        ),
        gauge(
            "tma_gateway_backlog_events",
            "Events that it said it still holds unsent.",
            {one.name: one.backlog for one in gateways},
        ),
        gauge(
            "tma_gateway_orders_waiting_events",
            "Directives that it has not confirmed.",
            {one.name: one.waiting for one in gateways},
        ),
        metrics.counter(
            "tma_gateway_applied_events",
            "Events of it that are applied here.",
            label,
            metrics.by_label({name: one.applied for name, one in mine.items()}),
        ),
        gauge(
            "tma_gateway_unarchived_events",
            "Applied events of it that no retained backup has.",
            {name: one.unarchived for name, one in mine.items()},
        ),
        gauge(
            "tma_gateway_apply_rate",
            "Events of it applied per second, over a minute.",
            {name: one.rate for name, one in mine.items()},
        ),
    ]


def _lane(segment: str, lane: Lane, head: int, applied: int, archived: int) -> LaneStanding:
    return LaneStanding(segment, lane, "", head, head, applied, archived, None)


def _explained(lane: LaneStanding, gateway: GatewayView) -> LaneStanding:
    if lane.waiting == 0:
        return lane
    if gateway.state in fleet.STOPPED.values():
        return replace(lane, waits=Waits.HISTORY)
    if gateway.link != fleet.ONLINE:
        return replace(lane, waits=Waits.LINK)
    return replace(lane, waits=Waits.RECEIPT if lane.sent == lane.head else Waits.TURN)
