"""The last enrollments as the technician sees them: what was issued, and what failed and why."""

from collections import deque
from collections.abc import Sequence

from gateway.snapshot import RecentView
from shared.issuance.service import IssuanceService, Issued
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import PendingError, TmaError
from shared.policy.decide import Decision
from shared.policy.request import EnrollmentRequest
from shared.store.reads import Reads

_ROWS = 10
_FAILURES_MAX = 5
#: A failure leaves the page after this time: by then it was seen, or nobody is there.
_FAILURE_US = 3600 * US_PER_SECOND


class WatchedIssuance:
    """The issuance service, remembering the last failures with the reason in plain words."""

    def __init__(self, service: IssuanceService, reads: Reads, clock: Clock) -> None:
        """Take the service that does the work."""
        self._service = service
        self._reads = reads
        self._clock = clock
        self._failures: deque[RecentView] = deque(maxlen=_FAILURES_MAX)

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate; see ``IssuanceService.issue``."""
        try:
            return await self._service.issue(request)
        except PendingError:  # nothing failed
            raise
        except TmaError as error:
            self._note(request, error)
            raise

    async def explain(self, request: EnrollmentRequest) -> Decision:
        """Decide and give the verdict of each rule; see ``IssuanceService.explain``."""
        return await self._service.explain(request)

    async def issue_many(self, requests: Sequence[EnrollmentRequest]) -> list[Issued | TmaError]:
        """Issue each for itself; see ``IssuanceService.issue_many``."""
        results = await self._service.issue_many(requests)
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, TmaError) and not isinstance(result, PendingError):
                self._note(request, result)
        return results

    async def rows(self) -> tuple[RecentView, ...]:
        """Give ten rows: failures of the last hour first, then the newest certificates."""
        oldest_us = self._clock.now().utc_us - _FAILURE_US
        failures = [view for view in self._failures if view.at_us > oldest_us]
        issued = await self._reads.search({}, None, 0, _ROWS)
        views = [
            RecentView(
                row.issued_at_us,
                row.device_id or row.subject_cn or "",
                row.profile or "",
                row.protocol or "",
                ok=row.state == "issued",
                why="" if row.state == "issued" else "voided after a crash",
            )
            for row in issued
        ]
        return (*failures, *views)[:_ROWS]

    def _note(self, request: EnrollmentRequest, error: TmaError) -> None:
        named = next((attribute.value for attribute in request.subject), "")
        view = RecentView(
            self._clock.now().utc_us,
            request.device_id or named,
            request.profile,
            request.protocol,
            ok=False,
            why=error.message,
        )
        self._failures.appendleft(view)
