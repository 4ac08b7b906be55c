"""Maintained counters: no page ever counts rows (design.md §7).

Each counter belongs to one origin ('' is this box itself). issued, voided and stub count rows in
that state; revoked and held count issued ones of that status; refused counts refusals, replicated
the issued ones that the peer confirmed.
"""

from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from shared.store.schema import counter
from shared.store.transaction import Transaction

_ADD = (
    insert(counter)
    .values(name=bindparam("name"), value=bindparam("by"))
    .on_conflict_do_update(
        index_elements=[counter.c.name], set_={"value": counter.c.value + bindparam("by")}
    )
)
_PUT = (
    insert(counter)
    .values(name=bindparam("name"), value=bindparam("to"))
    .on_conflict_do_update(index_elements=[counter.c.name], set_={"value": bindparam("to")})
)


def add(transaction: Transaction, name: str, origin: str = "", by: int = 1) -> None:
    """Change the counter ``name`` of ``origin``."""
    transaction.execute(_ADD, {"name": f"{name}/{origin}", "by": by})


def put(transaction: Transaction, name: str, origin: str, value: int) -> None:
    """Set the counter ``name`` of ``origin``, because it was counted anew."""
    transaction.execute(_PUT, {"name": f"{name}/{origin}", "to": value})
