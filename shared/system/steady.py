"""Work that never ends: repeated with pauses, not stopped by what will pass."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shared.kernel.errors import TmaError

_LOG = logging.getLogger(__name__)
_RETRY_S = 5


async def repeat(what: str, step: Callable[[], Awaitable[float]]) -> None:
    """Run ``step`` until cancelled; it gives the seconds to wait before the next time.

    An error of the family (token away, disk full) is logged and tried again; any other one is a
    defect, which ends the agent: its service starts it anew.
    """
    while True:
        try:
            pause_s = await step()
        except TmaError as error:
            _LOG.warning("%s: %s Tried again in %d s.", what, error.message, _RETRY_S)
            pause_s = _RETRY_S
        await asyncio.sleep(pause_s)
