"""Search in an inventory of a million certificates, on SQLite and on PostgreSQL.

Rows and terms are generated in the database (signing a million certificates takes an hour); how
fast the task writes terms is measured on real certificates. The reference is the bar of 150 ms; the
times are of the finder itself, from the query's text to the rows of a page.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

from central.inventory import indexing
from central.inventory.finder import Finder
from central.inventory.indexing import Indexing
from shared.pki.plan import Plan
from shared.policy.rights import Scope
from shared.store import certificates
from shared.store.database import Database
from shared.store.schema import certificate
from shared.store.transaction import Transaction
from tests.bench._load import record
from tests.support.pki_hierarchy import (
    NOW_US,
    leaf_plan,  # pyright: ignore[reportUnknownVariableType]
    root_authority,
)
from tests.support.postgres import postgres
from tests.support.store_databases import Kind, open_database

_CERTIFICATES = 1_000_000
_INDEXED = 2_000
_AT_ONCE = 20_000
_ROUNDS = 20
_DAYS = 700
_COLUMNS = (certificate.c.id, certificate.c.serial, certificate.c.status, certificate.c.device_id)
_QUERIES = {
    "newest": "",
    "one serial": "serial:{n:x}",
    "one device": "device:SN-{n}",
    "free word": "SN-{n}",
    "one host name": "dns:press-{n}.example",
    "beginning of a host name": "dns:press-{n}*",
    "one key": "key:{n:040x}",
    "common metadata": "meta.line:line-{line}",
    "common profile": "profile:tls-server",
    "gateway": "gateway:gw-{gateway}",
    "revoked": "status:revoked",
    "few among many": "meta.order:order-{order} key_type:ec-p256 protocol:rest",
    "many and many": "meta.line:line-{line} key_type:ec-p256 gateway:gw-{gateway}",
    "revoked of a line": "status:revoked meta.line:line-{line}",
    "expires soon": "expires<2026-02-01",
    "expires soon, of a gateway": "expires<2026-02-01 gateway:gw-{gateway}",
    "nothing": "dns:nobody.example",
}  # fmt: skip


def _rows(first: int) -> list[dict[str, Any]]:
    return [
        {
            "ca_id": "ab" * 20, "serial": f"{number:032x}", "origin": f"gw-{number % 300}",
            "state": "issued", "status": "revoked" if number % 50 == 0 else "good",
            "sha256": f"{number:064x}", "subject_cn": f"press-{number}", "test": 0,
            "device_id": f"SN-{number}", "profile": "tls-server" if number % 3 else "idevid",
            "issued_at": NOW_US, "not_after": NOW_US,
        }
        for number in range(first, first + _AT_ONCE)
    ]  # fmt: skip


def _terms(first: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, "id": number}
        for number in range(first, first + _AT_ONCE)
        for name, value in (
            ("common_name", f"press-{number}"),
            ("dns", f"press-{number}.example"),
            ("key", f"{number:040x}"),
            ("key_type", "ec-p256"),
            ("protocol", "rest"),
            ("requester", f"station:line-{number % 40}"),
            ("meta.line", f"line-{number % 40}"),
            ("meta.order", f"order-{number // 200}"),
            (
                "expires",
                f"202{6 + number % _DAYS // 350}-{1 + number % 12:02}-{1 + number % 28:02}",
            ),
        )
    ]


def _unit(first: int) -> Any:
    def write(tx: Transaction) -> None:
        for row in _rows(first):
            tx.execute(insert(certificate), row | {"id": int(row["serial"], 16)})
        indexing.write_terms(tx, _terms(first))

    return write


async def _fill(database: Database, count: int, console: Console) -> None:
    began = time.perf_counter()
    for first in range(1, count + 1, _AT_ONCE):
        await database.writer.run(_unit(first))
    console.print(f"{count} rows with their terms in {time.perf_counter() - began:.0f} s.")


async def _indexing(database: Database) -> float:
    """Give certificates per second that the task reads and writes terms of."""
    authority = root_authority()
    plan: Plan = leaf_plan()
    bodies = [
        {
            "ca_id": authority.issuer.ca_id, "serial": f"{number:032x}", "profile": "tls-server",
            "der": authority.issue(plan, number),
            "profile_version": 1, "purpose": "tls-server", "device_id": None, "alias": "rest",
            "protocol": "rest", "principal": "station:1", "metadata": {"order": "7"},
            "grant_id": None, "test": False, "replaces": None,
        }
        for number in range(1, _INDEXED + 1)
    ]  # fmt: skip

    def write(tx: Transaction) -> None:
        for body in bodies:
            certificates.record_issued(tx, "gw-1", body, issued_at_us=1, clock_quality="ntp")

    await database.writer.run(write)
    task = Indexing(database)
    began = time.perf_counter()
    while (await task.progress()).behind:
        await task.step()
    return _INDEXED / (time.perf_counter() - began)


async def _measure(database: Database, count: int) -> dict[str, list[float]]:
    finder, scopes = Finder(database), [Scope()]
    took: dict[str, list[float]] = {name: [] for name in _QUERIES}
    for number in range(_ROUNDS):
        for name, query in _QUERIES.items():
            place = 1 + (number * 7_919 * 101) % count
            wanted = query.format(n=place, line=place % 40, gateway=place % 300, order=place // 200)
            began = time.perf_counter()
            await finder.find(wanted, scopes, columns=_COLUMNS, limit=50)
            took[name].append((time.perf_counter() - began) * 1e3)
    return took


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


async def _run(kind: str, folder: Path, count: int, console: Console) -> dict[str, float]:
    async with open_database(folder / f"{kind}-small.db") as database:
        rate = await _indexing(database)
    console.print(f"{kind}: terms of {rate:.0f} certificates per second.")
    async with open_database(folder / f"{kind}.db") as database:
        await _fill(database, count, console)
        if kind == "postgresql":
            await database.writer.run(lambda tx: tx.execute(text("ANALYZE")))
        took = await _measure(database, count)
    worst = max(took, key=lambda name: _p95(took[name]))
    every = [value for values in took.values() for value in values]
    record(
        f"search_{kind}_ms", _p95(every), f"ms, 95th percentile over {len(took)} kinds of query",
        reference="the bar", reference_value=150.0, worst=worst, worst_p95=round(_p95(took[worst])),
        certificates=count, terms_per_second=round(rate),
    )  # fmt: skip
    return {name: _p95(values) for name, values in took.items()}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=int, default=_CERTIFICATES)
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one of the two")
    options = parser.parse_args()
    count = options.certificates
    console = Console(highlight=False)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, postgres(durable=True) as server:
        for kind in (options.only,) if options.only else ("sqlite", "postgresql"):
            Kind.server = server if kind == "postgresql" else None
            found[kind] = asyncio.run(_run(kind, Path(name), count, console))
        Kind.server = None
    table = Table("query", *(f"{kind}, p95 ms" for kind in found))
    for query in _QUERIES:
        table.add_row(query, *(f"{found[kind][query]:.1f}" for kind in found))
    console.print(table)


if __name__ == "__main__":
    main()
