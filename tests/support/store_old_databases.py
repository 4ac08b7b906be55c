"""Databases that older versions wrote, kept as SQL text in ``tests/databases``.

A release adds its own: ``python -m tests.support.store_old_databases NAME``. What is there never
changes.
"""

import asyncio
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from shared.store.ledger import SqlLedger
from tests.support.store_intents import CA_ID, fake_der, issuing_database, make_intent

FOLDER = Path(__file__).parents[1] / "databases"


def restore(name: str, path: Path) -> None:
    """Make a database file of ``NAME.sql``."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))


async def write(name: str) -> None:
    """Write a small gateway's database with something of everything into ``NAME.sql``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        async with issuing_database(path) as database:
            ledger = SqlLedger(database)
            intents = [make_intent(f"SN-{number}", key=f"k:{number}") for number in range(5)]
            for intent in intents:
                await ledger.intend(intent)
            for intent in intents[:3]:
                await ledger.complete(intent, fake_der(intent))
            await ledger.void(intents[3], "crash")
            await ledger.revoke(CA_ID, intents[1].serial, "superseded", "user:a")
            await ledger.hold(CA_ID, intents[2].serial, "h-1", "user:a")
        with closing(sqlite3.connect(path)) as connection:
            text = "\n".join(connection.iterdump())
    (FOLDER / f"{name}.sql").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
