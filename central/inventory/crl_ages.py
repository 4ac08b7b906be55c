"""How old the CRLs are that central serves: its own, and those of the gateways.

A CRL that is over is worse than none: strict relying parties then refuse whatever the CA issued
(RFC 5280 §6.3.3). A gateway signs its own, so what is seen here is also that it does not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.sql.functions import coalesce

from central.authority.hierarchy import FOREIGN
from central.inventory.models import CrlView
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.pki.partitions import kind_of
from shared.store.database import Database
from shared.store.schema import COMPLETE, ca, crl, gateway
from shared.web.pages import utc_text

_DAY_US = 24 * 3600 * US_PER_SECOND
#: The first CRL of a gateway's CA comes with its first contact.
_BIRTH_US = _DAY_US
_NEWEST = (
    select(
        ca.c.ca_id,
        ca.c.name,
        ca.c.kind,
        ca.c.gateway,
        ca.c.created_at,
        crl.c.number,
        crl.c.this_update,
        crl.c.next_update,
        coalesce(crl.c.scope, COMPLETE).label("scope"),
    )
    .outerjoin(crl, crl.c.ca_id == ca.c.ca_id)
    .outerjoin(gateway, gateway.c.name == ca.c.gateway)
    .where(
        ca.c.kind != FOREIGN,
        ca.c.state != "ended",
        or_(ca.c.gateway.is_(None), and_(gateway.c.name.is_not(None), gateway.c.state != "ended")),
    )
    .order_by(ca.c.created_at, ca.c.ca_id, "scope")
)


class CrlAges:
    """Judges every CRL that is served here."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        alarm_days: int,
        refusals: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Take how many days before the end of a CRL the alarm begins.

        ``refusals`` says by CA why central itself cannot sign.
        """
        self._database = database
        self._clock = clock
        self._alarm_us = alarm_days * _DAY_US
        self._refusals = refusals

    async def listed(self) -> list[CrlView]:
        """Give the newest CRL of each scope of each CA, oldest CA first.

        Of a CA's partitions give the one that ends first: hundreds would say the same.
        """
        now_us, refusals = self._clock.now().utc_us, self._refusals()
        first: dict[tuple[str, str], Any] = {}
        for row in await self._database.read(_NEWEST):
            known = first.setdefault((row.ca_id, kind_of(row.scope)), row)
            if known.next_update is not None and row.next_update < known.next_update:
                first[row.ca_id, kind_of(row.scope)] = row
        return [self._judged(row, now_us, refusals.get(row.ca_id, "")) for row in first.values()]

    async def alarms(self, lines: frozenset[str] | None = None) -> Sequence[CrlView]:
        """Give those with an alarm, of some lines or all (None)."""
        return [
            one
            for one in await self.listed()
            if one.alarm and (lines is None or one.gateway in lines)
        ]

    def _judged(self, row: Any, now_us: int, refusal: str) -> CrlView:
        over = row.next_update is not None and now_us >= row.next_update
        alarm = f"It cannot be signed: {refusal}" if refusal else self._alarm(row, now_us)
        return CrlView(
            ca_id=row.ca_id,
            name=row.name,
            kind=row.kind,
            gateway=row.gateway,
            scope=kind_of(row.scope),
            number=row.number,
            this_update_us=row.this_update,
            next_update_us=row.next_update,
            alarm=alarm,
            over=over,
        )

    def _alarm(self, row: Any, now_us: int) -> str:
        if row.next_update is None:
            born = now_us - row.created_at < _BIRTH_US
            return "" if born else "There is none."
        # One that holds for less than twice the margin is fresh in its first half.
        margin_us = min(self._alarm_us, (row.next_update - row.this_update) // 2)
        if now_us < row.next_update - margin_us:
            return ""
        ended = "ended" if now_us >= row.next_update else "ends"
        return f"It {ended} at {utc_text(row.next_update)}."
