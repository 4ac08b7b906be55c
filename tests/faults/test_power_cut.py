"""A power cut at any moment loses no certificate and no revocation that a client was told of."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shared.kernel.errors import TmaError
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from tests.support.store_clock import ManualClock
from tests.support.store_intents import CA_ID, fake_der, issuing_database, make_intent
from tests.support.store_power import RecordedConnection, Recorder, Remains, power_cuts

_ISSUES = 24
_CLIENTS = 6


async def _load(database: Database, recorder: Recorder, random: Random) -> None:
    """Clients that enroll, now and then revoke, release, void or ask for too much."""
    ledger = SqlLedger(database)
    numbers = iter(range(_ISSUES))

    async def client() -> None:
        for number in numbers:
            intent = make_intent()
            await ledger.intend(intent)
            match random.randrange(8):
                case 0:
                    await ledger.release(intent)
                case 1:
                    await ledger.void(intent, "test")
                    recorder.answered(("certificate.voided", intent.serial, "revoked"))
                case 2:
                    await ledger.complete(intent, fake_der(intent))
                    recorder.answered(("certificate.issued", intent.serial, None))
                    await ledger.revoke(CA_ID, intent.serial, "superseded", "user:a")
                    recorder.answered(("certificate.revoked", intent.serial, "revoked"))
                case _:
                    await ledger.complete(intent, fake_der(intent))
                    recorder.answered(("certificate.issued", intent.serial, None))
            if number % 5 == 0:
                with pytest.raises(TmaError):
                    await ledger.complete(intent, b"twice")

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))


class LateCommit(RecordedConnection):
    """Commits when the next transaction begins: answers leave too early."""

    _owed = False

    def execute(self, sql, parameters=(), /):
        if sql == "COMMIT":
            self._owed = True
            return super().execute("SELECT 1")
        if self._owed and sql == "BEGIN IMMEDIATE":
            self._owed = False
            super().execute("COMMIT")
        return super().execute(sql, parameters)


async def _record(
    folder: Path, seed: int, *pragmas: str, kind: type[RecordedConnection] = RecordedConnection
) -> list[Remains]:
    """Run the load on a recorded database; give what every power cut would leave."""
    path = folder / "gateway.db"
    async with issuing_database(path):
        pass
    before = {path.name: path.read_bytes()}
    recorder = Recorder(f"recorder-{folder.name}-{seed}")
    database = await Database.open(
        path,
        sink=Outbox.of_gateway("gw-01", "test"),
        clock=ManualClock(),
        connect=lambda: kind(path, recorder.vfs_name, ("wal_autocheckpoint=40", *pragmas)),
    )
    await _load(database, recorder, Random(seed))
    await database.close()
    return list(power_cuts(before, recorder.log, Random(seed)))


def _lost(folder: Path, remains: Remains) -> list[str]:
    """Open what is left, as the next start would; give what is missing of what was told."""
    folder.mkdir()
    for name, content in remains.files.items():
        (folder / name).write_bytes(content)
    with closing(sqlite3.connect(folder / "gateway.db")) as connection:
        try:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = dict(connection.execute("SELECT serial, status FROM certificate"))
            told = connection.execute("SELECT type, event FROM outbox").fetchall()
            heads = connection.execute(
                "SELECT lane, max(sequence), count(*) FROM outbox GROUP BY lane"
            ).fetchall()
        except (sqlite3.DatabaseError, AssertionError) as error:
            return [f"the database: {error}"]
    gaps = [f"lane {lane} has a gap" for lane, last, number in heads if last != number]
    return gaps + [
        f"{type_name} of {serial}"
        for type_name, serial, status in remains.answers
        if serial not in rows
        or (status is not None and rows[serial] != status)
        or not any(name == type_name and serial.encode() in event for name, event in told)
    ]


async def _all_lost(folder: Path, seed: int, *pragmas: str, **options: Any) -> list[str]:
    cuts = await _record(folder, seed, *pragmas, **options)
    assert len(cuts) > 3 * _ISSUES
    return [
        f"cut at {remains.at}: {lost}"
        for number, remains in enumerate(cuts)
        for lost in _lost(folder / f"cut-{number}", remains)
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_no_power_cut_loses_what_was_told(tmp_path: Path, seed: int):
    assert await _all_lost(tmp_path, seed) == []


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_a_weaker_setting_would_be_noticed(tmp_path: Path, synchronous: str):
    assert await _all_lost(tmp_path, 1, f"synchronous={synchronous}")


async def test_an_answer_before_its_commit_would_be_noticed(tmp_path: Path):
    assert await _all_lost(tmp_path, 1, kind=LateCommit)
