"""What pages, REST and validation look up, as of the last commit. Times are UTC µs.

No query here counts rows of a big table or walks through more than it gives (design.md §7).
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, false, func, or_, select, true

from shared.kernel.errors import BadRequestError
from shared.kernel.limits import PAGE_ROWS_MAX
from shared.pki.ocsp import State, Status
from shared.pki.partitions import Partition, kind_of
from shared.policy.rights import Scope
from shared.store.database import Database
from shared.store.schema import (
    COMPLETE,
    DELTA,
    NOT_GOOD,
    REPORTED,
    ca,
    certificate,
    counter,
    crl,
    cross_certificate,
    cursor,
    outbox,
    segment,
)

_COLUMNS = (
    certificate.c.id,
    certificate.c.ca_id,
    certificate.c.serial,
    certificate.c.origin,
    certificate.c.state,
    certificate.c.status,
    certificate.c.der,
    certificate.c.sha256,
    certificate.c.subject_cn,
    certificate.c.device_id,
    certificate.c.profile,
    certificate.c.principal,
    certificate.c.protocol,
    select(ca.c.tenant).where(ca.c.ca_id == certificate.c.ca_id).scalar_subquery().label("tenant"),
    certificate.c.test,
    certificate.c.not_before,
    certificate.c.not_after,
    certificate.c.issued_at,
    certificate.c.revoked_at,
    certificate.c.reason,
    certificate.c.replaces,
    certificate.c.metadata,
)
#: By what one may search; each has an index.
FILTERS = {
    "cn": certificate.c.subject_cn,
    "device_id": certificate.c.device_id,
    "profile": certificate.c.profile,
    "status": certificate.c.status,
    "ca_id": certificate.c.ca_id,
    "serial": certificate.c.serial,
    "origin": certificate.c.origin,
    "sha256": certificate.c.sha256,
}
_THIS = (certificate.c.ca_id == bindparam("ca")) & (certificate.c.serial == bindparam("number"))
_ONE = select(*_COLUMNS).where(_THIS)
_OF_KEY = (
    select(*_COLUMNS)
    .where(certificate.c.idempotency_key == bindparam("key"))
    .order_by(certificate.c.id.desc())
    .limit(1)
)
_STATUS = select(
    certificate.c.state,
    certificate.c.status,
    certificate.c.revoked_at,
    certificate.c.reason,
    certificate.c.not_after,
).where(_THIS)
_AUTHORITIES = select(ca.c.ca_id, ca.c.name, ca.c.kind, ca.c.state, ca.c.der, ca.c.not_after)
_CROSS_CERTIFICATES = select(cross_certificate.c.der).order_by(cross_certificate.c.sha256)
_CA_CERTIFICATE = select(ca.c.der).where(ca.c.ca_id == bindparam("ca"))
_CURRENT_CRL = (
    select(crl.c.der, crl.c.number, crl.c.this_update, crl.c.next_update)
    .where(crl.c.ca_id == bindparam("ca"), crl.c.scope == bindparam("of_scope"))
    .order_by(crl.c.number.desc())
    .limit(1)
)
_CRL_ENDS = select(crl.c.scope, crl.c.next_update).where(crl.c.ca_id == bindparam("ca"))


def _waiting(lane: int) -> Select[Any, Any, Any]:
    """Select what waits in one lane of each segment that is not drained."""
    of_segment = (outbox.c.peer == segment.c.peer) & (outbox.c.segment == segment.c.segment)
    head = select(func.max(outbox.c.sequence)).where(of_segment, outbox.c.lane == lane)
    applied = func.coalesce(
        select(cursor.c.applied)
        .where(
            cursor.c.peer == segment.c.peer,
            cursor.c.direction == "out",
            cursor.c.segment == segment.c.segment,
            cursor.c.lane == lane,
        )
        .correlate(segment)
        .scalar_subquery(),
        0,
    )
    oldest = select(outbox.c.created_at).where(
        of_segment, outbox.c.lane == lane, outbox.c.sequence == applied + 1
    )
    return select(
        segment.c.peer,
        (func.coalesce(head.scalar_subquery(), 0) - applied).label("waiting"),
        oldest.scalar_subquery().label("oldest"),
    ).where(segment.c.direction == "out", segment.c.state.in_(("open", "sealed")))


def _of_link(lane: int) -> Select[Any, Any, Any]:
    return _waiting(lane).where(segment.c.peer == bindparam("link"))


_QUEUE = _of_link(0).union_all(_of_link(1))
_QUEUES = _waiting(0).union_all(_waiting(1))


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate as search gives it. ``der`` is None for stubs and voided serials."""

    id: int
    ca_id: str
    serial: str
    origin: str
    state: str
    status: str
    der: bytes | None
    sha256: str | None
    subject_cn: str | None
    device_id: str | None
    profile: str | None
    principal: str | None
    protocol: str | None
    tenant: str | None
    test: bool
    not_before_us: int | None
    not_after_us: int | None
    issued_at_us: int
    revoked_at_us: int | None
    reason: str | None
    replaces: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """A CA that this box knows."""

    ca_id: str
    name: str
    kind: str
    state: str
    der: bytes
    not_after_us: int


