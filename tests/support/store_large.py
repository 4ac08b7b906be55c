"""A gateway's database with many certificates, made quickly."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from shared.store.ledger import SqlLedger
from tests.support.store_intents import CA_ID, fake_der, issuing_database, make_intent

_COPIED = "ca_id, origin, state, status, profile, purpose, test, not_before, not_after, issued_at"

_OUTBOX = "peer, segment, lane, sequence, type, created_at, hash, event"


async def write(path: Path, certificates: int, revoked: int) -> None:
    """Issue one the right way; multiply its rows in certificate and outbox, revoke some."""
    async with issuing_database(path) as database:
        ledger = SqlLedger(database)
        intent = make_intent()
        await ledger.intend(intent)
        await ledger.complete(intent, fake_der(intent))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(
            f"INSERT INTO certificate (serial, der, sha256, subject_cn, device_id, "
            f"idempotency_key, {_COPIED}) SELECT ?, ?, ?, ?, ?, ?, {_COPIED} "
            f"FROM certificate WHERE id = 1",
            (
                (os.urandom(16).hex(), os.urandom(700), os.urandom(32).hex(), name, name, name)
                for name in (f"SN-{number}" for number in range(certificates - 1))
            ),
        )
        connection.execute(
            "UPDATE certificate SET status = 'revoked', revoked_at = 1, reason = 'superseded' "
            "WHERE id > (SELECT max(id) FROM certificate) - ?",
            (revoked,),
        )
        (*place, last, kind, at, digest, event) = connection.execute(
            f"SELECT {_OUTBOX} FROM outbox WHERE type = 'certificate.issued'"
        ).fetchone()
        connection.executemany(
            f"INSERT INTO outbox ({_OUTBOX}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ((*place, last + n, kind, at, digest, event) for n in range(1, certificates)),
        )
        connection.execute("UPDATE counter SET value = ? WHERE name = 'issued/'", (certificates,))
        assert connection.execute("SELECT DISTINCT ca_id FROM certificate").fetchall() == [(CA_ID,)]
