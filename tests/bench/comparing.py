"""What comparing costs a gateway with a million certificates: the time that its writer is held.

The reference is reading the same columns of the same rows with sqlite3 and nothing else.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console
from sqlalchemy import insert

from shared.store.database import Database
from shared.store.link import LinkTables
from shared.store.outbox import Outbox
from shared.store.schema import certificate
from shared.store.transaction import Transaction
from shared.sync import anti_entropy
from shared.sync.anti_entropy import Question
from shared.sync.join import CENTRAL_NAME
from shared.sync.messages import Errand
from tests.bench._load import record
from tests.support.pki_hierarchy import NOW_US
from tests.support.store_databases import ListSink, open_database

_CERTIFICATES = 1_000_000
_AT_ONCE = 20_000
_RAW = "SELECT id, ca_id, serial, status FROM certificate ORDER BY id"


def _fill(tx: Transaction) -> None:
    for _ in range(_AT_ONCE):
        row = {
            "ca_id": "ab" * 20, "serial": os.urandom(16).hex(), "origin": "", "state": "issued",
            "status": "good", "sha256": os.urandom(32).hex(), "test": 0, "issued_at": NOW_US,
        }  # fmt: skip
        tx.execute(insert(certificate), row)


async def _parts(database: Database) -> list[float]:
    """Give the seconds of the writer that each part takes."""
    outbox = Outbox.of_gateway("gw-01", "bench")
    position, took = Question().encode(), list[float]()
    done = False

    def unit(tx: Transaction) -> None:
        nonlocal position, done
        began = time.perf_counter()
        tables = LinkTables(tx, outbox, CENTRAL_NAME, lambda _tx, _events: None)
        given = anti_entropy.give(tables, Errand.DIGEST, position, 2 * NOW_US)
        position, done = given.position, given.done
        took.append(time.perf_counter() - began)

    while not done:
        await database.writer.run(unit)
    return took


async def _run(count: int, console: Console) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        async with open_database(path, sink=ListSink()) as database:
            for _ in range(count // _AT_ONCE):
                await database.writer.run(_fill)
            took = await _parts(database)
        began = time.perf_counter()
        with closing(sqlite3.connect(path)) as raw:
            rows = sum(1 for _ in raw.execute(_RAW))
        reading = time.perf_counter() - began
    total, longest = sum(took), max(took)
    console.print(
        f"{rows:,} certificates in {len(took)} parts: {total:.1f} s of the writer in all, a part "
        f"{statistics.median(took) * 1000:.0f} ms (longest {longest * 1000:.0f} ms); "
        f"{total / reading:.1f} times reading them with sqlite3 alone ({reading:.1f} s)."
    )
    record(
        "comparing", total, "s",
        reference="sqlite3 reads the rows", reference_value=reading,
        rows=rows, longest_part_ms=round(longest * 1000),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=int, default=_CERTIFICATES)
    asyncio.run(_run(parser.parse_args().certificates, Console(soft_wrap=True)))


if __name__ == "__main__":
    main()
