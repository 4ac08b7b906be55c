"""Revocation by query: many certificates by one order, resumable, without holding others up.

An order becomes a durable *operation*. It is carried out in small commits, each of which revokes a
few certificates, tells the other side of them and moves the operation's position; enrollments get
their turn between them. After a crash it goes on from its position, so each is revoked once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from shared.issuance.revocation_orders import Estimate, Operation, Wanted
from shared.issuance.status import StatusService, require_reason
from shared.kernel.errors import NotFoundError
from shared.pki import crl

#: Certificates per commit: few, because enrollments wait for it.
BATCH = 25
_LOOK_S = 30.0


class Place(NamedTuple):
    """One certificate that is to be revoked; ``id`` is its row."""

    id: int
    ca_id: str
    serial: str


class Listed(NamedTuple):
    """How many of a CA's certificates are meant, and the bytes of its present CRL."""

    ca_id: str
    certificates: int
    crl_bytes: int


class Operations(Protocol):
    """What storage does for it."""

    async def count(self, wanted: Wanted) -> Sequence[Listed]:
        """Count by CA what the order means now."""
        ...

    async def begin(
        self, operation_id: str, wanted: Wanted, found: int, *, waits: bool
    ) -> Operation:
        """Accept the order, which ``waits`` perhaps; give the one that has this id if it is equal.

        Raises KeyReusedError when it is another one.
        """
        ...

    async def find(self, operation_id: str) -> Operation | None:
        """Find an operation."""
        ...

    async def running(self) -> Sequence[Operation]:
        """Give those that are not at their end, oldest first."""
        ...

    async def following(self, operation: Operation) -> tuple[Sequence[Place], int]:
        """Give what comes next behind the position, and up to which row this looked."""
        ...

    async def revoke(
        self, operation: Operation, places: Sequence[Place], position: int
    ) -> Operation | None:
        """Revoke these and move the position, in one commit; None if it is not running any more.

        At the last row it is done.
        """
        ...

    async def cancel(self, operation_id: str) -> None:
        """End an operation that waits or runs; what it revoked stays revoked."""
        ...


class MassRevocation:
    """Accepts orders; ``step`` carries them out in the background."""

    def __init__(
        self,
        operations: Operations,
        status: StatusService,
        changed: Callable[[], None],
        ask: Callable[[Operation], Awaitable[None]] | None = None,
    ) -> None:
        """Take the storage, what signs CRLs, and who must hear that certificates were revoked.

        With ``ask`` each order waits until whom that asks has released it in the storage.
        """
        self._operations = operations
        self._status = status
        self._changed = changed
        self._ask = ask
        self._wake = asyncio.Event()

    async def estimate(self, wanted: Wanted) -> list[Estimate]:
        """Say what an order would do; nothing is changed. Raises BadRequestError (reason)."""
        require_reason(wanted.reason)
        entry_bytes = crl.entry_bytes(wanted.reason)
        return [
            Estimate(one.ca_id, one.certificates, one.crl_bytes + one.certificates * entry_bytes)
            for one in await self._operations.count(wanted)
        ]

    async def begin(self, operation_id: str, wanted: Wanted) -> Operation:
        """Accept an order durably; the same id with the same order gives the same operation.

        Raises BadRequestError (reason), KeyReusedError.
        """
        found = sum(one.certificates for one in await self.estimate(wanted))
        waits = self._ask is not None
        operation = await self._operations.begin(operation_id, wanted, found, waits=waits)
        if self._ask is not None and operation.state == "waiting":
            await self._ask(operation)
        self.resume()
        return operation

    def resume(self) -> None:
        """Look for what may run now."""
        self._wake.set()

    async def find(self, operation_id: str) -> Operation:
        """Find an operation; raises NotFoundError."""
        found = await self._operations.find(operation_id)
        if found is None:
            raise NotFoundError("There is no such operation.")
        return found

    async def cancel(self, operation_id: str) -> Operation:
        """Stop an operation where it is; raises NotFoundError."""
        await self._operations.cancel(operation_id)
        return await self.find(operation_id)

    async def step(self) -> float:
        """Carry out what was accepted, then wait for more; give the seconds to the next call."""
        self._wake.clear()
        for operation in await self._operations.running():
            await self._carry_out(operation)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), _LOOK_S)
        return 0

    async def _carry_out(self, operation: Operation) -> None:
        """Go on from the position to the end. Its CRLs are signed then: OCSP knows at once."""
        left: Operation | None = operation
        with self._status.together():
            while left is not None and left.state == "running":
                places, looked = await self._operations.following(left)
                left = await self._revoke(left, places, looked)
                self._changed()

    async def _revoke(
        self, operation: Operation, places: Sequence[Place], looked: int
    ) -> Operation | None:
        """Revoke these in small commits; None when the operation was ended meanwhile."""
        left: Operation | None = operation
        cut = [places[at : at + BATCH] for at in range(0, len(places), BATCH)] or [()]
        for batch in cut:
            reached = looked if batch is cut[-1] else batch[-1].id
            left = await self._operations.revoke(left, batch, reached) if left else None
            await asyncio.sleep(0)
        return left