@dataclass(frozen=True, slots=True)
class CrlRow:
    """A signed CRL."""

    der: bytes
    number: int
    this_update_us: int
    next_update_us: int


@dataclass(frozen=True, slots=True)
class Queue:
    """Events that the peer has not confirmed; ``oldest_us`` is when the oldest was written."""

    waiting: int
    oldest_us: int | None


class Reads:
    """Look-ups; the ports ``Reads`` of shared.enroll.rest and most of ``shared.validation``."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._read = database.read
        self._database = database

    async def certificate(self, ca_id: str, serial: str) -> CertificateRow | None:
        """Find one certificate."""
        return _first(await self._read(_ONE, {"ca": ca_id, "number": serial}))

    async def certificate_of(self, idempotency_key: str) -> CertificateRow | None:
        """Find the newest certificate that was issued under this key of ours."""
        return _first(await self._read(_OF_KEY, {"key": idempotency_key}))

    async def search(
        self, filters: Mapping[str, str], within: Sequence[Scope] | None, after: int, limit: int
    ) -> list[CertificateRow]:
        """Give up to ``limit`` certificates, newest first, with an id below ``after``.

        ``after`` 0 begins with the newest; ``filters`` (names as in ``FILTERS``) are equalities;
        only what lies in one of the scopes ``within`` is given, with None all. Raises
        BadRequestError for another filter.
        """
        if unknown := filters.keys() - FILTERS.keys():
            raise BadRequestError(f"One cannot search by {', '.join(sorted(unknown))}.")
        statement = select(*_COLUMNS).order_by(certificate.c.id.desc())
        for name, value in filters.items():
            statement = statement.where(FILTERS[name] == value)
        if filters.get("status", "good") != "good":
            statement = statement.where(NOT_GOOD)  # lets SQLite use the index of those
        if filters.get("origin"):
            statement = statement.where(REPORTED)  # likewise
        if within is not None:
            statement = statement.where(inside(within))
        if after:
            statement = statement.where(certificate.c.id < after)
        rows = await self._read(statement.limit(min(limit, PAGE_ROWS_MAX)))
        return [_certificate(row) for row in rows]

    async def authorities(self) -> list[AuthorityRow]:
        """Give the CAs that are known here."""
        return [AuthorityRow(*row) for row in await self._read(_AUTHORITIES)]

    async def cross_certificates(self) -> list[bytes]:
        """Give the cross-certificates and links of roll-overs that are known here, DER."""
        return [row.der for row in await self._read(_CROSS_CERTIFICATES)]

    async def ca_certificate(self, ca_id: str) -> bytes | None:
        """Give the DER certificate of one CA."""
        rows = await self._read(_CA_CERTIFICATE, {"ca": ca_id})
        return rows[0].der if rows else None

    async def current_crl(self, ca_id: str) -> CrlRow | None:
        """Give the newest complete CRL of a CA."""
        return await self._newest_crl(ca_id, COMPLETE)

    async def current_partition(self, ca_id: str, partition: Partition) -> CrlRow | None:
        """Give the newest CRL of a partition, if the CA has or had it."""
        return await self._newest_crl(ca_id, str(partition))

    async def current_delta(self, ca_id: str) -> CrlRow | None:
        """Give the newest delta CRL of a CA, if it has deltas."""
        return await self._newest_crl(ca_id, DELTA)

    async def crl_ends(self, ca_id: str) -> dict[str, int]:
        """Tell when the newest CRL of each kind ends, UTC µs; of partitions the first of them."""
        ends: dict[str, int] = {}
        for row in await self._read(_CRL_ENDS, {"ca": ca_id}):
            kind = kind_of(row.scope)
            ends[kind] = min(ends.get(kind, row.next_update), row.next_update)
        return ends

    async def _newest_crl(self, ca_id: str, scope: str) -> CrlRow | None:
        rows = await self._read(_CURRENT_CRL, {"ca": ca_id, "of_scope": scope})
        return CrlRow(*rows[0]) if rows else None

    async def ocsp_status(self, ca_id: str, serial: str, unlisted: State) -> Status:
        """Give the status of a certificate; ``unlisted`` is what one not known here counts as."""
        row = await self._database.lookups.one(_STATUS, {"ca": ca_id, "number": serial})
        return _status(row, unlisted)

    def ocsp_status_now(self, ca_id: str, serial: str, unlisted: State) -> Status | None:
        """Do the same at once; None while that could make others wait."""
        if not self._database.lookups.quick:
            return None
        row = self._database.lookups.now(_STATUS, {"ca": ca_id, "number": serial})
        return _status(row, unlisted)

    async def counters(self) -> dict[str, dict[str, int]]:
        """Give the maintained counters by name, then by origin (see shared.store.counters)."""
        found: dict[str, dict[str, int]] = {}
        for row in await self._read(select(counter)):
            name, _, origin = row.name.partition("/")
            found.setdefault(name, {})[origin] = row.value
        return found

    async def certificates_only_here(self) -> int:
        """Count own certificates that the peer has not confirmed."""
        found = await self.counters()
        return found.get("issued", {}).get("", 0) - found.get("replicated", {}).get("", 0)

    async def queue(self, peer: str) -> Queue:
        """Give the depth and age of what waits for a peer."""
        rows = await self._read(_QUEUE, {"link": peer})
        oldest = (row.oldest for row in rows if row.oldest is not None)
        return Queue(sum(row.waiting for row in rows), min(oldest, default=None))

    async def waiting(self) -> Counter[str]:
        """Count what waits for each peer."""
        found = Counter[str]()
        for row in await self._read(_QUEUES):
            found[row.peer] += row.waiting
        return found


def _status(row: Any, unlisted: State) -> Status:
    if row is None or (row.state == "stub" and row.status == "good"):
        return Status(unlisted, listed=False)
    if row.status == "good":
        return Status(State.GOOD, not_after_us=row.not_after)
    return Status(State.REVOKED, row.revoked_at, row.reason, row.not_after)


def inside(scopes: Sequence[Scope]) -> ColumnElement[bool]:
    """Make the condition that a certificate lies in one of the scopes; without one, nothing does.

    Scopes of one profile each, as stations have them, become one list: that uses its index.
    """
    if any(not scope.named() for scope in scopes):
        return true()
    profiles = [scope.profile for scope in scopes if scope.named().keys() == {"profile"}]
    others = [scope for scope in scopes if scope.named().keys() != {"profile"}]
    return or_(
        false(),
        *([certificate.c.profile.in_(profiles)] if profiles else []),
        *(
            and_(*(_COLUMN_OF[name](value) for name, value in scope.named().items()))
            for scope in others
        ),
    )


def _of_tenant(tenant: str) -> ColumnElement[bool]:
    return certificate.c.ca_id.in_(select(ca.c.ca_id).where(ca.c.tenant == tenant))


#: How each property of a scope is found at a certificate.
_COLUMN_OF: Mapping[str, Callable[[str], ColumnElement[bool]]] = {
    "tenant": _of_tenant,
    "ca": lambda value: certificate.c.ca_id == value,
    "profile": lambda value: certificate.c.profile == value,
    "line": lambda value: certificate.c.origin == value,
    "serial": lambda value: certificate.c.serial == value,
}


def _first(rows: Sequence[Any]) -> CertificateRow | None:
    return _certificate(rows[0]) if rows else None


def _certificate(row: Any) -> CertificateRow:
    *values, test, not_before, not_after, issued_at, revoked_at, reason, replaces, metadata = row
    return CertificateRow(
        *values,
        test=bool(test),
        not_before_us=not_before,
        not_after_us=not_after,
        issued_at_us=issued_at,
        revoked_at_us=revoked_at,
        reason=reason,
        replaces=replaces,
        metadata=json.loads(metadata or "{}"),
    )
