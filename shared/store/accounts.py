"""Users as a login sees them, and their sessions: the port ``Accounts`` of shared.web."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from shared.policy.rights import Right
from shared.store import rights
from shared.store.access import Record, not_recorded
from shared.store.database import Database
from shared.store.schema import login_ticket, session, user, user_certificate
from shared.store.transaction import Transaction

_THIS = user.c.name == bindparam("user_name")
_USER = select(
    user.c.name,
    user.c.password_hash,
    user.c.must_change,
    user.c.disabled_at,
    user.c.failed_logins,
    user.c.locked_until,
).where(_THIS)
_COUNT_ATTEMPT = (
    update(user)
    .where(_THIS, user.c.failed_logins == bindparam("failed_before"))
    .values(failed_logins=user.c.failed_logins + 1, locked_until=bindparam("until"))
)
_LOGGED_IN = (
    update(user)
    .where(_THIS, user.c.disabled_at.is_(None))
    .values(failed_logins=0, locked_until=None, last_login=bindparam("now"))
)
_IMPROVE_HASH = (
    update(user)
    .where(_THIS, user.c.password_hash == bindparam("old_hash"))
    .values(password_hash=bindparam("new_hash"))
)
_SESSION = (
    select(
        session.c.id,
        session.c.user,
        session.c.seen_at,
        session.c.expires_at,
        user.c.must_change,
    )
    .join(user, user.c.name == session.c.user)
    .where(session.c.token_hash == bindparam("token"), user.c.disabled_at.is_(None))
)
_ADD_SESSION = insert(session)
_TOUCH_SESSION = (
    update(session)
    .where(session.c.token_hash == bindparam("token"))
    .values(seen_at=bindparam("now"))
)
_OWNER = select(session.c.user, session.c.id).where(session.c.token_hash == bindparam("token"))
_END_SESSION = delete(session).where(session.c.token_hash == bindparam("token"))
_DROP_OLD_SESSIONS = delete(session).where(session.c.expires_at <= bindparam("now"))
_CARD_OWNER = (
    select(user_certificate.c.user)
    .join(user, user.c.name == user_certificate.c.user)
    .where(user_certificate.c.sha256 == bindparam("sha256"), user.c.disabled_at.is_(None))
)
_ADD_TICKET = insert(login_ticket)
_TICKET = select(login_ticket.c.user, login_ticket.c.expires_at).where(
    login_ticket.c.ticket_hash == bindparam("ticket")
)
_TAKE_TICKET = delete(login_ticket).where(login_ticket.c.ticket_hash == bindparam("ticket"))
_DROP_OLD_TICKETS = delete(login_ticket).where(login_ticket.c.expires_at <= bindparam("now"))


@dataclass(frozen=True, slots=True)
class User:
    """A person with a password; ``locked_until_us`` in UTC µs."""

    name: str
    password_hash: str
    must_change: bool
    disabled: bool
    failed_logins: int
    locked_until_us: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """A login with what its user may now; times in UTC µs."""

    id: str
    user: str
    rights: tuple[Right, ...]
    must_change: bool
    seen_at_us: int
    expires_at_us: int


class Accounts:
    """Implements ``shared.web.sessions.Accounts``."""

    def __init__(self, database: Database, record: Record = not_recorded) -> None:
        """Take the database, and where logins are written down."""
        self._database = database
        self._record = record

    async def user(self, name: str) -> User | None:
        """Find a user."""
        rows: Any = await self._database.read(_USER, {"user_name": name})
        if not rows:
            return None
        row = rows[0]
        return User(
            row.name,
            row.password_hash,
            bool(row.must_change),
            row.disabled_at is not None,
            row.failed_logins,
            row.locked_until,
        )

    async def count_attempt(self, name: str, failed_before: int, locked_until_us: int) -> bool:
        """Book one more failed login if the count is still ``failed_before``; else give False."""
        parameters = {"user_name": name, "failed_before": failed_before, "until": locked_until_us}
        return await self._database.writer.run(
            lambda transaction: transaction.execute(_COUNT_ATTEMPT, parameters) == 1
        )

    async def login_failed(self, name: str, why: str, address: str) -> None:
        """Write down that a login was refused."""
        await self._database.writer.run(
            lambda transaction: self._record(
                transaction, "anonymous", "login.refused", name, {"why": why, "peer": address}
            )
        )

    async def improve_hash(self, name: str, old_hash: str, new_hash: str) -> None:
        """Keep the same password under better parameters."""
        parameters = {"user_name": name, "old_hash": old_hash, "new_hash": new_hash}
        await self._database.writer.run(
            lambda transaction: transaction.execute(_IMPROVE_HASH, parameters)
        )

    async def open_session(
        self,
        token_hash: bytes,
        *,
        session_id: str,
        user: str,
        how: str,
        address: str,
        agent: str,
        expires_at_us: int,
    ) -> bool:
        """Add a session, forget the user's failed logins and all sessions that are over.

        ``how`` is password or card. Gives False when the user was disabled meanwhile.
        """
        row = {
            "token_hash": token_hash,
            "id": session_id,
            "user": user,
            "how": how,
            "address": address,
            "agent": agent,
            "expires_at": expires_at_us,
        }

        def unit(transaction: Transaction) -> bool:
            now_us = transaction.now.utc_us
            transaction.execute(_DROP_OLD_SESSIONS, {"now": now_us})
            if not transaction.execute(_LOGGED_IN, {"user_name": user, "now": now_us}):
                return False
            transaction.execute(_ADD_SESSION, row | {"created_at": now_us, "seen_at": now_us})
            told = {"how": how, "peer": address, "session": session_id}
            self._record(transaction, f"user:{user}", "login.accepted", user, told)
            return True

        return await self._database.writer.run(unit)

    async def session(self, token_hash: bytes) -> Session | None:
        """Find a session of a user who is not disabled, with what he may at this moment."""
        rows: Any = await self._database.read(_SESSION, {"token": token_hash})
        if not rows:
            return None
        row = rows[0]
        held = await rights.of_user(self._database, row.user)
        must_change = bool(row.must_change)
        return Session(row.id, row.user, held, must_change, row.seen_at, row.expires_at)

    async def touch_session(self, token_hash: bytes, now_us: int) -> None:
        """Note that the session was used."""
        parameters = {"token": token_hash, "now": now_us}
        await self._database.writer.run(
            lambda transaction: transaction.execute(_TOUCH_SESSION, parameters)
        )

    async def end_session(self, token_hash: bytes) -> None:
        """Forget a session."""

        def unit(transaction: Transaction) -> None:
            row: Any = transaction.one(_OWNER, {"token": token_hash})
            if row is not None:
                transaction.execute(_END_SESSION, {"token": token_hash})
                actor = f"user:{row.user}"
                self._record(transaction, actor, "session.ended", row.user, {"session": row.id})

        await self._database.writer.run(unit)

    async def card_owner(self, sha256: str) -> str | None:
        """Find the user, not disabled, to whom a certificate (hex SHA-256) is bound."""
        rows: Any = await self._database.read(_CARD_OWNER, {"sha256": sha256})
        return rows[0].user if rows else None

    async def add_ticket(self, ticket_hash: bytes, name: str, expires_at_us: int) -> None:
        """Keep what lets a user in once."""
        row = {"ticket_hash": ticket_hash, "user": name, "expires_at": expires_at_us}

        def unit(transaction: Transaction) -> None:
            transaction.execute(_DROP_OLD_TICKETS, {"now": transaction.now.utc_us})
            transaction.execute(_ADD_TICKET, row)

        await self._database.writer.run(unit)

    async def take_ticket(self, ticket_hash: bytes) -> str | None:
        """Spend a ticket: gives its user the first time, if it is not over."""

        def unit(transaction: Transaction) -> str | None:
            row: Any = transaction.one(_TICKET, {"ticket": ticket_hash})
            if row is None:
                return None
            transaction.execute(_TAKE_TICKET, {"ticket": ticket_hash})
            return row.user if transaction.now.utc_us < row.expires_at else None

        return await self._database.writer.run(unit)
