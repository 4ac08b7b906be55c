"""Single commands of central: done now or, once their time has passed, not at all."""

from collections.abc import Awaitable, Callable, Mapping

from gateway.standing_orders import Order, StandingOrders
from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, ConflictError
from shared.store.database import Database
from shared.store.transaction import Transaction, Unit

_CHECK_S = 1


class Errands:
    """Runs what central orders by name; every command bears to be run twice."""

    def __init__(
        self,
        *,
        commands: Mapping[str, Callable[[], Awaitable[None]]],
        database: Database,
        clock: Clock,
    ) -> None:
        """Take the commands by name."""
        self._commands = commands
        self._clock = clock
        self._orders = StandingOrders("command", database, once=True)

    async def step(self) -> float:
        """Run what waits and tell central what became of it; gives the next pause."""
        await self._orders.obey(self._run)
        return _CHECK_S

    async def _run(self, order: Order) -> Unit[None]:
        name: str = order.body["command"]
        if self._clock.now().utc_us >= order.body["not_after_us"]:
            raise ConflictError(f"The command {name} came after its time and was not run.")
        command = self._commands.get(name)
        if command is None:
            raise BadRequestError(f"This version does not know the command {name}.")
        await command()
        return _nothing_more


def _nothing_more(transaction: Transaction) -> None:
    del transaction
