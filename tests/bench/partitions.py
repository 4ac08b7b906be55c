"""Partitioned CRLs: a million entries read, built, signed, verified and committed.

Beside the same bytes merely hashed and signed, which nobody can beat, and the same entries through
cryptography's builder, without a database; in the same run.

python -m tests.bench.partitions [ENTRIES]
"""

import asyncio
import hashlib
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import select

from shared.kernel.clock import datetime_of
from shared.kernel.ids import serial_text
from shared.pki.crl import CrlEntry
from shared.store.schema import crl
from shared.system import memory
from tests.bench._load import record
from tests.bench.crl import revoked
from tests.support.delta_crls import CA_ID, GATEWAY, Line, line
from tests.support.pki_hierarchy import DAY_US, NOW_US

_PARTITIONS = 64
_TARGET_S, _WHOLE, _WHOLE_TARGET_S = 10.0, 100_000, 1.0
_REASONS = ("unspecified", "superseded", "key_compromise", "cessation_of_operation")
_INSERT = (
    "INSERT INTO certificate (ca_id, serial, origin, state, status, test, not_after, issued_at, "
    f"revoked_at, reason) VALUES ('{CA_ID}', ?, '', 'issued', 'revoked', 0, {NOW_US + DAY_US}, "
    f"{NOW_US}, ?, ?)"
)


def _entries(count: int) -> list[CrlEntry]:
    chance = random.Random(1)
    return [
        CrlEntry(chance.getrandbits(128), NOW_US - n * 1_000_000, _REASONS[n % 4])
        for n in range(count)
    ]


def _fill(path: Path, entries: list[CrlEntry]) -> None:
    """Put revoked certificates into the database, as a busy CA has them."""
    rows = ((serial_text(serial), at_us, reason) for serial, at_us, reason in entries)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(_INSERT, rows)


async def _wall_s(work: Coroutine[Any, Any, object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def _here_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def _served(one: Line) -> list[bytes]:
    """Give the newest CRL of each partition, else the complete one."""
    every = [str(partition) for partition in one.keys.issuer.partitions.every]
    wanted = crl.c.scope.in_(every or ["complete"])
    return [row.der for row in await one.database.read(select(crl.c.der).where(wanted))]


def _hash_and_sign(ders: list[bytes]) -> None:
    """Do what no issuer of the same bytes can leave out."""
    key = GATEWAY.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for der in ders:
        digest = hashlib.sha256(der).digest()
        key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256())))


def _build(entries: list[CrlEntry], count: int) -> None:
    """Let cryptography's builder make partitions of the same entries."""
    for index in range(count):
        x509.CertificateRevocationListBuilder(
            GATEWAY.issuer.name, datetime_of(NOW_US), datetime_of(NOW_US + DAY_US),
            revoked_certificates=[revoked(one) for one in entries if one.serial % count == index],
        ).sign(GATEWAY.key, SHA256())  # fmt: skip


async def _run(count: int, partitions: int, target_s: float) -> None:
    entries = _entries(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        async with line(path) as one:
            _fill(path, entries)
            if partitions > 1:  # the complete CRL is there and has its own schedule
                await one.service.sign_crl(CA_ID)
                one.keys.share(partitions)
            else:
                one.keys.turn(deltas=False)
            began_s = time.process_time()
            value = await _wall_s(one.sign_news())
            cpu_s = time.process_time() - began_s
            ders = await _served(one)
            await one.issue(1)
            await one.revoke(1)
            again = await _wall_s(one.sign_news())
    assert len(ders) == partitions
    floor, beside = (
        _here_s(lambda: _hash_and_sign(ders)),
        _here_s(lambda: _build(entries, partitions)),
    )
    print(
        f"{count} entries in {partitions} CRLs, with the database: {value:.2f} s (at most "
        f"{target_s:.0f}), {cpu_s:.2f} of them CPU; after one revocation {again * 1e3:.0f} ms. "
        f"The same bytes hashed and signed: {floor * 1e3:.0f} ms; cryptography's builder without "
        f"a database: {beside:.2f} s, ratio {value / beside:.2f}"
    )
    record(
        f"crl-{count}-in-{partitions}", value, "s", reference="cryptography's builder",
        reference_value=beside, hashed_and_signed_s=round(floor, 4),
        cpu_s=round(cpu_s, 2), target=target_s,
        one_revocation_ms=round(again * 1e3, 1), megabytes=round(sum(map(len, ders)) / 1e6, 1),
    )  # fmt: skip


def main() -> None:
    """Measure, print, record."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    memory.settle()  # as both products do once they are up
    asyncio.run(_run(_WHOLE, 1, _WHOLE_TARGET_S))
    asyncio.run(_run(count, _PARTITIONS, _TARGET_S))


if __name__ == "__main__":
    main()
