"""Follows the token: hsmd is asked twice a second, changes become events and wake what waited."""

import logging
from collections.abc import Awaitable, Callable

from gateway.issuing import Authorities
from gateway.snapshot import TokenState, TokenView
from shared.hsm.client import HsmClient
from shared.kernel.errors import TmaError
from shared.store.database import Database
from shared.store.transaction import Transaction

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_STATES = {
    "ready": TokenState.READY,
    "settling": TokenState.STARTING,
    "login": TokenState.STARTING,
    "verify": TokenState.STARTING,
    "foreign": TokenState.FOREIGN,
    "pin_blocked": TokenState.LOCKED,
}


class TokenWatch:
    """Keeps ``authorities.token`` true."""

    def __init__(
        self,
        *,
        client: HsmClient,
        authorities: Authorities,
        database: Database,
        on_ready: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what is called each time the token became ready: to finish what its loss cut off."""
        self._client = client
        self._authorities = authorities
        self._database = database
        self._on_ready = on_ready

    async def step(self) -> float:
        """Ask once and take the answer over; gives the seconds until the next look."""
        seen = await self._state()
        before, self._authorities.token = self._authorities.token, seen
        if seen.state is not before.state:
            _LOG.info("The token is %s. %s", seen.state.value, seen.detail)
            await self._tell(seen)
            if seen.state is TokenState.READY:
                await self._on_ready()
        return _POLL_S

    async def _state(self) -> TokenView:
        try:
            state = await self._client.state()
        except TmaError as error:
            return TokenView(TokenState.ABSENT, error.message)
        shown = f"{state.token}, serial {state.serial}" if state.ready else state.sentence
        return TokenView(_STATES.get(state.state, TokenState.ABSENT), shown)

    async def _tell(self, seen: TokenView) -> None:
        body = {"state": seen.state.value, "detail": seen.detail}

        def unit(transaction: Transaction) -> None:
            transaction.emit("token.changed", body, actor="system")

        await self._database.writer.run(unit)
