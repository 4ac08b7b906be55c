"""Device records, and the one-time codes of devices, as admission and issuing ask for them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.policy.device import DeviceRecord
from shared.store.database import Database
from shared.store.schema import device, one_time_code
from shared.store.transaction import Transaction

_ANY = select(device.c.serial).limit(1)
_ONE = select(
    device.c.serial, device.c.product, device.c.order_no, device.c.line, device.c.metadata
).where(device.c.serial == bindparam("number"), device.c.state == "active")
_put = insert(device)
_PUT = _put.on_conflict_do_update(
    index_elements=[device.c.serial],
    set_={
        name: getattr(_put.excluded, name)
        for name in ("product", "order_no", "line", "metadata", "state", "revision", "updated_at")
    },
)
_DROP = delete(device).where(device.c.serial == bindparam("number"))
_CODE = select(one_time_code.c.serial, one_time_code.c.alias, one_time_code.c.expires_at).where(
    one_time_code.c.digest == bindparam("hashed"), one_time_code.c.gateway == ""
)
_put_code = insert(one_time_code).on_conflict_do_nothing()
_SPEND = (
    update(one_time_code)
    .where(
        one_time_code.c.digest == bindparam("hashed"),
        one_time_code.c.spent_by.is_(None) | (one_time_code.c.spent_by == bindparam("by")),
    )
    .values(spent_by=bindparam("by"))
)
_GIVE_BACK = (
    update(one_time_code)
    .where(
        one_time_code.c.digest == bindparam("hashed"), one_time_code.c.spent_by == bindparam("by")
    )
    .values(spent_by=bindparam("nobody"))
)

_MARK_SPENT = (
    update(one_time_code)
    .where(
        one_time_code.c.digest == bindparam("hashed"), one_time_code.c.gateway == bindparam("box")
    )
    .values(spent_by=bindparam("by"))
)


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time code of a device; ``alias`` "*" is any, ``expires_at_us`` is UTC µs."""

    serial: str
    alias: str
    expires_at_us: int


class Devices:
    """The ports ``Devices`` of the issuance core and ``Codes`` of admission."""

    def __init__(self, database: Database) -> None:
        """Take the database; ``load`` comes next."""
        self._database = database
        self._any = True

    async def load(self) -> None:
        """See whether there are records at all: where there are none, no request pays for them."""
        self._any = bool(await self._database.read(_ANY))

    async def record(self, serial: str) -> DeviceRecord | None:
        """Find what is known of a device."""
        if not self._any:
            return None
        rows = await self._database.read(_ONE, {"number": serial})
        return record_of(rows[0]) if rows else None

    async def code(self, digest: bytes) -> Code | None:
        """Find a code that may be spent here by the SHA-256 of its text, a spent one too."""
        rows = await self._database.read(_CODE, {"hashed": digest})
        return Code(*rows[0]) if rows else None


def record_of(row: Any) -> DeviceRecord:
    """Make the record of a row."""
    return DeviceRecord(row.serial, row.product, row.order_no, row.line, json.loads(row.metadata))


def put(transaction: Transaction, records: Iterable[DeviceRecord], revision: int) -> None:
    """Write records as central ordered them."""
    for record in records:
        row: Mapping[str, Any] = {
            "serial": record.serial,
            "product": record.product,
            "order_no": record.order,
            "line": record.line,
            "metadata": json.dumps(dict(record.metadata)),
            "state": "active",
            "previous_line": None,
            "revision": revision,
            "updated_at": transaction.now.utc_us,
        }
        transaction.execute(_PUT, row)


def drop(transaction: Transaction, serials: Iterable[str]) -> None:
    """Forget devices."""
    for serial in serials:
        transaction.execute(_DROP, {"number": serial})


def put_code(
    transaction: Transaction,
    digest: bytes,
    serial: str,
    *,
    alias: str,
    expires_at_us: int,
    gateway: str = "",
    revision: int = 0,
) -> None:
    """Accept a one-time code; the same one again changes nothing."""
    row = {
        "digest": digest,
        "serial": serial,
        "alias": alias,
        "gateway": gateway,
        "spent_by": None,
        "revision": revision,
        "expires_at": expires_at_us,
        "created_at": transaction.now.utc_us,
    }
    transaction.execute(_put_code, row)


def spend_code(transaction: Transaction, digest: bytes, by: str) -> bool:
    """Spend a code for a request's idempotency key; False: another request spent it."""
    return transaction.execute(_SPEND, {"hashed": digest, "by": by}) == 1


def mark_spent(transaction: Transaction, digest: bytes, gateway: str, by: str) -> None:
    """Write down what a gateway reported: its code was used up by this certificate."""
    transaction.execute(_MARK_SPENT, {"hashed": digest, "box": gateway, "by": by})


def give_code_back(transaction: Transaction, digest: bytes, by: str) -> None:
    """Undo the spending: the signer surely did not sign."""
    transaction.execute(_GIVE_BACK, {"hashed": digest, "by": by, "nobody": None})
