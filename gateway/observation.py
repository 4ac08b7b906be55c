"""Puts together what the page shows: one reading of database, token, link, clock and disk."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import bindparam, select

from gateway import monitor
from gateway.ca_cache import Rules
from gateway.config import GatewaySettings
from gateway.issuing import Authorities
from gateway.link import CentralLink
from gateway.recent import WatchedIssuance
from gateway.snapshot import (
    AuthorityView,
    ClockView,
    LineState,
    LinkView,
    QueueView,
    Snapshot,
)
from gateway.version import VERSION
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.store import facts, pruning
from shared.store.database import Database
from shared.store.forwarded import SqlForwards
from shared.store.reads import Reads
from shared.store.schema import fact, grant_use
from shared.sync.join import CENTRAL_NAME

_FRESH_NS = 1_000_000_000
#: Central answers a sign of life every five minutes; a minute late means that it is gone.
_SILENCE_US = 360 * US_PER_SECOND
_FINGERPRINT_GROUP = 4
_FINGERPRINT_CHARS = 32

_LINE = select(fact.c.value).where(fact.c.name == facts.LINE)
_USED = select(grant_use.c.used).where(grant_use.c.grant_id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where each part of the snapshot comes from."""

    gateway: str
    settings: GatewaySettings
    database: Database
    reads: Reads
    authorities: Authorities
    rules: Rules
    link: CentralLink
    issuance: WatchedIssuance
    clock: Clock
    forwards: SqlForwards
    crl_refusals: Callable[[], Mapping[str, str]]


class Observation:
    """Gives snapshots; many viewers share one reading per second."""

    def __init__(self, sources: Sources) -> None:
        """Take the sources; nothing is read yet."""
        self._sources = sources
        self._last: Snapshot | None = None
        self._taken_ns = 0

    async def snapshot(self) -> Snapshot:
        """Give what is true now, at most a second old."""
        now_ns = self._sources.clock.now().mono_ns
        if self._last is None or now_ns - self._taken_ns >= _FRESH_NS:
            self._last, self._taken_ns = await self._take(), now_ns
        return self._last

    async def _take(self) -> Snapshot:
        sources = self._sources
        now = sources.clock.now()
        authority = await self._authority(now.utc_us)
        queue = await sources.reads.queue(CENTRAL_NAME)
        stopped = await sources.database.read(_LINE)
        settings = sources.settings
        return Snapshot(
            gateway=sources.gateway,
            title=settings.title or sources.gateway,
            version=VERSION,
            token=sources.authorities.token,
            link=self._link(authority, now.utc_us),
            queue=QueueView(
                queue.waiting,
                queue.oldest_us,
                await sources.reads.certificates_only_here(),
                await pruning.held_by_peer_only(sources.database, CENTRAL_NAME),
                await sources.forwards.waiting(),
            ),
            clock=ClockView(now.utc_us, now.quality),
            authority=authority,
            disk=monitor.disk(settings.state, settings.disk.warning_mb, settings.disk.reserve_mb),
            line=LineState.STOPPED if stopped else LineState.RUNNING,
            line_reason=stopped[0].value if stopped else "",
            history=sources.authorities.history,
            recent=await sources.issuance.rows(),
        )

    async def _authority(self, now_us: int) -> AuthorityView:
        sources = self._sources
        issuer = sources.authorities.newest.issuer
        row = sources.authorities.rows[issuer.ca_id]
        grant = sources.rules.known_grant
        used = await sources.database.read(_USED, {"id": grant.grant_id if grant else ""})
        crl = await sources.reads.current_crl(issuer.ca_id)
        return AuthorityView(
            name=row.name,
            fingerprint=_grouped(issuer.certificate.fingerprint(SHA256()).hex()),
            not_after_us=issuer.limits.not_after_us,
            issue_until_us=issuer.limits.issue_until_us,
            ended=row.state == "ended",
            granted=grant is not None and grant.not_before_us <= now_us < grant.not_after_us,
            grant_ends_us=grant.not_after_us if grant else None,
            quota=grant.quota if grant else 0,
            used=used[0].used if used else 0,
            crl_next_update_us=crl.next_update_us if crl else None,
            crl_refused=" ".join(sources.crl_refusals().values()),
        )

    def _link(self, authority: AuthorityView, now_us: int) -> LinkView:
        link, contact_us = self._sources.link, self._sources.rules.last_contact_us()
        silent = contact_us is None or now_us - contact_us > _SILENCE_US
        online = link.online and not silent
        until_us, why = min(self._offline_limits(authority, now_us))
        return LinkView(
            online=online,
            since_us=contact_us if link.online and silent and contact_us else link.since_us,
            last_contact_us=contact_us,
            offline_until_us=until_us,
            offline_until_why=why,
        )

    def _offline_limits(self, authority: AuthorityView, now_us: int) -> Iterator[tuple[int, str]]:
        """Give every date at which a box without central stops, with its reason."""
        yield authority.issue_until_us, "the issuing period of the CA ends"
        if authority.crl_next_update_us is not None:
            yield authority.crl_next_update_us, "the revocation list ends"
        if authority.grant_ends_us is not None:
            yield authority.grant_ends_us, "the grant ends"
        grant = self._sources.rules.known_grant
        if grant is not None and grant.last_contact_max_s is not None:
            contact_us = self._sources.rules.last_contact_us()
            begin_us = now_us if contact_us is None else contact_us
            limit_us = begin_us + grant.last_contact_max_s * US_PER_SECOND
            yield limit_us, "the grant's time without contact ends"


def _grouped(digest: str) -> str:
    """Write a fingerprint for reading aloud; half of it tells CAs apart."""
    shown = digest[:_FINGERPRINT_CHARS]
    return " ".join(
        shown[at : at + _FINGERPRINT_GROUP] for at in range(0, len(shown), _FINGERPRINT_GROUP)
    )
