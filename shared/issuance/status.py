"""Revocation and CRLs: the decision is durable at once, the signature follows when it can.

A revocation never waits for the token: the ledger commits it, OCSP answers it from the database at
once, and ``run`` signs the CRL as soon as the issuing key is ready (design.md §4, *Status*).
"""

import asyncio
import contextlib
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from shared.issuance.crl_signing import CrlSigning
from shared.issuance.crls import CrlSchedule, CrlStore
from shared.issuance.ports import CertificateRecord, IssuingKeys, Ledger
from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, UnavailableError

_LOG = logging.getLogger(__name__)
_AGAIN_NS = 3600 * 1_000_000_000

#: RFC 5280 §5.3.1 reasons that a revocation may state. certificateHold is ``hold``, removeFromCRL
#: belongs to delta CRLs.
REASONS = (
    "unspecified",
    "key_compromise",
    "ca_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "privilege_withdrawn",
    "aa_compromise",
)


def require_reason(reason: str) -> None:
    """Raise BadRequestError for what is no reason of a revocation."""
    if reason not in REASONS:
        raise BadRequestError(
            f"“{reason}” is no revocation reason.",
            remedy=f"Use one of: {', '.join(REASONS)}.",
            pointer="/data/attributes/reason",
        )


@dataclass(frozen=True, slots=True)
class _Refused:
    why: str
    at_ns: int


class StatusService:
    """Revokes, holds and releases certificates, and keeps every CRL of ``ca_ids`` fresh."""

    def __init__(
        self,
        *,
        keys: IssuingKeys,
        ledger: Ledger,
        crls: CrlStore,
        clock: Clock,
        ca_ids: Sequence[str],
        schedule: CrlSchedule | None = None,
    ) -> None:
        """Take the ports and the CAs whose keys are here; ``run`` does the signing."""
        self._ledger = ledger
        self._ca_ids = list(ca_ids)
        self._schedule = schedule or CrlSchedule()
        self._crls = crls
        self._signing = CrlSigning(keys, crls, clock, self._schedule)
        self._clock = clock
        self._wanted: set[str] = set()
        self._later: set[str] | None = None  # what is wanted when ``together`` is left
        self._refused: dict[str, _Refused] = {}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good; the same call again changes nothing.

        Raises BadRequestError (unknown reason), NotFoundError, UnavailableError.
        """
        require_reason(reason)
        record = await self._ledger.revoke(ca_id, serial, reason, actor)
        self.request_crl(ca_id)
        return record

    async def hold(self, ca_id: str, serial: str, hold_id: str, actor: str) -> CertificateRecord:
        """Suspend a certificate under a hold id of the caller's choice; idempotent per id."""
        record = await self._ledger.hold(ca_id, serial, hold_id, actor)
        self.request_crl(ca_id)
        return record

    async def release_hold(
        self, ca_id: str, serial: str, hold_id: str, actor: str
    ) -> CertificateRecord:
        """Release one hold id; other holds stay in force."""
        record = await self._ledger.release_hold(ca_id, serial, hold_id, actor)
        self.request_crl(ca_id)
        return record

    @property
    def ca_ids(self) -> Sequence[str]:
        """The CAs whose CRLs are signed here."""
        return self._ca_ids

    def add_ca(self, ca_id: str) -> None:
        """Keep this CA's CRL fresh too, starting with an (empty) one at once."""
        if ca_id not in self._ca_ids:
            self._ca_ids.append(ca_id)
        self.request_crl(ca_id)

    def request_crl(self, ca_id: str) -> None:
        """Ask for a fresh CRL soon; many requests become one CRL. Ignored for foreign CAs."""
        if ca_id in self._ca_ids:
            self._wanted.add(ca_id)
            self._wake.set()

    def before_commit(self, changed: Sequence[tuple[str, str]]) -> None:
        """Do nothing yet (``shared.store.transaction.StatusWatch``)."""

    def after_commit(self, changed: Sequence[tuple[str, str]]) -> None:
        """Ask for fresh CRLs, whoever changed a status; called on the writer's thread."""
        for ca_id in {ca_id for ca_id, _ in changed}.intersection(self._ca_ids):
            self._loop.call_soon_threadsafe(self._follow, ca_id)

    def _follow(self, ca_id: str) -> None:
        if self._later is None:
            self.request_crl(ca_id)
        else:
            self._later.add(ca_id)

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """Put the CRLs off that follow from commits until the context is left: one for all.

        Who revokes thousands in small commits would otherwise have each CA sign many CRLs, the
        size of each growing. What is asked for by ``request_crl`` is not put off. One at a time.
        """
        self._later = set()
        try:
            yield
        finally:
            wanted, self._later = self._later, None
            for ca_id in wanted:
                self.request_crl(ca_id)

    async def sign_crl(self, ca_id: str) -> bytes:
        """Sign and publish a complete CRL now (see ``CrlSigning.sign``)."""
        der = await self._signing.sign(ca_id)
        self._refused.pop(ca_id, None)
        return der

    async def sign_news(self, ca_id: str) -> None:
        """Publish what changed now, as ``run`` does (see ``CrlSigning.sign_news``)."""
        await self._signing.sign_news(ca_id)
        self._refused.pop(ca_id, None)

    @property
    def refusals(self) -> Mapping[str, str]:
        """By CA, why its CRL is not signed although its key is there: a person must act."""
        return {ca_id: refused.why for ca_id, refused in self._refused.items()}

    async def run(self) -> None:
        """Sign what is due or wanted, until cancelled. What fails is tried again, not dropped.

        What was refused, as a CRL that is too large, is tried again each hour: that costs much,
        and only people can change it.
        """
        while True:
            await self._want_what_is_due()
            wanted = [ca_id for ca_id in sorted(self._wanted) if not self._lately_refused(ca_id)]
            failed = [ca_id for ca_id in wanted if not await self._tried(ca_id)]
            if failed:
                await asyncio.sleep(self._schedule.retry_s)
            else:
                await self._wait_for_want(min(60, self._schedule.interval_s))

    async def _wait_for_want(self, longest_s: float) -> None:
        # Else a revocation came in while another CRL was signed.
        if all(self._lately_refused(ca_id) for ca_id in self._wanted):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), longest_s)

    async def _tried(self, ca_id: str) -> bool:
        self._wanted.discard(ca_id)  # before the entries are read: a later revocation asks again
        try:
            await self.sign_news(ca_id)
        except UnavailableError as error:
            _LOG.warning("The CRL of CA %s is not signed yet: %s", ca_id, error.message)
            self._wanted.add(ca_id)
            return False
        except NotFoundError:  # it was deleted, and its key with it
            self._ca_ids.remove(ca_id)
        except TmaError as error:
            self._wanted.add(ca_id)
            await self._refuse(ca_id, error)
        return True

    async def _refuse(self, ca_id: str, error: TmaError) -> None:
        """Remember why, and tell central: it would notice by the age of the CRL only."""
        before, now_ns = self._refused.get(ca_id), self._clock.now().mono_ns
        self._refused[ca_id] = _Refused(error.message, now_ns)
        if before is None:
            _LOG.error("The CRL of CA %s cannot be signed: %s", ca_id, error.message)
            await self._crls.note_refusal(ca_id, error.message)

    def _lately_refused(self, ca_id: str) -> bool:
        refused = self._refused.get(ca_id)
        return refused is not None and self._clock.now().mono_ns - refused.at_ns < _AGAIN_NS

    async def _want_what_is_due(self) -> None:
        due = await self._signing.due(tuple(self._ca_ids), news=self._later is None)
        self._wanted.update(due)
