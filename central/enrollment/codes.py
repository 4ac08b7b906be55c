"""One-time codes: made for devices in bulk, shown once, kept as hashes, bound to one box each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import and_, or_, select

from central.inventory import audit
from central.sync import fleet
from shared.enroll.requesters.doorkeeper import code_hash
from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError
from shared.kernel.ids import Random
from shared.pki import names
from shared.store import devices, facts
from shared.store.database import Database
from shared.store.schema import one_time_code
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME

#: Fact: counts the codes that were made; each has its number as revision.
REVISION = "code_revision"
CODES_MAX = 10_000
PAGE_ROWS = 100
_DAY_US = 24 * 3600 * US_PER_SECOND
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing that looks like another
_GROUPS, _GROUP_CHARS = 4, 5
_LAST = "\U0010ffff"


class DeviceCode(NamedTuple):
    """A code in clear text, for the one who hands it to the device."""

    serial: str
    code: str


@dataclass(frozen=True, slots=True)
class CodeView:
    """A code as it is shown: ``state`` is open, spent or ended; times in UTC µs."""

    serial: str
    alias: str
    gateway: str  # ``_central``: here
    state: str
    made_at_us: int
    expires_at_us: int
    number: int


class Codes:
    """Makes one-time codes, and tells which are spent."""

    def __init__(self, database: Database, random: Random) -> None:
        """Take the database and the source of randomness."""
        self._database = database
        self._random = random

    async def make(
        self, serials: Sequence[str], *, gateway: str, alias: str, days: int, actor: str
    ) -> list[DeviceCode]:
        """Make a code for each device, to be spent at ``gateway`` (``_central``: here) only.

        Raises BadRequestError, NotFoundError (no such gateway).
        """
        if not 0 < len(serials) <= CODES_MAX:
            raise BadRequestError(f"Ask for 1 to {CODES_MAX} codes at once.")
        for serial in serials:
            if problem := names.text_problem(serial, limits.DEVICE_ID_CHARS_MAX):
                raise BadRequestError(f"The serial number {serial!r} {problem}.")
        made = [DeviceCode(serial, new_code(self._random)) for serial in serials]
        box = _box(gateway)

        def unit(transaction: Transaction) -> None:
            if box:
                fleet.find(transaction, box)
            revision = int(facts.get(transaction, REVISION) or 0)
            expires_at_us = transaction.now.utc_us + days * _DAY_US
            for number, one in enumerate(made, revision + 1):
                devices.put_code(
                    transaction,
                    code_hash(one.code),
                    one.serial,
                    alias=alias,
                    expires_at_us=expires_at_us,
                    gateway=box,
                    revision=number,
                )
            facts.put(transaction, REVISION, str(revision + len(made)))
            detail = {"count": len(made), "alias": alias, "days": days}
            audit.add(transaction, actor, "codes.made", gateway, detail)

        await self._database.writer.run(unit)
        return made

    async def listed(
        self,
        *,
        serial: str = "",
        gateway: str = "",
        boxes: frozenset[str] | None = None,
        after: tuple[str, int] = ("", 0),
        now_us: int,
    ) -> list[CodeView]:
        """Give a page of codes by serial and age, behind ``after`` (serial, number).

        ``serial`` is a beginning, ``gateway`` one box; ``boxes`` None: those of all boxes.
        """
        column = one_time_code.c
        behind = and_(column.serial == after[0], column.revision > after[1])
        query = (
            select(one_time_code)
            .where(or_(column.serial > after[0], behind))
            .order_by(column.serial, column.revision)
            .limit(PAGE_ROWS)
        )
        if serial:
            query = query.where(column.serial >= serial, column.serial < serial + _LAST)
        if gateway:
            query = query.where(column.gateway == _box(gateway))
        if boxes is not None:
            query = query.where(column.gateway.in_(boxes))
        return [_shown(row, now_us) for row in await self._database.read(query)]


def _shown(row: Any, now_us: int) -> CodeView:
    spent, ended = row.spent_by is not None, now_us >= row.expires_at
    return CodeView(
        row.serial,
        row.alias,
        row.gateway or CENTRAL_NAME,
        "spent" if spent else "ended" if ended else "open",
        row.created_at,
        row.expires_at,
        row.revision,
    )


def _box(gateway: str) -> str:
    """Give how the table names a box: central has no name there."""
    return "" if gateway == CENTRAL_NAME else gateway


def new_code(random: Random) -> str:
    """Make a code of 100 random bits that a person can type."""
    number = int.from_bytes(random(13), "big")
    letters = [_ALPHABET[(number >> (5 * place)) & 31] for place in range(_GROUPS * _GROUP_CHARS)]
    groups = ("".join(letters[at : at + _GROUP_CHARS]) for at in range(0, 20, _GROUP_CHARS))
    return "-".join(groups)
