"""Small facts by name: line state, last contact, incarnation, clock ratchet."""

from typing import Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from shared.store.schema import fact
from shared.store.transaction import Transaction

#: Stops the line while it is there; its value is the reason, a sentence.
LINE: Final = "line"
#: The rules that are judged after each profile: the document of ``shared.policy.rules``.
RULES: Final = "rules"

_inserted = insert(fact)
_SET = _inserted.on_conflict_do_update(
    index_elements=[fact.c.name], set_={"value": _inserted.excluded.value}
)
_GET = select(fact.c.value).where(fact.c.name == bindparam("name"))
_DROP = delete(fact).where(fact.c.name == bindparam("key"))


def get(tx: Transaction, name: str) -> str | None:
    """Read a fact; None if it is not there."""
    row = tx.one(_GET, {"name": name})
    return None if row is None else row.value


def put(tx: Transaction, name: str, value: str | None) -> None:
    """Write a fact; None removes it."""
    if value is None:
        tx.execute(_DROP, {"key": name})
    else:
        tx.execute(_SET, {"name": name, "value": value})
