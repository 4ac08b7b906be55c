"""What a batch of issues adds up to: a drain writes each counter and grant once per batch.

All happens in the one transaction that writes, so what is read at the first use holds to the end.
"""

from typing import Any

from sqlalchemy import bindparam, select, update

from shared.store import counters
from shared.store.schema import ca, grant_use, profile
from shared.store.transaction import Transaction

_CA = select(ca.c.der, ca.c.state, ca.c.issue_until).where(
    ca.c.ca_id == bindparam("wanted"), ca.c.gateway == bindparam("owner")
)
_GRANT = select(grant_use.c.used, grant_use.c.quota, grant_use.c.state).where(
    grant_use.c.grant_id == bindparam("id")
)
_WITHDRAWN = select(profile.c.name).where(
    profile.c.name == bindparam("used_profile"),
    profile.c.version == bindparam("used_version"),
    profile.c.state == "withdrawn",
)
_BOOK = (
    update(grant_use)
    .where(grant_use.c.grant_id == bindparam("id"))
    .values(used=grant_use.c.used + bindparam("units"))
)


class Tally:
    """Adds up for one gateway until ``settle``; made anew in each transaction."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        """Take the transaction, and the name of the gateway that reports."""
        self._transaction = transaction
        self._name = name
        self._authorities: dict[str, Any] = {}
        self._withdrawn: dict[tuple[str, int], bool] = {}
        self._grants: dict[str, Any] = {}
        self._booked: dict[str, int] = {}
        self._counted: dict[tuple[str, str], int] = {}

    def authority(self, ca_id: str) -> Any:
        """Give der, state and issue_until of a CA of the gateway; None if it is not one."""
        if ca_id not in self._authorities:
            wanted = {"wanted": ca_id, "owner": self._name}
            self._authorities[ca_id] = self._transaction.one(_CA, wanted)
        return self._authorities[ca_id]

    def is_withdrawn(self, name: str, version: int) -> bool:
        """Tell if a profile is in force no more."""
        used = name, version
        if used not in self._withdrawn:
            wanted = {"used_profile": name, "used_version": version}
            self._withdrawn[used] = self._transaction.one(_WITHDRAWN, wanted) is not None
        return self._withdrawn[used]

    def book(self, grant_id: str) -> Any:
        """Take one unit; gives quota, state and what is used with it. None: no such grant."""
        if grant_id not in self._grants:
            self._grants[grant_id] = self._transaction.one(_GRANT, {"id": grant_id})
        grant = self._grants[grant_id]
        if grant is None:
            return None
        units = self._booked[grant_id] = self._booked.get(grant_id, 0) + 1
        return grant._replace(used=grant.used + units)

    def count(self, transaction: Transaction, name: str, origin: str) -> None:
        """Count one, as ``counters.add``."""
        del transaction
        place = name, origin
        self._counted[place] = self._counted.get(place, 0) + 1

    def settle(self) -> None:
        """Write what was added up; what was read is read again when it is needed again."""
        for grant_id, units in self._booked.items():
            self._transaction.execute(_BOOK, {"id": grant_id, "units": units})
        for (name, origin), by in self._counted.items():
            counters.add(self._transaction, name, origin, by)
        self._authorities.clear()
        self._withdrawn.clear()
        self._grants.clear()
        self._booked.clear()
        self._counted.clear()
