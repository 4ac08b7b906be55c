"""Intents for ledger tests, and a database that lets them pass."""

import hashlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from shared.issuance.ports import Intent
from shared.kernel.ids import serial_text, uuid7
from shared.pki.plan import NameAttribute, Plan
from shared.policy.request import EnrollmentRequest, Operation
from shared.store import schema
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import open_database

CA_ID = "a" * 40
GRANT_ID = "grant-1"
DAY_US = 24 * 3600 * 1_000_000
_numbers = itertools.count(1)


def make_intent(device: str | None = None, **changes: Any) -> Intent:
    """An intent of its own; equal ``key`` and ``content`` make a retry."""
    number = next(_numbers)
    name = device or f"device-{number}"
    key = changes.pop("key", f"c:{number}")
    content = changes.pop("content", key)
    subject = (NameAttribute("2.5.4.3", name),)
    plan = Plan(
        profile="tls-client",
        profile_version=1,
        purpose="tls-client",
        subject=subject,
        alt_names=(),
        public_key=os.urandom(91),
        not_before_us=START_US,
        not_after_us=START_US + 90 * DAY_US,
        key_usage=("digital_signature",),
        extended_key_usage=("1.3.6.1.5.5.7.3.2",),
    )
    request = EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol="rest",
        alias="line",
        profile="tls-client",
        principal="station:one",
        public_key=plan.public_key,
        subject=subject,
        device_id=name,
        metadata={"batch": "7"},
    )
    now = ManualClock().now()
    fields = {
        "intent_id": uuid7(now, os.urandom),
        "serial": serial_text(int.from_bytes(os.urandom(16), "big")),
        "ca_id": CA_ID,
        "tbs": os.urandom(600),
        "plan": plan,
        "request": request,
        "idempotency_key": key,
        "request_hash": hashlib.sha256(content.encode()).digest(),
        "replay_until_us": START_US + DAY_US,
        "grant_id": GRANT_ID,
        "decided_at": now,
    }
    return Intent(**fields | changes)


def fake_der(intent: Intent) -> bytes:
    """Bytes in place of a certificate: the ledger's own path never parses them."""
    return intent.tbs + b"signature"


def prepare(tx: Transaction, quota: int = 1_000_000) -> None:
    """Let this box issue: an active CA and a grant."""
    ca = {
        "ca_id": CA_ID,
        "name": "gateway CA",
        "kind": "gateway",
        "der": b"",
        "state": "active",
        "not_after": START_US * 2,
        "crl_number": 0,
        "created_at": START_US,
    }
    tx.execute(insert(schema.ca), ca)
    grant = {
        "grant_id": GRANT_ID,
        "version": 1,
        "quota": quota,
        "used": 0,
        "state": "active",
        "document": b"{}",
    }
    tx.execute(insert(schema.grant_use), grant)


@asynccontextmanager
async def issuing_database(
    path: Path, quota: int = 1_000_000, **options: Any
) -> AsyncIterator[Database]:
    """A gateway's database that may issue; events go into its outbox."""
    options = {"sink": Outbox.of_gateway("gw-01", "test"), **options}
    async with open_database(path, **options) as database:
        await database.writer.run(lambda tx: prepare(tx, quota))
        yield database


async def count(database: Database, table: Any, *where: Any) -> int:
    rows = await database.read(select(func.count()).select_from(table).where(*where))
    return rows[0][0]


async def used(database: Database) -> int:
    return (await database.read(select(schema.grant_use.c.used)))[0][0]
