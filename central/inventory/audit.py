"""The audit log: who did what, each row chained to the one before so that none can be changed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select

from shared.kernel import cbor
from shared.store.schema import audit
from shared.store.transaction import Transaction

GENESIS = bytes(32)
_LAST = select(audit.c.hash).order_by(audit.c.id.desc()).limit(1)
_INSERT = insert(audit)


def add(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Write one row with what else the transaction does. ``detail`` holds no secrets."""
    last = transaction.one(_LAST)
    text = json.dumps(detail, sort_keys=True, ensure_ascii=False)
    said = (transaction.now.utc_us, actor, action, subject, text)
    digest = digest_of(GENESIS if last is None else last.hash, said)
    row = dict(zip(("at", "actor", "action", "subject", "detail"), said, strict=True))
    transaction.execute(_INSERT, row | {"hash": digest})


def digest_of(previous: bytes, said: tuple[int, str, str, str, str]) -> bytes:
    """Give the hash of an entry that says (time in UTC µs, actor, action, subject, detail).

    ``previous`` is the hash of the entry before, so that none can be changed alone.
    """
    return hashlib.sha256(cbor.encode([previous, *said])).digest()
