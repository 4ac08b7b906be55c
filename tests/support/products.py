"""The whole product as a fixture, and what both sides of it know."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg

from tests.support.fleet import Fleet, Gateway
from tests.support.processes import PortBlocks


@contextmanager
def described_fleet(
    folder: Path, settings: dict[str, dict[str, object]] | None = None
) -> Iterator[Fleet]:
    """Describe a fleet that is not started yet; at the end every process is ended."""
    blocks = PortBlocks()
    fleet = Fleet(folder / "fleet", blocks.take(), settings)
    try:
        yield fleet
    finally:
        fleet.stop()
        blocks.close()


@contextmanager
def running_fleet(folder: Path, *names: str) -> Iterator[Fleet]:
    """Run central and gateways of these names; at the end every process is ended."""
    with described_fleet(folder) as fleet:
        fleet.start()
        for name in names:
            fleet.add_gateway(name)
        yield fleet


def rows(database: Path | str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Read a database from outside, whether its process runs or not: a file or PostgreSQL's URL."""
    if isinstance(database, str):
        return _rows_of_postgres(database, statement, parameters)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


def _rows_of_postgres(url: str, statement: str, parameters: Any) -> list[tuple[Any, ...]]:
    numbers = iter(range(1, len(parameters) + 1))
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)

    async def read() -> None:
        connection = await asyncpg.connect(url)
        found.extend(map(tuple, await connection.fetch(numbered, *parameters)))
        await connection.close()

    found: list[tuple[Any, ...]] = []
    thread = Thread(target=lambda: asyncio.run(read()))  # whoever calls may be on a loop
    thread.start()
    thread.join()
    return found


_FACTS = "SELECT ca_id, serial, state, status, sha256, device_id, reason FROM certificate"


def gateway_ledger(fleet: Fleet, name: str) -> set[tuple[Any, ...]]:
    """Give what a gateway knows of the certificates that it issued."""
    [gateway] = [one for one in fleet.gateways if one.name == name]
    return ledger(gateway)


def ledger(gateway: Gateway) -> set[tuple[Any, ...]]:
    """Give the same of a certain box."""
    found = rows(gateway.database, f"{_FACTS} WHERE origin = ''")
    assert len(found) == len(set(found))
    return set(found)


def inventory(fleet: Fleet, name: str) -> set[tuple[Any, ...]]:
    """Give what central knows of the certificates of a gateway."""
    found = rows(fleet.central.database, f"{_FACTS} WHERE origin = ?", name)
    assert len(found) == len(set(found))
    return set(found)
