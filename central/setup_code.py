"""The code of the setup page: who can read a private file of this box may found its central."""

import hmac
from pathlib import Path

from central.enrollment.codes import new_code
from shared.kernel.clock import Clock
from shared.kernel.errors import ForbiddenError
from shared.kernel.ids import Random
from shared.system.files import remove, write_private
from shared.web.throttle import Throttle

_WRONG_PER_MINUTE = 10


class SetupCode:
    """A new code at each start. It stands in its file only, never in a log."""

    def __init__(self, path: Path, clock: Clock, random: Random) -> None:
        """Write the file; that of an earlier start is replaced."""
        self._path = path
        self._code = new_code(random)
        self._failures = Throttle(clock, burst=_WRONG_PER_MINUTE)
        write_private(path, f"{self._code}\n".encode(), replace=True)

    def require(self, typed: str, address: str) -> None:
        """Raise ForbiddenError for another code, ThrottledError after ten of an address."""
        self._failures.require(address)
        if not hmac.compare_digest(_compact(typed), _compact(self._code)):
            self._failures.count(address)
            raise ForbiddenError("This is not the setup code.", pointer="/code")

    def remove(self) -> None:
        """Remove the file."""
        remove(self._path)


def _compact(code: str) -> bytes:
    """Leave out what does not matter of a code that a person typed."""
    return "".join(code.split()).replace("-", "").upper().encode()
