"""Argon2id checks of requesters' passwords: off the event loop, few at once, remembered briefly."""

import asyncio
import hashlib
import hmac
from collections import OrderedDict

from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import UnavailableError
from shared.kernel.ids import Random
from shared.web.passwords import encode, matches

_AT_ONCE = 2  # each takes 64 MiB and a core
_WAITING_MAX = 32
_REMEMBERED_US = 60 * US_PER_SECOND
_REMEMBERED_MAX = 1_000


class Passwords:
    """Tells whether a password belongs to a hash."""

    def __init__(self, clock: Clock, random: Random) -> None:
        """Take clock and randomness; nothing is hashed yet."""
        self._clock = clock
        self._secret = random(32)
        self._nobody = encode(random(16).hex())  # what an unknown name is checked against
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._good: OrderedDict[bytes, int] = OrderedDict()

    async def match(self, password_hash: str | None, password: str) -> bool:
        """Check; None stands for a name that is not known and takes as long as a known one.

        Raises UnavailableError when too many wait. A right password is remembered for a minute
        (as a keyed hash, in memory only), so that a line does not pay for each device.
        """
        kept = password_hash or self._nobody
        mark = hmac.digest(self._secret, f"{kept} {password}".encode(), hashlib.sha256)
        now_us = self._clock.now().utc_us
        if now_us < self._good.get(mark, 0):
            return True
        if self._waiting >= _WAITING_MAX:
            raise UnavailableError("Too many logins at once.", retry_after_s=1)
        self._waiting += 1
        try:
            async with self._turns:
                good = await asyncio.to_thread(matches, kept, password)
        finally:
            self._waiting -= 1
        if not good or password_hash is None:
            return False
        self._good[mark] = now_us + _REMEMBERED_US
        if len(self._good) > _REMEMBERED_MAX:
            self._good.popitem(last=False)
        return True
