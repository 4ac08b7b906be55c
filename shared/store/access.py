"""Who may ask: stations and programs, by token or client certificate."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.policy.rights import Right, Scope, permissions_of
from shared.store import rights
from shared.store.database import Database
from shared.store.schema import api_token, certificate, station, user_certificate
from shared.store.transaction import Transaction

_STATION_COLUMNS = (
    station.c.name,
    station.c.role,
    station.c.profiles,
    station.c.expires_at,
    station.c.revoked_at,
)
_BY_TOKEN = select(*_STATION_COLUMNS).where(station.c.token_hash == bindparam("token_hash"))
_BY_CERTIFICATE = select(*_STATION_COLUMNS).where(station.c.cert_sha256 == bindparam("sha256"))
_STATIONS = select(*_STATION_COLUMNS).order_by(station.c.name).limit(bindparam("rows"))
_STATION = select(station.c.name).where(station.c.name == bindparam("station"))
_ADD_STATION = insert(station)
_REVOKE_STATION = (
    update(station)
    .where(station.c.name == bindparam("station"), station.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)
_ISSUED = select(
    certificate.c.ca_id, certificate.c.serial, certificate.c.status, certificate.c.not_after
).where(certificate.c.sha256 == bindparam("sha256"), certificate.c.state == "issued")
_API_TOKEN = select(
    api_token.c.user, api_token.c.permissions, api_token.c.scope, api_token.c.expires_at
).where(api_token.c.token_hash == bindparam("token_hash"), api_token.c.revoked_at.is_(None))
_USER_CERTIFICATE = select(user_certificate.c.user, user_certificate.c.not_after).where(
    user_certificate.c.sha256 == bindparam("sha256")
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STATIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Station:
    """A place or program that may ask; ``profiles`` holds names or ``*``, times are UTC µs."""

    name: str
    role: str
    profiles: Sequence[str]
    expires_at_us: int | None
    revoked_at_us: int | None


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """An issued certificate as authentication sees it; ``not_after_us`` in UTC µs."""

    ca_id: str
    serial: str
    status: str
    not_after_us: int


@dataclass(frozen=True, slots=True)
class UserRights:
    """A user as token or certificate name one; ``expires_at_us`` in UTC µs."""

    user: str
    rights: Sequence[Right]
    expires_at_us: int | None


#: Writes down who did what to whom, in the transaction that does it:
#: (transaction, actor, action, subject, detail).
Record = Callable[[Transaction, str, str, str, Mapping[str, Any]], None]


def not_recorded(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Write nothing: for what makes a new box, and for tests."""
    del transaction, actor, action, subject, detail


class Access:
    """The port ``Credentials`` of shared.web, and what administers stations."""

    def __init__(self, database: Database, record: Record = not_recorded) -> None:
        """Take the database, and where acts are written down: audit log or outbox."""
        self._database = database
        self._record = record

    async def add_station(
        self,
        name: str,
        *,
        role: str,
        profiles: Sequence[str],
        token_hash: bytes | None = None,
        certificate_sha256: str | None = None,
        expires_at_us: int | None = None,
        actor: str = "system",
    ) -> None:
        """Add a station; raises ConflictError when there is one, BadRequestError for its name."""
        require_name(name)
        row = {
            "name": name,
            "role": role,
            "token_hash": token_hash,
            "cert_sha256": certificate_sha256,
            "profiles": json.dumps(list(profiles)),
            "expires_at": expires_at_us,
            "revoked_at": None,
        }

        def unit(transaction: Transaction) -> None:
            if transaction.one(_STATION, {"station": name}) is not None:
                raise ConflictError(f"There is a station {name} already.")
            transaction.execute(_ADD_STATION, {**row, "created_at": transaction.now.utc_us})
            told = {"role": role, "profiles": list(profiles), "expires_at_us": expires_at_us}
            self._record(transaction, actor, "station.added", name, told)

        await self._database.writer.run(unit)

    async def revoke_station(self, name: str, actor: str = "system") -> None:
        """Refuse this station from now on; raises NotFoundError. Again, it changes nothing."""

        def unit(transaction: Transaction) -> None:
            if transaction.one(_STATION, {"station": name}) is None:
                raise NotFoundError(f"There is no station {name}.")
            parameters = {"station": name, "now": transaction.now.utc_us}
            if transaction.execute(_REVOKE_STATION, parameters):
                self._record(transaction, actor, "station.revoked", name, {})

        await self._database.writer.run(unit)

    async def stations(self, names: Collection[str] | None = None) -> list[Station]:
        """List some stations, or all (None), also revoked ones."""
        wanted = _STATIONS if names is None else _STATIONS.where(station.c.name.in_(names))
        rows = await self._database.read(wanted, {"rows": _STATIONS_MAX})
        return [_station(row) for row in rows]

    async def station_by_token(self, token_hash: bytes) -> Station | None:
        """Find the station by SHA-256 of its token."""
        rows = await self._database.read(_BY_TOKEN, {"token_hash": token_hash})
        return _station(rows[0]) if rows else None

    async def station_by_certificate(self, sha256: str) -> Station | None:
        """Find the station bound to the certificate with this SHA-256 (hex)."""
        rows = await self._database.read(_BY_CERTIFICATE, {"sha256": sha256})
        return _station(rows[0]) if rows else None

    async def client_certificate(self, sha256: str) -> ClientCertificate | None:
        """Find an issued certificate by the SHA-256 (hex) of its DER."""
        rows = await self._database.read(_ISSUED, {"sha256": sha256})
        return ClientCertificate(*rows[0]) if rows else None

    async def user_by_token(self, token_hash: bytes) -> UserRights | None:
        """Find the user of a live API token, with what both the user and the token may."""
        rows: Any = await self._database.read(_API_TOKEN, {"token_hash": token_hash})
        if not rows:
            return None
        row = rows[0]
        allowed = None if row.permissions is None else permissions_of(json.loads(row.permissions))
        held = await rights.of_user(self._database, row.user)
        narrowed = [
            found for one in held if (found := one.narrowed(allowed, Scope.parse(row.scope)))
        ]
        return UserRights(row.user, narrowed, row.expires_at)

    async def user_by_certificate(self, sha256: str) -> UserRights | None:
        """Find the user to whom the certificate with this SHA-256 (hex) is bound."""
        rows: Any = await self._database.read(_USER_CERTIFICATE, {"sha256": sha256})
        if not rows:
            return None
        held = await rights.of_user(self._database, rows[0].user)
        return UserRights(rows[0].user, held, rows[0].not_after)

    async def token_refused(self, kind: str, peer: str) -> None:
        """Note that somebody presented a token or certificate that is not accepted."""
        if self._record is not_recorded:
            return
        await self._database.writer.run(
            lambda transaction: self._record(
                transaction, "anonymous", "credential.refused", kind, {"peer": peer}
            )
        )


def require_name(name: str) -> None:
    """Raise BadRequestError for a name that could be taken for something else in a log."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            "A name has 1 to 64 letters of a to z, digits, dots, hyphens or underscores."
        )


def _station(row: Any) -> Station:
    return Station(row.name, row.role, json.loads(row.profiles), row.expires_at, row.revoked_at)
