"""The whole product as a fixture, and what both sides of it know."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet
from tests.support.processes import PortBlocks


@contextmanager
def running_fleet(folder: Path, *names: str) -> Iterator[Fleet]:
    """Run central and gateways of these names; at the end every process is ended."""
    blocks = PortBlocks()
    fleet = Fleet(folder / "fleet", blocks.take())
    try:
        fleet.start()
        for name in names:
            fleet.add_gateway(name)
        yield fleet
    finally:
        fleet.stop()
        blocks.close()


def rows(database: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Read a database from outside, whether its process runs or not."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


_FACTS = "SELECT ca_id, serial, state, status, sha256, device_id, reason FROM certificate"


def gateway_ledger(fleet: Fleet, name: str) -> set[tuple[Any, ...]]:
    """Give what a gateway knows of the certificates that it issued."""
    [gateway] = [one for one in fleet.gateways if one.name == name]
    found = rows(gateway.database, f"{_FACTS} WHERE origin = ''")
    assert len(found) == len(set(found))
    return set(found)


def inventory(fleet: Fleet, name: str) -> set[tuple[Any, ...]]:
    """Give what central knows of the certificates of a gateway."""
    found = rows(fleet.central.database, f"{_FACTS} WHERE origin = ?", name)
    assert len(found) == len(set(found))
    return set(found)
