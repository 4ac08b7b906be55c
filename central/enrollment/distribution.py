"""Sends what is new about who may enroll to the gateways: rules, device records, one-time codes.

Each gateway has a mark per kind, moved in the transaction that writes the directives, so a crash
neither loses nor repeats one. A gateway that joined anew has other marks and gets everything.
"""

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select

from central.enrollment import codes as making
from central.enrollment import records
from central.enrollment.registry import VERSION, Registry
from central.inventory import audit
from central.sync import directives, fleet
from shared.kernel import cbor
from shared.pki import sealing
from shared.store import facts
from shared.store.database import Database
from shared.store.devices import record_of
from shared.store.schema import device, gateway, gateway_line, one_time_code
from shared.store.transaction import Transaction

_ACTOR = "system"
_LOOK_AGAIN_S = 30  # what another process changed is sent at last then
_RECORDS_PER_EVENT = 300
_CODES_PER_EVENT = 800
_EVENT_BYTES = 90 * 1024  # an event holds 128 kB; one record has at most 45

_GATEWAYS = select(gateway.c.name).where(gateway.c.state == fleet.ACTIVE).order_by(gateway.c.name)
_ITS_LINES = select(gateway_line.c.line).where(gateway_line.c.gateway == bindparam("box"))
_of_box = or_(device.c.line.in_(_ITS_LINES), device.c.line == bindparam("own"), device.c.line == "")
#: Devices that moved or went: whoever has one that is not its own is told to forget it.
_left = (device.c.state == "removed") | device.c.previous_line.is_not(None)
_RECORDS = (
    select(
        device.c.serial,
        device.c.product,
        device.c.order_no,
        device.c.line,
        device.c.metadata,
        device.c.revision,
        ((device.c.state == "active") & _of_box).label("stays"),
    )
    .where(device.c.revision > bindparam("mark"), _of_box | _left)
    .order_by(device.c.revision)
    .limit(_RECORDS_PER_EVENT)
)
_CODES = (
    select(
        one_time_code.c.digest,
        one_time_code.c.serial,
        one_time_code.c.alias,
        one_time_code.c.expires_at,
        one_time_code.c.revision,
    )
    .where(
        one_time_code.c.gateway == bindparam("box"),
        one_time_code.c.revision > bindparam("mark"),
    )
    .order_by(one_time_code.c.revision)
    .limit(_CODES_PER_EVENT)
)
_FORGET_LINES = delete(gateway_line).where(gateway_line.c.gateway == bindparam("box"))
_ADD_LINE = insert(gateway_line)


class Distribution:
    """Keeps every gateway told; ``wake`` it after a change."""

    def __init__(self, database: Database, registry: Registry) -> None:
        """Take what is distributed."""
        self._database = database
        self._registry = registry
        self._changed = asyncio.Event()
        registry.changed = self.wake

    def wake(self) -> None:
        """Look at once."""
        self._changed.set()

    async def step(self) -> float:
        """Send what is new, then wait for a change; gives the pause, which is none."""
        self._changed.clear()
        for row in await self._database.read(_GATEWAYS):
            while await self._database.writer.run(lambda tx, box=row.name: self._send(tx, box)):
                pass
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._changed.wait()
        return 0

    async def serve_lines(self, box: str, lines: tuple[str, ...], actor: str) -> None:
        """Say which lines a gateway serves: the records of these are sent to it, from now on."""

        def unit(transaction: Transaction) -> None:
            fleet.find(transaction, box)
            transaction.execute(_FORGET_LINES, {"box": box})
            for line in dict.fromkeys(lines):
                transaction.execute(_ADD_LINE, {"gateway": box, "line": line})
            facts.put(transaction, f"sent_devices/{box}", None)
            audit.add(transaction, actor, "gateway.lines", box, {"lines": list(lines)})

        await self._database.writer.run(unit)
        self.wake()

    def _send(self, transaction: Transaction, box: str) -> bool:
        """Write at most one directive of each kind; tells if there is more."""
        row = fleet.find(transaction, box)
        if row.state != fleet.ACTIVE:
            return False
        joined = (row.join_request_hash or b"").hex()[:16]
        self._send_access(transaction, row)
        more_records = _send_records(transaction, box, joined)
        more_codes = _send_codes(transaction, row, joined)
        return more_records or more_codes

    def _send_access(self, transaction: Transaction, row: Any) -> None:
        """Send the rules again when they changed, or when the gateway has another exchange key."""
        version = facts.get(transaction, VERSION)
        mark, name = f"{version}/{_short_hash(row.exchange_key)}", f"sent_access/{row.name}"
        if version is None or facts.get(transaction, name) == mark:
            return
        access = self._registry.for_gateway(transaction, row.name, row.exchange_key)
        directives.order_access(transaction, row.name, access, _ACTOR)
        facts.put(transaction, name, mark)


def _send_records(transaction: Transaction, box: str, joined: str) -> bool:
    mark = _mark(transaction, f"sent_devices/{box}", joined)
    newest = int(facts.get(transaction, records.REVISION) or 0)
    if mark == newest:
        return False
    served = transaction.one(_ITS_LINES, {"box": box}) is not None
    own = None if served else box
    rows: list[Any] = transaction.all(_RECORDS, {"box": box, "own": own, "mark": mark})
    kept: list[dict[str, Any]] = []
    removed: list[str] = []
    size = 0
    for row in rows:
        if row.stays:
            kept.append(records.shown(record_of(row)))
            size += len(cbor.encode(kept[-1]))
        else:
            removed.append(row.serial)
            size += len(row.serial.encode()) + 3
        mark = row.revision
        if size > _EVENT_BYTES // 2:
            break
    if kept or removed:
        directives.order_devices(transaction, box, kept, removed, _ACTOR)
    more = len(rows) == _RECORDS_PER_EVENT or size > _EVENT_BYTES // 2
    _put_mark(transaction, f"sent_devices/{box}", joined, mark if more else newest)
    return more


def _send_codes(transaction: Transaction, row: Any, joined: str) -> bool:
    mark = _mark(transaction, f"sent_codes/{row.name}", joined)
    newest = int(facts.get(transaction, making.REVISION) or 0)
    if mark == newest:
        return False
    rows: list[Any] = transaction.all(_CODES, {"box": row.name, "mark": mark})
    now_us = transaction.now.utc_us
    valid = [
        [one.digest, one.serial, one.alias, one.expires_at]
        for one in rows
        if now_us < one.expires_at
    ]
    if valid:
        batch = transaction.random(16).hex()
        sealed = sealing.seal(cbor.encode(valid), row.exchange_key, sealing.codes(batch))
        directives.order_codes(transaction, row.name, batch, sealed, _ACTOR)
    more = len(rows) == _CODES_PER_EVENT
    _put_mark(transaction, f"sent_codes/{row.name}", joined, rows[-1].revision if more else newest)
    return more


def _mark(transaction: Transaction, name: str, joined: str) -> int:
    """Give how far a gateway was told; one that joined anew was told nothing."""
    whose, _, mark = (facts.get(transaction, name) or "").partition("/")
    return int(mark) if mark and whose == joined else 0


def _put_mark(transaction: Transaction, name: str, joined: str, mark: int) -> None:
    facts.put(transaction, name, f"{joined}/{mark}")


def _short_hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]
