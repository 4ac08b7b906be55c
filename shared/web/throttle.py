"""A bound on failures per peer address, so that guessing and probing stay cheap for us."""

from collections import OrderedDict

from shared.kernel.clock import Clock
from shared.kernel.errors import TmaError

_ADDRESSES_MAX = 10_000
_NS_PER_SECOND = 1_000_000_000


class ThrottledError(TmaError):
    """Wait as long as Retry-After says, then try with a valid token or certificate."""

    code, http_status = "too-many-failures", 429


class Throttle:
    """Allows ``burst`` failures per address at once and ``burst`` more per ``period_s`` seconds."""

    def __init__(self, clock: Clock, *, burst: int = 20, period_s: float = 60) -> None:
        """Take the clock and the limit."""
        self._clock = clock
        self._burst = burst
        self._refill_ns = period_s * _NS_PER_SECOND / burst
        self._full_at_ns: OrderedDict[str, float] = OrderedDict()

    def require(self, address: str) -> None:
        """Raise ThrottledError while the address has used up its failures."""
        debt_ns = self._full_at_ns.get(address, 0) - self._clock.now().mono_ns
        wait_ns = debt_ns - (self._burst - 1) * self._refill_ns
        if wait_ns > 0:
            raise ThrottledError(
                "Too many failed attempts came from this address.",
                retry_after_s=wait_ns / _NS_PER_SECOND,
            )

    def allows(self, address: str) -> bool:
        """Tell whether ``require`` would let the address pass."""
        try:
            self.require(address)
        except ThrottledError:
            return False
        return True

    def count(self, address: str) -> None:
        """Book one failure; the address that failed longest ago makes room."""
        now_ns = self._clock.now().mono_ns
        self._full_at_ns[address] = max(self._full_at_ns.get(address, 0), now_ns) + self._refill_ns
        self._full_at_ns.move_to_end(address)
        if len(self._full_at_ns) > _ADDRESSES_MAX:
            self._full_at_ns.popitem(last=False)
