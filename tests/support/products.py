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
from tests.support.processes import PortBlocks, wait_until
from tests.support.rest import Line, connect, devices


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


_COUNTED = ("issued", "voided", "revoked", "held")
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


def counts(database: Path | str, origin: str) -> dict[str, int]:
    """Give a side's counters of a gateway; the gateway's own have no origin."""
    found: dict[str, Any] = dict(rows(database, "SELECT name, value FROM counter"))
    return {name: found.get(f"{name}/{origin}", 0) for name in _COUNTED}


def enroll(fleet: Fleet, gateway: Gateway, prefix: str, count: int = 4) -> dict[str, bytes]:
    """Enroll devices at a gateway; gives their certificates as the line received them."""
    received: dict[str, bytes] = {}

    async def line() -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await Line(rest, received=received).enroll(devices(prefix, count))

    asyncio.run(line())
    return received


def revoke_at_central(fleet: Fleet, *certificates: tuple[str, str]) -> None:
    """Have central revoke by CA and serial."""
    central = fleet.central

    async def revoke() -> None:
        async with connect(central.web_url, central.admin_token, central.ca_bundle) as rest:
            for ca_id, serial in certificates:
                await rest.revoke(ca_id, serial)

    asyncio.run(revoke())


def wait_equal(fleet: Fleet, *gateways: Gateway) -> None:
    """Wait until central knows what these gateways know, or all of them."""
    for gateway in gateways or fleet.gateways:
        wait_until(
            lambda box=gateway: ledger(box) == inventory(fleet, box.name),
            what=f"central knows what {gateway.name} knows",
        )


def wait_revoked(gateway: Gateway, certificate: tuple[str, str]) -> None:
    """Wait until the gateway has revoked what central ordered."""
    wait_until(
        lambda: any(row[:2] == certificate and row[3] == "revoked" for row in ledger(gateway)),
        what=f"{gateway.name} has revoked what central ordered",
    )


def put_back(fleet: Fleet, backup: Path) -> None:
    """Lose central's database and start it again from a backup; its link stays cut."""
    central = fleet.central
    central.cut_link()
    central.process.stop()
    for file in central.database.parent.glob("central.db*"):
        file.unlink()
    central.command("restore", str(backup))
    central.start()
