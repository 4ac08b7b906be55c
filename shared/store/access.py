"""Who may ask: stations with tokens or client certificates, users and their sessions."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.store.database import Database
from shared.store.schema import certificate, session, station, user
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
_USER = select(
    user.c.name, user.c.password_hash, user.c.role, user.c.failed_logins, user.c.locked_until
).where(user.c.name == bindparam("user_name"))
_ADD_USER = insert(user)
_SET_PASSWORD = (
    update(user)
    .where(user.c.name == bindparam("user_name"))
    .values(password_hash=bindparam("new_hash"), failed_logins=0, locked_until=None)
)
_COUNT_ATTEMPT = (
    update(user)
    .where(
        user.c.name == bindparam("user_name"), user.c.failed_logins == bindparam("failed_before")
    )
    .values(failed_logins=user.c.failed_logins + 1, locked_until=bindparam("until"))
)
_FORGET_ATTEMPTS = (
    update(user)
    .where(user.c.name == bindparam("user_name"))
    .values(failed_logins=0, locked_until=None)
)
_SESSION = (
    select(session.c.user, user.c.role, session.c.seen_at, session.c.expires_at)
    .join(user, user.c.name == session.c.user)
    .where(session.c.token_hash == bindparam("token"))
)
_ADD_SESSION = insert(session)
_TOUCH_SESSION = (
    update(session)
    .where(session.c.token_hash == bindparam("token"))
    .values(seen_at=bindparam("now"))
)
_END_SESSION = delete(session).where(session.c.token_hash == bindparam("token"))
_END_SESSIONS_OF = delete(session).where(session.c.user == bindparam("user_name"))
_DROP_OLD_SESSIONS = delete(session).where(session.c.expires_at <= bindparam("now"))
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
class User:
    """A person with a password; ``locked_until_us`` in UTC µs."""

    name: str
    password_hash: str
    role: str
    failed_logins: int
    locked_until_us: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """A login with the role its user has now; times in UTC µs."""

    user: str
    role: str
    seen_at_us: int
    expires_at_us: int


class Access:
    """The ports ``Credentials`` and ``Accounts`` of shared.web, and what administers them."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def add_station(
        self,
        name: str,
        *,
        role: str,
        profiles: Sequence[str],
        token_hash: bytes | None = None,
        certificate_sha256: str | None = None,
        expires_at_us: int | None = None,
    ) -> None:
        """Add a station; raises ConflictError when there is one, BadRequestError for its name."""
        _require_name(name)
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

        await self._database.writer.run(unit)

    async def revoke_station(self, name: str) -> None:
        """Refuse this station from now on; raises NotFoundError. Again, it changes nothing."""

        def unit(transaction: Transaction) -> None:
            if transaction.one(_STATION, {"station": name}) is None:
                raise NotFoundError(f"There is no station {name}.")
            parameters = {"station": name, "now": transaction.now.utc_us}
            transaction.execute(_REVOKE_STATION, parameters)

        await self._database.writer.run(unit)

    async def stations(self) -> list[Station]:
        """List all stations, also revoked ones."""
        return [
            _station(row) for row in await self._database.read(_STATIONS, {"rows": _STATIONS_MAX})
        ]

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

    async def set_user(self, name: str, *, password_hash: str, role: str) -> None:
        """Add a user, or give one a new password and end his sessions; the role stays then.

        Raises BadRequestError for a name that could be taken for something else in a log.
        """
        _require_name(name)

        def unit(transaction: Transaction) -> None:
            if transaction.one(_USER, {"user_name": name}) is not None:
                parameters = {"user_name": name, "new_hash": password_hash}
                transaction.execute(_SET_PASSWORD, parameters)
                transaction.execute(_END_SESSIONS_OF, {"user_name": name})
                return
            row = {
                "name": name,
                "password_hash": password_hash,
                "role": role,
                "failed_logins": 0,
                "locked_until": None,
                "created_at": transaction.now.utc_us,
            }
            transaction.execute(_ADD_USER, row)

        await self._database.writer.run(unit)

    async def user(self, name: str) -> User | None:
        """Find a user."""
        rows = await self._database.read(_USER, {"user_name": name})
        return User(*rows[0]) if rows else None

    async def count_attempt(self, name: str, failed_before: int, locked_until_us: int) -> bool:
        """Book one more failed login if the count is still ``failed_before``; else give False."""
        parameters = {"user_name": name, "failed_before": failed_before, "until": locked_until_us}
        return await self._database.writer.run(
            lambda transaction: transaction.execute(_COUNT_ATTEMPT, parameters) == 1
        )

    async def open_session(
        self, name: str, token_hash: bytes, now_us: int, expires_at_us: int
    ) -> None:
        """Add a session, forget the user's failed logins and all sessions that are over."""
        row = {
            "token_hash": token_hash,
            "user": name,
            "created_at": now_us,
            "seen_at": now_us,
            "expires_at": expires_at_us,
        }

        def unit(transaction: Transaction) -> None:
            transaction.execute(_FORGET_ATTEMPTS, {"user_name": name})
            transaction.execute(_DROP_OLD_SESSIONS, {"now": now_us})
            transaction.execute(_ADD_SESSION, row)

        await self._database.writer.run(unit)

    async def session(self, token_hash: bytes) -> Session | None:
        """Find a session."""
        rows = await self._database.read(_SESSION, {"token": token_hash})
        return Session(*rows[0]) if rows else None

    async def touch_session(self, token_hash: bytes, now_us: int) -> None:
        """Note that the session was used."""
        parameters = {"token": token_hash, "now": now_us}
        await self._database.writer.run(
            lambda transaction: transaction.execute(_TOUCH_SESSION, parameters)
        )

    async def end_session(self, token_hash: bytes) -> None:
        """Forget a session."""
        await self._database.writer.run(
            lambda transaction: transaction.execute(_END_SESSION, {"token": token_hash})
        )


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            "A name has 1 to 64 letters of a to z, digits, dots, hyphens or underscores."
        )


def _station(row: Any) -> Station:
    return Station(row.name, row.role, json.loads(row.profiles), row.expires_at, row.revoked_at)
