"""Users and what they may, inside transactions; each change is audited where it happens.

Two things always hold: somebody who is not disabled has the role admin everywhere, and a user
whose password or state changes has no session left.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from central.inventory import audit
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.policy.rights import (
    ROLES,
    Permission,
    Scope,
    permissions_of,
    require_role_name,
)
from shared.store.access import require_name
from shared.store.schema import (
    api_token,
    assignment,
    role,
    session,
    user,
    user_certificate,
)
from shared.store.transaction import Transaction

ADMIN = "admin"
TOKENS_PER_USER_MAX = 100
_CERTIFICATES_PER_USER_MAX = 10

_THIS = user.c.name == bindparam("user_name")
_USER = select(user.c.name, user.c.disabled_at).where(_THIS)
_ADD_USER = insert(user)
_SET_PASSWORD = (
    update(user)
    .where(_THIS)
    .values(
        password_hash=bindparam("new_hash"),
        must_change=bindparam("change"),
        failed_logins=0,
        locked_until=None,
    )
)
_DISABLE = update(user).where(_THIS).values(disabled_at=bindparam("at"))
_UNLOCK = update(user).where(_THIS).values(failed_logins=0, locked_until=None)
_END_SESSIONS = delete(session).where(session.c.user == bindparam("user_name"))
_END_OTHER_SESSIONS = delete(session).where(
    session.c.user == bindparam("user_name"), session.c.id != bindparam("kept")
)
_END_SESSION = delete(session).where(
    session.c.user == bindparam("user_name"), session.c.id == bindparam("ended")
)
_ROLE = select(role.c.name).where(role.c.name == bindparam("role_name"))
_ADD_ROLE = insert(role)
_SET_ROLE = (
    update(role)
    .where(role.c.name == bindparam("role_name"))
    .values(permissions=bindparam("wanted"))
)
_DROP_ROLE = delete(role).where(role.c.name == bindparam("role_name"))
_ROLE_USED = (
    select(assignment.c.user)
    .where(assignment.c.role == bindparam("role_name"))
    .distinct()
    .limit(10)
)
_ASSIGNED = select(assignment.c.role).where(
    assignment.c.user == bindparam("user_name"),
    assignment.c.role == bindparam("role_name"),
    assignment.c.scope == bindparam("where"),
)
_ADD_ASSIGNMENT = insert(assignment)
_DROP_ASSIGNMENT = delete(assignment).where(
    assignment.c.user == bindparam("user_name"),
    assignment.c.role == bindparam("role_name"),
    assignment.c.scope == bindparam("where"),
)
_ADMINS = (
    select(func.count().label("number"))
    .select_from(assignment.join(user, user.c.name == assignment.c.user))
    .where(assignment.c.role == ADMIN, assignment.c.scope == "*", user.c.disabled_at.is_(None))
)
_ADD_TOKEN = insert(api_token)
_TOKENS = select(func.count().label("number")).where(
    api_token.c.user == bindparam("user_name"), api_token.c.revoked_at.is_(None)
)
_TOKEN = select(api_token.c.user, api_token.c.name, api_token.c.revoked_at).where(
    api_token.c.id == bindparam("token_id")
)
_REVOKE_TOKEN = (
    update(api_token)
    .where(api_token.c.id == bindparam("token_id"), api_token.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_BOUND = select(user_certificate.c.user).where(user_certificate.c.sha256 == bindparam("digest"))
_BOUND_OF = select(func.count().label("number")).where(
    user_certificate.c.user == bindparam("user_name")
)
_BIND = insert(user_certificate)
_UNBIND = delete(user_certificate).where(
    user_certificate.c.sha256 == bindparam("digest"),
    user_certificate.c.user == bindparam("user_name"),
)


def require_user(transaction: Transaction, name: str) -> Any:
    """Give a user's row; raises NotFoundError."""
    row = transaction.one(_USER, {"user_name": name})
    if row is None:
        raise NotFoundError(
            f"There is no user {name}.", remedy="`tma-central user list` shows all."
        )
    return row


