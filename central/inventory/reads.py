"""The look-ups of the pages, as of the last commit; nothing here counts certificates."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import and_, func, select

from central.authority.hierarchy import INFRASTRUCTURE
from central.inventory.conflict_reads import ConflictReads
from central.inventory.crl_ages import CrlAges
from central.inventory.finder import Finder
from central.inventory.models import (
    AuthorityView,
    CertificateLine,
    CertificateView,
    Dashboard,
    GatewayView,
    HoldView,
    LaneView,
    Totals,
)
from central.metadata.operations import Metadata
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Scope
from shared.store.database import Database
from shared.store.link import LACKING
from shared.store.reads import AuthorityRow, Reads
from shared.store.schema import (
    backup,
    ca,
    certificate,
    cursor,
    fact,
    gateway,
    hold,
    quarantine,
)
from shared.sync.events import Lane

_OPEN_MAX = 100
_CHAIN_MAX = 8
_LANES_MAX = 20
_LINE_COLUMNS = (
    certificate.c.id,
    certificate.c.ca_id,
    certificate.c.serial,
    certificate.c.origin,
    certificate.c.state,
    certificate.c.status,
    certificate.c.subject_cn,
    certificate.c.device_id,
    certificate.c.profile,
    certificate.c.issued_at,
    certificate.c.not_after,
)
_LACKING = select(fact.c.name, fact.c.value).where(fact.c.name.startswith(LACKING))
#: The newest of each gateway comes last.
_CAS_OF_GATEWAYS = (
    select(ca.c.gateway, ca.c.ca_id).where(ca.c.gateway.is_not(None)).order_by(ca.c.created_at)
)
_BACKUP = select(func.max(backup.c.created_at).label("newest")).where(
    backup.c.state == "held", backup.c.counts == 1
)
_APPLIED = (
    select(cursor.c.peer, func.sum(cursor.c.applied).label("applied"))
    .where(cursor.c.direction == "in")
    .group_by(cursor.c.peer)
)


class PublicReads(Reads):
    """Look-ups for relying parties and REST: the transport root is none of their business."""

    async def authorities(self) -> list[AuthorityRow]:
        """Give the CAs that somebody outside may trust or ask about."""
        return [row for row in await super().authorities() if row.kind != "transport_root"]


class Inventory:
    """Reads what central knows."""

    def __init__(
        self,
        database: Database,
        backup_alarm: Callable[[int | None], str] = lambda _: "",
        crl_ages: CrlAges | None = None,
    ) -> None:
        """Take the database, and what judges the newest backup that counts and the CRLs."""
        self.conflicts = ConflictReads(database)
        self.metadata = Metadata(database)
        self._read = database.read
        self._reads = Reads(database)
        self._finder = Finder(database)
        self._backup_alarm = backup_alarm
        self._crl_ages = crl_ages

    async def dashboard(self, lines: frozenset[str] | None = None) -> Dashboard:
        """Give the numbers of the first page, of some lines or all (None)."""
        conflicts, _ = await self.conflicts.find(lines=lines, limit=_OPEN_MAX)
        return Dashboard(
            totals=await self.totals(lines),
            gateways=await self.gateways(lines),
            conflicts=conflicts,
            quarantined=await self._quarantined() if lines is None else 0,
            crl_alarms=await self._crl_ages.alarms(lines) if self._crl_ages else (),
            backup_alarm=self._backup_alarm((await self._read(_BACKUP))[0].newest)
            if lines is None
            else "",
        )

    async def totals(self, lines: frozenset[str] | None = None) -> Totals:
        """Add up the counters of some lines, or of all but central's own infrastructure."""
        counters = await self._reads.counters()

        def counts(origin: str) -> bool:
            return origin != INFRASTRUCTURE if lines is None else origin in lines

        def total(name: str) -> int:
            return sum(value for origin, value in counters.get(name, {}).items() if counts(origin))

        return Totals(
            issued=total("issued"),
            announced=total("stub"),
            held=total("held"),
            revoked=total("revoked"),
            voided=total("voided"),
            refused=total("refused"),
        )

    async def gateways(self, lines: frozenset[str] | None = None) -> list[GatewayView]:
        """Give some gateways, or all (None), by name."""
        wanted = select(gateway).order_by(gateway.c.name)
        if lines is not None:
            wanted = wanted.where(gateway.c.name.in_(lines))
        rows = await self._read(wanted)
        return await self._views(rows)

    async def gateway(self, name: str) -> GatewayView:
        """Give one gateway; raises NotFoundError."""
        rows = await self._read(select(gateway).where(gateway.c.name == name))
        if not rows:
            raise NotFoundError(f"There is no gateway {name}.")
        return (await self._views(rows))[0]

    async def lanes(self, name: str) -> list[LaneView]:
        """Give how far the newest lanes of a gateway are."""
        rows = await self._read(
            select(cursor)
            .where(cursor.c.peer == name, cursor.c.direction == "in")
            .order_by(cursor.c.updated_at.desc())
            .limit(_LANES_MAX)
        )
        return [
            LaneView(
                row.segment, Lane(row.lane).name.lower(), row.applied, row.archived, row.updated_at
            )
            for row in rows
        ]

    async def search(
        self, text: str, within: Sequence[Scope], after: str, limit: int
    ) -> tuple[list[CertificateLine], str]:
        """Find certificates that lie in one of the scopes; gives them and where the next page is.

        ``text`` is a query (``central.inventory.query``); raises BadRequestError.
        """
        page = await self._finder.find(
            text, within, columns=_LINE_COLUMNS, after=after, limit=limit
        )
        return [CertificateLine(*row) for row in page.rows], page.after

    async def certificate(self, ca_id: str, serial: str) -> CertificateView:
        """Give the story of one certificate; raises NotFoundError."""
        this = and_(certificate.c.ca_id == ca_id, certificate.c.serial == serial)
        rows: Any = await self._read(select(certificate).where(this))
        if not rows:
            raise NotFoundError(f"No certificate with serial number {serial} of this CA is known.")
        row = rows[0]
        return CertificateView(
            line=CertificateLine(*(getattr(row, column.name) for column in _LINE_COLUMNS)),
            sha256=row.sha256,
            der=row.der,
            profile_version=row.profile_version,
            purpose=row.purpose,
            principal=row.principal,
            protocol=row.protocol,
            alias=row.alias,
            grant_id=row.grant_id,
            clock_quality=row.clock_quality,
            test=bool(row.test),
            not_before_us=row.not_before,
            revoked_at_us=row.revoked_at,
            reason=row.reason,
            replaces=row.replaces,
            metadata=json.loads(row.metadata or "{}"),
            chain=await self._chain(ca_id),
            holds=await self._holds(ca_id, serial),
        )

    async def _views(self, rows: Sequence[Any]) -> list[GatewayView]:
        """Put together what tables say of gateways: one query each, however many they are."""
        owners = {row.gateway: row.ca_id for row in await self._read(_CAS_OF_GATEWAYS)}
        applied = {row.peer: row.applied for row in await self._read(_APPLIED)}
        lacking = {row.name: row.value for row in await self._read(_LACKING)}
        waiting = await self._reads.waiting()
        return [
            GatewayView(
                name=row.name,
                state=row.state,
                state_reason=row.state_reason,
                link=row.link or "offline",
                link_since_us=row.link_since,
                last_contact_us=row.last_contact,
                backlog=row.backlog or 0,
                applied=applied.get(row.name, 0),
                waiting=waiting.get(row.name, 0),
                version=row.version,
                ca_id=owners.get(row.name),
                created_at_us=row.created_at,
                join_expires_at_us=row.join_expires_at if row.join_secret_hash else None,
                lacking=lacking.get(LACKING + row.name, ""),
            )
            for row in rows
        ]

    async def _quarantined(self) -> int:
        """Count open rows, up to a bound: there are none where all is well."""
        rows = await self._read(
            select(quarantine.c.peer).where(quarantine.c.resolved_at.is_(None)).limit(_OPEN_MAX)
        )
        return len(rows)

    async def _chain(self, ca_id: str) -> list[AuthorityView]:
        chain: list[AuthorityView] = []
        wanted: str | None = ca_id
        while wanted is not None and len(chain) < _CHAIN_MAX:
            rows: Any = await self._read(select(ca).where(ca.c.ca_id == wanted))
            if not rows:
                break
            row = rows[0]
            chain.append(
                AuthorityView(
                    row.ca_id, row.name, row.kind, row.state, row.not_after, row.der, row.tenant
                )
            )
            wanted = row.parent_id
        return chain

    async def _holds(self, ca_id: str, serial: str) -> list[HoldView]:
        rows = await self._read(
            select(hold).where(hold.c.ca_id == ca_id, hold.c.serial == serial).limit(_OPEN_MAX)
        )
        return [HoldView(row.hold_id, row.actor, row.held_at, row.released_at) for row in rows]
