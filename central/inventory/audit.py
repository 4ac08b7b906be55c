"""The audit log: who did what, each row chained to the one before so that none can be changed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select

from shared.kernel import cbor
from shared.store.schema import audit
from shared.store.transaction import Transaction

_GENESIS = bytes(32)
_LAST = select(audit.c.hash).order_by(audit.c.id.desc()).limit(1)
_INSERT = insert(audit)


def add(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Write one row with what else the transaction does. ``detail`` holds no secrets."""
    last = transaction.one(_LAST)
    text = json.dumps(detail, sort_keys=True, ensure_ascii=False)
    said = [transaction.now.utc_us, actor, action, subject, text]
    digest = hashlib.sha256(cbor.encode([_GENESIS if last is None else last.hash, *said])).digest()
    row = dict(zip(("at", "actor", "action", "subject", "detail"), said, strict=True))
    transaction.execute(_INSERT, row | {"hash": digest})