def add_user(
    transaction: Transaction, name: str, password_hash: str, actor: str, *, must_change: bool
) -> None:
    """Add a user without any right; an empty hash means no login by password.

    Raises ConflictError when there is one, BadRequestError for the name.
    """
    require_name(name)
    if transaction.one(_USER, {"user_name": name}) is not None:
        raise ConflictError(f"There is a user {name} already.")
    row = {
        "name": name,
        "password_hash": password_hash,
        "must_change": int(must_change),
        "failed_logins": 0,
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(_ADD_USER, row)
    audit.add(transaction, actor, "user.added", name, {"password": bool(password_hash)})


def set_password(
    transaction: Transaction,
    name: str,
    password_hash: str,
    actor: str,
    *,
    must_change: bool,
    keep_session: str = "",
) -> None:
    """Give a user another password; his sessions end, but the one in which he changed it."""
    require_user(transaction, name)
    values = {"user_name": name, "new_hash": password_hash, "change": int(must_change)}
    transaction.execute(_SET_PASSWORD, values)
    transaction.execute(_END_OTHER_SESSIONS, {"user_name": name, "kept": keep_session})
    audit.add(transaction, actor, "user.password-set", name, {"first": must_change})


def disable(transaction: Transaction, name: str, actor: str) -> None:
    """Refuse a user from now on: sessions end, tokens and cards are worth nothing meanwhile."""
    if require_user(transaction, name).disabled_at is not None:
        return
    transaction.execute(_DISABLE, {"user_name": name, "at": transaction.now.utc_us})
    _require_an_admin(transaction)
    transaction.execute(_END_SESSIONS, {"user_name": name})
    audit.add(transaction, actor, "user.disabled", name, {})


def enable(transaction: Transaction, name: str, actor: str) -> None:
    """Let a disabled or locked user in again."""
    require_user(transaction, name)
    transaction.execute(_DISABLE, {"user_name": name, "at": None})
    transaction.execute(_UNLOCK, {"user_name": name})
    audit.add(transaction, actor, "user.enabled", name, {})


def assign(transaction: Transaction, name: str, role_name: str, scope: Scope, actor: str) -> None:
    """Give a user a role within a scope; done again, it changes nothing."""
    require_user(transaction, name)
    _require_role(transaction, role_name)
    this = {"user_name": name, "role_name": role_name, "where": scope.text}
    if transaction.one(_ASSIGNED, this) is not None:
        return
    row = {"user": name, "role": role_name, "scope": scope.text}
    transaction.execute(_ADD_ASSIGNMENT, row | {"created_at": transaction.now.utc_us})
    told = {"role": role_name, "scope": scope.text}
    audit.add(transaction, actor, "role.assigned", name, told)


def withdraw(transaction: Transaction, name: str, role_name: str, scope: Scope, actor: str) -> None:
    """Take a role back; raises NotFoundError, ConflictError when nobody could administer then."""
    this = {"user_name": name, "role_name": role_name, "where": scope.text}
    if not transaction.execute(_DROP_ASSIGNMENT, this):
        raise NotFoundError(f"The user {name} does not have the role {role_name} on {scope.text}.")
    _require_an_admin(transaction)
    told = {"role": role_name, "scope": scope.text}
    audit.add(transaction, actor, "role.withdrawn", name, told)


def define_role(
    transaction: Transaction, name: str, permissions: Sequence[str], actor: str
) -> None:
    """Make a role, or give one other permissions; raises BadRequestError."""
    require_role_name(name)
    wanted = json.dumps(sorted(permissions_of(permissions)))
    if transaction.one(_ROLE, {"role_name": name}) is None:
        row = {"name": name, "permissions": wanted, "created_at": transaction.now.utc_us}
        transaction.execute(_ADD_ROLE, row)
    else:
        transaction.execute(_SET_ROLE, {"role_name": name, "wanted": wanted})
    audit.add(transaction, actor, "role.defined", name, {"permissions": json.loads(wanted)})


def drop_role(transaction: Transaction, name: str, actor: str) -> None:
    """Remove a role that nobody has; raises NotFoundError, ConflictError naming who has it."""
    require_role_name(name)
    if users := [row[0] for row in transaction.all(_ROLE_USED, {"role_name": name})]:
        raise ConflictError(f"The role {name} is in use by: {', '.join(users)}.")
    if not transaction.execute(_DROP_ROLE, {"role_name": name}):
        raise NotFoundError(f"There is no role {name}.")
    audit.add(transaction, actor, "role.removed", name, {})


@dataclass(frozen=True, slots=True)
class NewToken:
    """An API token to be kept: its hash, and what limits it beside its user."""

    id: str
    user: str
    name: str
    token_hash: bytes
    permissions: frozenset[Permission] | None
    scope: Scope
    expires_at_us: int


def add_token(transaction: Transaction, new: NewToken, actor: str) -> None:
    """Keep a token; raises NotFoundError, ConflictError when the user has too many."""
    require_user(transaction, new.user)
    live: Any = transaction.one(_TOKENS, {"user_name": new.user})
    if live.number >= TOKENS_PER_USER_MAX:
        raise ConflictError(f"A user has at most {TOKENS_PER_USER_MAX} tokens; revoke one first.")
    permissions = None if new.permissions is None else sorted(new.permissions)
    row = {
        "id": new.id,
        "user": new.user,
        "name": new.name,
        "token_hash": new.token_hash,
        "permissions": None if permissions is None else json.dumps(permissions),
        "scope": new.scope.text,
        "created_at": transaction.now.utc_us,
        "expires_at": new.expires_at_us,
    }
    transaction.execute(_ADD_TOKEN, row)
    told = {
        "token": new.id,
        "name": new.name,
        "permissions": permissions or "all",
        "scope": new.scope.text,
        "expires_at_us": new.expires_at_us,
    }
    audit.add(transaction, actor, "token.added", new.user, told)


def revoke_token(transaction: Transaction, token_id: str, owner: str | None, actor: str) -> None:
    """End a token, of this owner if one is named; raises NotFoundError. Again: no change."""
    row: Any = transaction.one(_TOKEN, {"token_id": token_id})
    if row is None or owner not in {None, row.user}:
        raise NotFoundError(f"There is no token {token_id}.")
    at = {"token_id": token_id, "at": transaction.now.utc_us}
    if transaction.execute(_REVOKE_TOKEN, at):
        told = {"token": token_id, "name": row.name}
        audit.add(transaction, actor, "token.revoked", row.user, told)


def end_sessions(transaction: Transaction, name: str, session_id: str | None, actor: str) -> None:
    """End one session of a user, or all (None); raises NotFoundError when there is none."""
    if session_id is None:
        ended = transaction.execute(_END_SESSIONS, {"user_name": name})
    else:
        ended = transaction.execute(_END_SESSION, {"user_name": name, "ended": session_id})
        if not ended:
            raise NotFoundError(f"The user {name} has no session {session_id}.")
    if ended:
        told = {"session": session_id or "all", "number": ended}
        audit.add(transaction, actor, "session.ended", name, told)


@dataclass(frozen=True, slots=True)
class Card:
    """A client certificate, on a card or not: hex SHA-256 of its DER, end in UTC µs."""

    sha256: str
    subject: str
    not_after_us: int


def bind_certificate(transaction: Transaction, name: str, card: Card, actor: str) -> None:
    """Let a certificate stand for a user; raises ConflictError."""
    require_user(transaction, name)
    bound: Any = transaction.one(_BOUND, {"digest": card.sha256})
    if bound is not None:
        raise ConflictError(f"This certificate is bound to the user {bound.user} already.")
    number: Any = transaction.one(_BOUND_OF, {"user_name": name})
    if number.number >= _CERTIFICATES_PER_USER_MAX:
        raise ConflictError(f"A user has at most {_CERTIFICATES_PER_USER_MAX} certificates.")
    row = {
        "sha256": card.sha256,
        "user": name,
        "subject": card.subject,
        "not_after": card.not_after_us,
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(_BIND, row)
    told = {"sha256": card.sha256, "subject": card.subject}
    audit.add(transaction, actor, "certificate.bound", name, told)


def unbind_certificate(transaction: Transaction, name: str, digest: str, actor: str) -> None:
    """Take a certificate away from a user, with all his sessions; raises NotFoundError."""
    if not transaction.execute(_UNBIND, {"user_name": name, "digest": digest}):
        raise NotFoundError(f"No such certificate is bound to the user {name}.")
    transaction.execute(_END_SESSIONS, {"user_name": name})
    audit.add(transaction, actor, "certificate.unbound", name, {"sha256": digest})


def _require_role(transaction: Transaction, name: str) -> None:
    if name not in ROLES and transaction.one(_ROLE, {"role_name": name}) is None:
        raise BadRequestError(
            f"There is no role {name}.", remedy="`tma-central role list` shows all."
        )


def _require_an_admin(transaction: Transaction) -> None:
    left: Any = transaction.one(_ADMINS)
    if not left.number:
        raise ConflictError(
            "Nobody would be left who may administer this central.",
            remedy="Give another user the role admin everywhere (*) first.",
        )
