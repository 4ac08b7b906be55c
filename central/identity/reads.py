"""What pages, REST and commands show of people: no hash and no secret is ever read here."""

import json
from typing import Any

from sqlalchemy import Executable, bindparam, func, select

from central.metadata import pairs
from central.metadata.orders import Kind, Wanted
from shared.kernel.errors import NotFoundError
from shared.policy.rights import ROLES, Right
from shared.store import rights
from shared.store.database import Database
from shared.store.schema import api_token, assignment, role, session, user, user_certificate
from shared.web.pages import utc_text

_ROWS_MAX = 2_000
_USER_COLUMNS = (
    user.c.name,
    user.c.password_hash != "",
    user.c.must_change,
    user.c.disabled_at,
    user.c.locked_until,
    user.c.last_login,
)
_USERS = select(*_USER_COLUMNS).order_by(user.c.name).limit(_ROWS_MAX)
_USER = select(*_USER_COLUMNS).where(user.c.name == bindparam("user_name"))
_ASSIGNED = select(assignment).order_by(assignment.c.user, assignment.c.role, assignment.c.scope)
_ASSIGNED_TO = _ASSIGNED.where(assignment.c.user == bindparam("user_name"))
_RIGHTS = (
    select(assignment.c.role, assignment.c.scope, role.c.permissions)
    .outerjoin(role, role.c.name == assignment.c.role)
    .where(assignment.c.user == bindparam("user_name"))
)
_ROLES = select(role.c.name, role.c.permissions).order_by(role.c.name).limit(_ROWS_MAX)
_USED = select(assignment.c.role, func.count().label("users")).group_by(assignment.c.role)
_TOKENS = (
    select(
        api_token.c.id,
        api_token.c.user,
        api_token.c.name,
        api_token.c.permissions,
        api_token.c.scope,
        api_token.c.created_at,
        api_token.c.expires_at,
        api_token.c.revoked_at,
    )
    .order_by(api_token.c.created_at.desc())
    .limit(_ROWS_MAX)
)
_TOKENS_OF = _TOKENS.where(api_token.c.user == bindparam("user_name"))
_SESSIONS = (
    select(
        session.c.id,
        session.c.user,
        session.c.how,
        session.c.address,
        session.c.agent,
        session.c.created_at,
        session.c.seen_at,
        session.c.expires_at,
    )
    .where(session.c.expires_at > bindparam("now"), session.c.seen_at > bindparam("idle_since"))
    .order_by(session.c.seen_at.desc())
    .limit(_ROWS_MAX)
)
_SESSIONS_OF = _SESSIONS.where(session.c.user == bindparam("user_name"))
_CARDS = select(user_certificate).where(user_certificate.c.user == bindparam("user_name"))

Record = dict[str, Any]


class PeopleReads:
    """Lists of users, roles, tokens, sessions and certificates, each row with an ``id``."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def users(self, now_us: int, wanted: Wanted) -> list[Record]:
        """Give every user with his rights; those that carry all of the wanted pairs."""
        held: dict[str, list[str]] = {}
        for row in await self._database.read(_ASSIGNED.limit(10 * _ROWS_MAX)):
            held.setdefault(row.user, []).append(_right_text(row))
        carrying = pairs.carrying(user.c.name, Kind.USER, wanted)
        rows = await self._database.read(_USERS.where(*carrying))
        found = [_user(row, now_us) | {"rights": held.get(row[0], [])} for row in rows]
        return await pairs.joined(self._database, Kind.USER, found, "name")

    async def user(self, name: str, now_us: int) -> Record:
        """Give one user; raises NotFoundError."""
        rows = await self._database.read(_USER, {"user_name": name})
        if not rows:
            raise NotFoundError(
                f"There is no user {name}.", remedy="`tma-central user list` shows all."
            )
        held = await self._database.read(_ASSIGNED_TO, {"user_name": name})
        return _user(rows[0], now_us) | {
            "rights": [_right_text(row) for row in held],
            "metadata": await pairs.of(self._database, Kind.USER, name),
        }

    async def rights_of(self, name: str) -> tuple[Right, ...]:
        """Give what a user may once he is let in: also while he is disabled."""
        rows = await self._database.read(_RIGHTS, {"user_name": name})
        return tuple(map(rights.right_of, rows))

    async def roles(self) -> list[Record]:
        """Give every role: those of every installation, then one's own."""
        used = {row.role: row.users for row in await self._database.read(_USED)}
        own = [(row.name, json.loads(row.permissions)) for row in await self._database.read(_ROLES)]
        shipped = [(name, sorted(allowed)) for name, allowed in ROLES.items()]
        return [
            {
                "id": name,
                "name": name,
                "kind": "built in" if name in ROLES else "own",
                "permissions": permissions,
                "users": used.get(name, 0),
            }
            for name, permissions in [*shipped, *own]
        ]

    async def tokens(self, name: str | None, now_us: int) -> list[Record]:
        """Give the API tokens of a user, or all; ended ones too."""
        rows = await self._of(_TOKENS, _TOKENS_OF, name, {})
        return [
            {
                "id": row.id,
                "user": row.user,
                "name": row.name,
                "state": "revoked"
                if row.revoked_at is not None
                else "active"
                if now_us < row.expires_at
                else "expired",
                "permissions": json.loads(row.permissions or "null"),
                "scope": row.scope,
                "created": utc_text(row.created_at),
                "ends": utc_text(row.expires_at),
            }
            for row in rows
        ]

    async def sessions(self, name: str | None, now_us: int, idle_us: int) -> list[Record]:
        """Give the live sessions of a user, or all."""
        times = {"now": now_us, "idle_since": now_us - idle_us}
        rows = await self._of(_SESSIONS, _SESSIONS_OF, name, times)
        return [
            {
                "id": row.id,
                "user": row.user,
                "how": row.how,
                "address": row.address,
                "agent": row.agent,
                "since": utc_text(row.created_at),
                "seen": utc_text(row.seen_at),
                "ends": utc_text(row.expires_at),
            }
            for row in rows
        ]

    async def certificates(self, name: str) -> list[Record]:
        """Give the client certificates that are bound to a user."""
        rows = await self._database.read(_CARDS, {"user_name": name})
        return [
            {
                "id": row.sha256,
                "user": row.user,
                "subject": row.subject,
                "ends": utc_text(row.not_after),
            }
            for row in rows
        ]

    async def _of(
        self, every: Executable, one: Executable, name: str | None, parameters: dict[str, Any]
    ) -> Any:
        if name is None:
            return await self._database.read(every, parameters)
        return await self._database.read(one, {**parameters, "user_name": name})


def _right_text(row: Any) -> str:
    return f"{row.role} on {row.scope}"


def _user(row: Any, now_us: int) -> Record:
    name, has_password, must_change, disabled_at, locked_until, last_login = row
    state = "active"
    if disabled_at is not None:
        state = "disabled"
    elif now_us < (locked_until or 0):
        state = "locked"
    elif must_change:
        state = "first password"
    return {
        "id": name,
        "name": name,
        "state": state,
        "password": bool(has_password),
        "last_login": utc_text(last_login),
    }
