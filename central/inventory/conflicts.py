"""Open questions: two facts or two rules disagree, and a person is to look at it."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, insert, update

from shared.store.schema import conflict
from shared.store.transaction import Transaction

_INSERT = insert(conflict)
_SETTLE = (
    update(conflict)
    .where(
        conflict.c.id == bindparam("number"),
        conflict.c.gateway == bindparam("about"),
        conflict.c.state == "open",
    )
    .values(state="settled")
)


def add(
    transaction: Transaction, kind: str, gateway: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Open a question about what a gateway reported."""
    row = {
        "kind": kind,
        "gateway": gateway,
        "subject": subject,
        "detail": json.dumps(detail),
        "state": "open",
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(_INSERT, row)


def settle(transaction: Transaction, conflict_id: int, gateway: str) -> bool:
    """Close a question about a gateway; False if there is no such open one."""
    return transaction.execute(_SETTLE, {"number": conflict_id, "about": gateway}) == 1
