"""Every kind of tampering with the audit log is found, and named by its first entry."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from central.identity.audit_log import AuditLog, Wanted
from central.inventory import audit
from shared.kernel.errors import UntrustedError
from shared.store.database import Database
from tests.support.directive_keys import OneKey
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

_ENTRIES = 20


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "central.db") as opened:
        await _write(opened, _ENTRIES)
        yield opened


@pytest.fixture
def log(database: Database) -> AuditLog:
    return _log(database)


@pytest.fixture
def tamper(tmp_path: Path) -> Callable[..., None]:
    def tamper(statement: str, *parameters: object) -> None:
        with closing(sqlite3.connect(tmp_path / "central.db")) as connection, connection:
            connection.execute(statement, parameters)

    return tamper


def _log(database: Database) -> AuditLog:
    key = ec.generate_private_key(ec.SECP256R1())
    return AuditLog(database, OneKey(key), ManualClock())


async def _write(database: Database, number: int) -> None:
    for each in range(number):
        await database.writer.run(
            lambda transaction, each=each: audit.add(
                transaction, "user:anna", "gateway.ended", f"gw-{each}", {"reason": "é"}
            )
        )


async def test_an_honest_log_holds(database, log):
    await log.step()
    await _write(database, 5)
    kept = await log.checkpoint()
    verdict = await log.verify([kept["checkpoint"]])
    assert verdict["broken"] is None
    assert (verdict["entries"], verdict["checkpoints"]) == (_ENTRIES + 5, 2)


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE audit SET actor = 'user:eve' WHERE id = 7", 7),
        ("UPDATE audit SET detail = '{}' WHERE id = 7", 7),
        ("UPDATE audit SET at = at + 1 WHERE id = 7", 7),
        ("UPDATE audit SET hash = randomblob(32) WHERE id = 7", 7),
        ("DELETE FROM audit WHERE id = 7", 8),
        ("DELETE FROM audit WHERE id = 1", 2),
        ("UPDATE audit SET id = 700 WHERE id = 7", 8),
        ("DELETE FROM audit WHERE id > 15", 16),
        ("DELETE FROM audit", 1),
        ("UPDATE audit_checkpoint SET envelope = zeroblob(64)", _ENTRIES),
        ("UPDATE audit_checkpoint SET audit_id = 5", 5),
    ],
)
async def test_what_was_done_to_it_is_found(log, tamper, statement, first):
    await log.step()
    tamper(statement)
    assert (await log.verify())["broken"]["entry"] == first


async def test_a_log_rewritten_from_an_entry_on_is_found_by_its_checkpoint(database, log, tamper):
    await log.step()
    tamper("DELETE FROM audit WHERE id > 10")
    await _write(database, _ENTRIES - 10)  # a chain that holds, over another story
    broken = (await log.verify())["broken"]
    assert broken["entry"] == _ENTRIES
    assert "checkpoint" in broken["why"]


async def test_a_checkpoint_kept_elsewhere_finds_what_an_administrator_can_hide(log, tamper):
    kept = (await log.checkpoint())["checkpoint"]
    tamper("DELETE FROM audit WHERE id > 10")
    tamper("DELETE FROM audit_checkpoint")
    assert (await log.verify())["broken"] is None
    assert (await log.verify([kept]))["broken"]["entry"] == 11


async def test_a_checkpoint_of_another_central_is_refused(database, log):
    foreign = (await _log(database).checkpoint())["checkpoint"]
    with pytest.raises(UntrustedError):
        await log.verify([foreign])


async def test_the_export_holds_everything_in_order_and_can_be_judged_alone(log):
    text = b"".join([part async for part in log.exported()]).decode()
    assert text.count("\n") == _ENTRIES
    following = await log.following(_ENTRIES - 2)
    assert [row["id"] for row in following] == [_ENTRIES - 1, _ENTRIES]


async def test_search_pages_through_what_is_asked_for(database, log):
    await database.writer.run(
        lambda transaction: audit.add(transaction, "user:ben", "user.added", "cyd", {})
    )
    assert [row["subject"] for row in await log.search(Wanted(actor="user:ben"), 10)] == ["cyd"]
    first = await log.search(Wanted(action="gateway.*"), 5)
    then = await log.search(Wanted(action="gateway.*", before=first[-1]["id"]), 5)
    assert [row["id"] for row in [*first, *then]] == list(range(_ENTRIES, _ENTRIES - 10, -1))
    assert await log.search(Wanted(subject="gw-3", action="user.*"), 5) == []
