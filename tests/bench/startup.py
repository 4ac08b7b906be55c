"""How fast a gateway with a long ledger is back at work, and how much memory it takes.

A real gateway, its token and its central. The ledger is filled from outside: 100,000 certificates
with their events, all confirmed by central but, as in a default install, not pruned. The reference
is the same gateway before it was filled.
"""

import asyncio
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from tests.bench._load import record, resident_mb
from tests.support.fleet import Fleet, Gateway
from tests.support.products import running_fleet
from tests.support.rest import Device, Rest, connect

_CERTIFICATES = 100_000
_EVENT_BYTES = 1_500  # as measured: a certificate.issued event with its DER
_STARTS = 3
_GIVE_UP_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Start:
    """One start, from the start of the process to the first certificate."""

    seconds: float
    memory_mb: float


def _fill(database: Path) -> None:
    """Multiply one real certificate; everything that must be unique is."""
    own = {
        "serial": "lower(hex(randomblob(16)))",
        "sha256": "lower(hex(randomblob(32)))",
        "idempotency_key": "'c:' || lower(hex(randomblob(32)))",
        "device_id": "'bulk-' || number",
        "subject_cn": "'bulk-' || number || '.example'",
    }
    numbers = (
        "WITH RECURSIVE numbers(number) AS "
        f"(SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {_CERTIFICATES}) "
    )
    with closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(certificate)")]
        columns.remove("id")
        values = ", ".join(own.get(column, column) for column in columns)
        connection.execute(
            f"{numbers} INSERT INTO certificate ({', '.join(columns)}) SELECT {values}"
            " FROM numbers,"
            " (SELECT * FROM certificate WHERE state = 'issued' ORDER BY id DESC LIMIT 1)"
        )
        connection.execute(
            f"{numbers} INSERT INTO outbox (peer, segment, lane, sequence, event, hash, type,"
            " created_at) SELECT '_central', 'bulk', 1, number, randomblob(?), randomblob(32),"
            " 'certificate.issued', 0 FROM numbers",
            (_EVENT_BYTES,),
        )
        connection.execute(
            "UPDATE counter SET value = value + ? WHERE name IN ('issued/', 'replicated/')",
            (_CERTIFICATES,),
        )


async def _first_issue(rest: Rest, name: str) -> None:
    device = Device.make(name, "tls-client")
    deadline = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < deadline:
        try:
            answer = await rest.post("/cert_tls-client", "cert_tls-client", {"csr": device.csr})
        except httpx.TransportError:
            await asyncio.sleep(_POLL_S)
            continue
        if answer.status_code == httpx.codes.CREATED:
            return
        await asyncio.sleep(_POLL_S)
    raise RuntimeError("The gateway issued nothing for a minute.")


def _starts(fleet: Fleet, gateway: Gateway, title: str) -> Start:
    """Start it some times; gives the medians."""

    async def issue(name: str) -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await _first_issue(rest, name)

    seen: list[Start] = []
    for number in range(_STARTS):
        gateway.process.stop()
        began = time.perf_counter()
        gateway.process.start()
        asyncio.run(issue(f"{title}-{number}"))
        seen.append(Start(time.perf_counter() - began, resident_mb(gateway.process.pid)))
    return Start(
        statistics.median(start.seconds for start in seen),
        statistics.median(start.memory_mb for start in seen),
    )


def main() -> None:
    """Measure, print and record."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_fleet(Path(name), "gw-01") as fleet,
    ):
        [gateway] = fleet.gateways
        small = _starts(fleet, gateway, "small")
        gateway.process.stop()
        _fill(gateway.database)
        large = _starts(fleet, gateway, "large")
    peer = "the same gateway with a ledger of some certificates"
    record("startup_seconds", large.seconds, "s from start to first issue",
           reference=peer, reference_value=small.seconds, certificates=_CERTIFICATES)  # fmt: skip
    record("startup_memory", large.memory_mb, "MB resident after the first issue",
           reference=peer, reference_value=small.memory_mb, certificates=_CERTIFICATES)  # fmt: skip
    Console(highlight=False).print(
        f"Gateway with {_CERTIFICATES:,} certificates: first issue after {large.seconds:.2f} s "
        f"({small.seconds:.2f} s when small), {large.memory_mb:.0f} MB ({small.memory_mb:.0f} MB)."
    )


if __name__ == "__main__":
    main()
