"""Every refusal leaves a trace: what never reached the issuance core is written down here."""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from shared.kernel.errors import Kind, RefusedError, TmaError
from shared.policy.request import EnrollmentRequest, Operation
from shared.web.access_log import PRINCIPAL
from shared.web.throttle import Throttle, ThrottledError

_LOG = logging.getLogger(__name__)
_ANONYMOUS = "anonymous"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusals(Protocol):
    """Where a refusal that never reached the issuance core becomes an event (the ledger)."""

    async def refuse(self, request: EnrollmentRequest, rule: str, value: str, why: str) -> None:
        """Emit ``enrollment.refused``."""
        ...


class Refusing:
    """Emits ``enrollment.refused`` for requests that are refused at the door."""

    def __init__(self, protocol: str, refusals: Refusals, anonymous: Throttle) -> None:
        """Take the ledger's door, and how many refusals of strangers are worth an event.

        Whoever has no credential must not be able to fill the outbox; the access log has the rest.
        """
        self._protocol = protocol
        self._refusals = refusals
        self._anonymous = anonymous

    def around(self, handler: Handler) -> Handler:
        """Record what the handler refuses, and raise it on."""

        async def recording(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except TmaError as error:
                await self.record(error, request.get(PRINCIPAL), "")
                raise

        return recording

    async def record(self, error: TmaError, principal: str | None, profile: str) -> None:
        """Record one refusal; what the issuance core refused is an event already."""
        if error.kind is Kind.RETRYABLE or isinstance(error, RefusedError | ThrottledError):
            return
        try:
            if principal is None:
                self._anonymous.require(_ANONYMOUS)
                self._anonymous.count(_ANONYMOUS)
            await self._refusals.refuse(
                self._request(principal or _ANONYMOUS, profile), error.code, "", error.message
            )
        except TmaError as failure:
            _LOG.warning("A refusal is not recorded: %s (%s)", failure.message, error.message)

    def _request(self, principal: str, profile: str) -> EnrollmentRequest:
        """Stand for a request that could not be read."""
        return EnrollmentRequest(
            operation=Operation.ENROLL,
            protocol=self._protocol,
            alias=self._protocol,
            profile=profile,
            principal=principal,
            public_key=b"",
            subject=(),
        )
