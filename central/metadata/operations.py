"""What people say of objects: shown, changed and searched, within what they may of each kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Select, bindparam, select

from central.metadata import pairs
from central.metadata.orders import ROWS_MAX, Kind, Wanted
from shared.kernel.errors import NotFoundError
from shared.policy.rights import WHOLE, Permission, Place
from shared.store.database import Database
from shared.store.schema import ca, gateway, profile, station, user
from shared.store.transaction import Transaction
from shared.web.auth import Principal


@dataclass(frozen=True, slots=True)
class Carrier:
    """A kind of object: what it is called, who may see and change it, and where one lies."""

    called: str
    id: Column[str]
    find: Select[Any]
    read: Permission
    write: Permission
    place: Callable[[Any], Place] = lambda _row: WHOLE


def _one(name: Column[str], *more: Column[Any]) -> Select[Any]:
    return select(name, *more).where(name == bindparam("about")).limit(1)


_P = Permission
#: Deny by default: what is not listed here carries nothing.
CARRIERS: Mapping[Kind, Carrier] = {
    Kind.CA: Carrier(
        "CA",
        ca.c.ca_id,
        _one(ca.c.ca_id, ca.c.tenant, ca.c.gateway),
        _P.AUTHORITY_READ,
        _P.AUTHORITY_WRITE,
        lambda row: Place(tenant=row.tenant, ca=row.ca_id, line=row.gateway),
    ),
    Kind.GATEWAY: Carrier(
        "gateway",
        gateway.c.name,
        _one(gateway.c.name),
        _P.GATEWAY_READ,
        _P.GATEWAY_COMMAND,
        lambda row: Place(line=row.name),
    ),
    Kind.STATION: Carrier(
        "station", station.c.name, _one(station.c.name), _P.STATION_READ, _P.STATION_WRITE
    ),
    Kind.PROFILE: Carrier(
        "profile",
        profile.c.name,
        _one(profile.c.name),
        _P.PROFILE_READ,
        _P.PROFILE_WRITE,
        lambda row: Place(profile=row.name),
    ),
    Kind.USER: Carrier("user", user.c.name, _one(user.c.name), _P.USER_READ, _P.USER_WRITE),
}


class Metadata:
    """The pairs of every object that carries some."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def of(self, kind: Kind, about: str) -> dict[str, str]:
        """Give the pairs of an object that somebody may see."""
        return await pairs.of(self._database, kind, about)

    async def shown(self, kind: Kind, about: str, who: Principal) -> dict[str, str]:
        """Give the pairs of an object; raises NotFoundError, also for what one may not see."""
        who.require_somewhere(CARRIERS[kind].read)
        rows = await self._database.read(CARRIERS[kind].find, {"about": about})
        _visible(kind, about, rows[0] if rows else None, who, CARRIERS[kind].read)
        return await self.of(kind, about)

    async def change(
        self, kind: Kind, about: str, changes: Mapping[str, str | None], who: Principal
    ) -> dict[str, str]:
        """Set pairs, and remove those whose value is None; gives what the object carries now.

        Raises NotFoundError, ForbiddenError, BadRequestError.
        """
        carrier = CARRIERS[kind]
        who.require_somewhere(carrier.write)
        pairs.require_well_formed(changes)

        def unit(transaction: Transaction) -> dict[str, str]:
            row = transaction.one(carrier.find, {"about": about})
            place = _visible(kind, about, row, who, carrier.read, carrier.write)
            who.require(carrier.write, on=place)
            return pairs.change(transaction, kind, about, changes, who.name)

        return await self._database.writer.run(unit)

    async def page(
        self,
        kind: Kind,
        wanted: Wanted,
        *,
        after: str = "",
        size: int = ROWS_MAX,
        within: frozenset[str] | None = None,
    ) -> tuple[dict[str, dict[str, str]], str]:
        """Give objects that carry all of these pairs, by id with what each carries.

        Also gives what leads to the next page ("": nothing); ``within`` None: among all.
        """
        column = CARRIERS[kind].id
        query = select(column).where(column > after, *pairs.carrying(column, kind, wanted))
        if within is not None:
            query = query.where(column.in_(within))
        query = query.distinct().order_by(column).limit(size + 1)
        ids: list[str] = [row[0] for row in await self._database.read(query)]
        more = ids[size - 1] if len(ids) > size else ""
        ids = ids[:size]
        found = await pairs.of_all(self._database, kind, ids)
        return {about: found.get(about, {}) for about in ids}, more


def _visible(kind: Kind, about: str, row: Any, who: Principal, *seeing: Permission) -> Place:
    """Say where an object lies; raises NotFoundError unless one of the permissions shows it."""
    carrier = CARRIERS[kind]
    if row is not None:
        place = carrier.place(row)
        if any(who.may(one, place) for one in seeing):
            return place
    raise NotFoundError(f"There is no {carrier.called} {about}.")
