"""What a user may do, as the tables of users, roles and assignments say it."""

import json
from typing import Any

from sqlalchemy import bindparam, select

from shared.policy.rights import ROLES, Permission, Right, Scope
from shared.store.database import Database
from shared.store.schema import assignment, role, user

_ASSIGNED = (
    select(assignment.c.role, assignment.c.scope, role.c.permissions)
    .join(user, user.c.name == assignment.c.user)
    .outerjoin(role, role.c.name == assignment.c.role)
    .where(assignment.c.user == bindparam("user_name"), user.c.disabled_at.is_(None))
)


async def of_user(database: Database, name: str) -> tuple[Right, ...]:
    """Give the rights of a user; a disabled one has none."""
    return tuple(map(right_of, await database.read(_ASSIGNED, {"user_name": name})))


def right_of(row: Any) -> Right:
    """Make a right of (role, scope, permissions of a custom role or None).

    A permission that this version does not know, written by a newer one, allows nothing.
    """
    if row.permissions is None:
        permissions = ROLES.get(row.role, frozenset[Permission]())
    else:
        known = set(Permission)
        permissions = frozenset(
            Permission(one) for one in json.loads(row.permissions) if one in known
        )
    return Right(row.role, permissions, Scope.parse(row.scope))
