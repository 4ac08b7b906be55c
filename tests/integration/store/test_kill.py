"""SIGKILL under load loses no unit that was answered."""

import asyncio
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import outbox
from tests.support.store_clock import ManualClock
from tests.support.store_intents import CA_ID, count, used


@pytest.mark.parametrize("seed", range(5))
async def test_a_killed_writer_loses_nothing_it_answered(tmp_path: Path, seed: int):
    path = tmp_path / "gateway.db"
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.store_victim",
        str(path),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    random = Random(seed)
    told = [await victim.stdout.readline() for _ in range(random.randrange(1, 200))]
    await asyncio.sleep(random.random() / 20)
    victim.send_signal(signal.SIGKILL)
    told += (await victim.stdout.read()).splitlines(keepends=True)
    await victim.wait()
    serials = [line.decode().strip() for line in told if line.endswith(b"\n")]

    sink = Outbox.of_gateway("gw-01", "test")
    database = await Database.open(path, sink=sink, clock=ManualClock())
    reads = Reads(database)
    rows = [await reads.certificate(CA_ID, serial) for serial in serials]
    assert all(rows)
    issued = (await reads.counters())["issued"][""]
    assert issued >= len(serials)
    assert await count(database, outbox, outbox.c.type == "certificate.issued") == issued
    still_open = await SqlLedger(database).open_intents()
    assert await used(database) == issued + len(still_open)
    await database.close()
