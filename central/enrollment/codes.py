"""One-time codes: made for devices in bulk, shown once, kept as hashes, bound to one box each."""

from collections.abc import Sequence
from typing import NamedTuple

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
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME

#: Fact: counts the codes that were made; each has its number as revision.
REVISION = "code_revision"
CODES_MAX = 10_000
_DAY_US = 24 * 3600 * US_PER_SECOND
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing that looks like another
_GROUPS, _GROUP_CHARS = 4, 5


class DeviceCode(NamedTuple):
    """A code in clear text, for the one who hands it to the device."""

    serial: str
    code: str


class Codes:
    """Makes one-time codes."""

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
        made = [DeviceCode(serial, self._text()) for serial in serials]
        box = "" if gateway == CENTRAL_NAME else gateway

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

    def _text(self) -> str:
        number = int.from_bytes(self._random(13), "big")
        letters = [
            _ALPHABET[(number >> (5 * place)) & 31] for place in range(_GROUPS * _GROUP_CHARS)
        ]
        groups = ("".join(letters[at : at + _GROUP_CHARS]) for at in range(0, 20, _GROUP_CHARS))
        return "-".join(groups)
