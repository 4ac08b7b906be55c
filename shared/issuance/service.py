"""The second room of an enrollment: the only one that calls the others.

Decide, intend, sign, compare, complete (design.md §3). An intent is durable before the key is
used, and nothing leaves before the completion is durable: a crash between any two steps neither
loses a certificate nor issues one that nobody remembers.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.issuance.ports import (
    CertificateRecord,
    Devices,
    Intent,
    IssuingKey,
    IssuingKeys,
    Ledger,
    Priority,
    Profiles,
    Purpose,
)
from shared.kernel import cbor, limits
from shared.kernel.clock import US_PER_SECOND, Clock, Instant
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    TmaError,
    TokenUnavailableError,
    UnavailableError,
)
from shared.kernel.ids import Random, random_serial, serial_text, uuid7
from shared.pki import certificates
from shared.pki.plan import Plan
from shared.policy.decide import Circumstances, Decision, Refusal, decide, explain
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest, Operation

#: How long an equal request is answered with the same certificate: without and with a key.
IMPLICIT_REPLAY_US = 24 * 3600 * US_PER_SECOND
EXPLICIT_REPLAY_US = 30 * 24 * 3600 * US_PER_SECOND


@dataclass(frozen=True, slots=True)
class Issued:
    """What a front end encodes; ``replayed`` tells that an earlier request got it."""

    der: bytes
    ca_id: str
    serial: str
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Identity:
    """What makes two requests the same."""

    key: str
    content: bytes
    replay_us: int


class IssuanceService:
    """Issues certificates; every protocol of both products ends in ``issue``."""

    def __init__(
        self,
        *,
        profiles: Profiles,
        keys: IssuingKeys,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        devices: Devices | None = None,
    ) -> None:
        """Take the ports; nothing is read or started here. ``devices`` None: none are known."""
        self._profiles = profiles
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._devices = devices
        self._running: dict[str, asyncio.Task[Issued]] = {}
        self._live: set[str] = set()  # intents that a task of this process works on

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate, or give the one that an equal request got.

        Raises RefusedError (a rule says no), KeyReusedError, InProgressError, ConflictError,
        UnavailableError and its kin (nothing was issued: try again), IntegrityError.

        Equal requests that arrive together share one task, shielded from a client that hangs up:
        what was begun is finished, and the retry finds it.
        """
        identity = _identify(request)
        shared_key = f"{identity.key}:{identity.content.hex()}"
        task = self._running.get(shared_key)
        if task is None:
            if len(self._running) >= limits.CONCURRENT_ISSUES_MAX:
                raise UnavailableError("Too many enrollments at once.", retry_after_s=1)
            task = asyncio.get_running_loop().create_task(self._issue(request, identity))
            self._running[shared_key] = task
            task.add_done_callback(lambda done: self._forget(shared_key, done))
        return await asyncio.shield(task)

    async def issue_many(self, requests: Sequence[EnrollmentRequest]) -> list[Issued | TmaError]:
        """Issue up to 1,000 certificates, each for itself: one refusal stops no other."""
        if len(requests) > limits.BATCH_REQUESTS_MAX:
            raise BadRequestError(
                f"The batch holds {len(requests)} requests; "
                f"at most {limits.BATCH_REQUESTS_MAX} are accepted."
            )
        results = await asyncio.gather(*map(self.issue, requests), return_exceptions=True)
        return [_expected(result) for result in results]

    async def explain(self, request: EnrollmentRequest) -> Decision:
        """Say what would become of the request now, rule by rule; nothing is issued or spent.

        Raises NotFoundError (no such profile), UnavailableError (nothing can be issued now).
        """
        request = await self._with_record(request)
        profile, circumstances = self._facing(request, self._clock.now())
        return explain(profile, self._profiles.grant(), request, circumstances)

    async def recover(self) -> tuple[int, int]:
        """Finish or void the open intents that no task of this process works on.

        Call before the first request is accepted, and again after the token came back: its signer
        may have died between signing and answering. Gives the numbers of (finished, voided).
        Signing the identical TBS again is allowed; what is voided counts as signed, because
        nobody can know. Raises UnavailableError while the token is not ready.
        """
        abandoned = {
            intent.intent_id: intent
            for intent in await self._ledger.open_intents()
            if intent.intent_id not in self._live
        }
        if not abandoned:
            return 0, 0
        self._live |= abandoned.keys()
        try:
            # Read again: a task may have ended between the first read and the look at ``_live``.
            still_open = {intent.intent_id for intent in await self._ledger.open_intents()}
            reasons = [
                await self._finish_again(intent)
                for name, intent in abandoned.items()
                if name in still_open
            ]
        finally:
            self._live -= abandoned.keys()
        return reasons.count(None), len(reasons) - reasons.count(None)

    async def drained(self) -> None:
        """Wait for what is under way; used at shutdown after the listeners are closed."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _issue(self, request: EnrollmentRequest, identity: _Identity) -> Issued:
        request = await self._with_record(request)
        now = self._clock.now()
        plan = self._decide(request, now)
        if isinstance(plan, Refusal):
            return await self._refuse(request, identity, plan, now)
        key = self._keys.active(request.profile)
        intent = self._intent(request, identity, plan, key, now)
        self._live.add(intent.intent_id)
        try:
            earlier = await self._ledger.intend(intent)
            if earlier is not None:
                return _replayed(earlier)
            return await self._sign_and_complete(intent, key, _priority(request))
        finally:
            self._live.discard(intent.intent_id)

    async def _sign_and_complete(
        self, intent: Intent, key: IssuingKey, priority: Priority
    ) -> Issued:
        try:
            signature = await self._sign(intent, key, priority)
        except (TokenUnavailableError, ForbiddenError):
            await self._ledger.release(intent)  # the signer surely did not sign
            raise
        try:
            return await self._complete(intent, key, signature)
        except IntegrityError:
            await self._ledger.void(intent, "the signature does not belong to the issuing CA")
            raise
        except ConflictError:
            await self._ledger.void(intent, "the CA or the line was stopped meanwhile")
            raise

    async def _finish_again(self, intent: Intent) -> str | None:
        """Decide and finish what was left open, or void it and give the reason."""
        reason = await self._obstacle(intent)
        if reason is not None:
            await self._ledger.void(intent, reason)
        return reason

    async def _obstacle(self, intent: Intent) -> str | None:
        """Finish an intent; give what keeps it from being finished for good."""
        outcome = self._decide(intent.request, self._clock.now())
        if isinstance(outcome, Refusal):
            return outcome.message
        try:
            key = self._keys.of(intent.ca_id)
            signature = await self._sign(intent, key, Priority.RENEWAL)
            await self._complete(intent, key, signature)
        except (ConflictError, ForbiddenError, IntegrityError, NotFoundError) as error:
            return error.message
        return None

    async def _sign(self, intent: Intent, key: IssuingKey, priority: Priority) -> bytes:
        purpose = Purpose.LEAF if intent.plan.ca_path_length is None else Purpose.CA
        return await key.sign(intent.tbs, purpose, priority=priority, reference=intent.intent_id)

    async def _complete(self, intent: Intent, key: IssuingKey, signature: bytes) -> Issued:
        """Compare (``assemble`` verifies signature and TBS), then release the one DER."""
        der = certificates.assemble(intent.tbs, signature, key.issuer)
        record = await self._ledger.complete(intent, der)
        return Issued(der, record.ca_id, record.serial, replayed=False)

    async def _with_record(self, request: EnrollmentRequest) -> EnrollmentRequest:
        """Add what is known of the device: rules may demand it, and take values from it."""
        if self._devices is None or request.device is None:
            return request
        record = await self._devices.record(request.device)
        return request if record is None else replace(request, record=record)

    def _decide(self, request: EnrollmentRequest, now: Instant) -> Plan | Refusal:
        profile, circumstances = self._facing(request, now)
        return decide(profile, self._profiles.grant(), request, circumstances)

    def _facing(self, request: EnrollmentRequest, now: Instant) -> tuple[Profile, Circumstances]:
        """Give the rules in force and what the decision depends on."""
        issuer = self._keys.active(request.profile).issuer
        circumstances = Circumstances(
            now=now,
            issuer=issuer.limits,
            last_contact_us=self._profiles.last_contact_us(),
            ca_id=issuer.ca_id,
            path_length=issuer.path_length,
            rules=self._profiles.rules(),
        )
        return self._profiles.profile(request.profile), circumstances

    async def _refuse(
        self, request: EnrollmentRequest, identity: _Identity, refusal: Refusal, now: Instant
    ) -> Issued:
        """Hand out what an equal request got while the rules still allowed it; else say no."""
        earlier = await self._ledger.replay(identity.key, identity.content, now.utc_us)
        if earlier is not None:
            return _replayed(earlier)
        await self._ledger.refuse(request, refusal.rule, refusal.value, refusal.message)
        raise RefusedError(refusal.rule, refusal.value, refusal.message, refusal.remedy)

    def _intent(
        self,
        request: EnrollmentRequest,
        identity: _Identity,
        plan: Plan,
        key: IssuingKey,
        now: Instant,
    ) -> Intent:
        serial = random_serial(self._random)
        grant = self._profiles.grant()
        return Intent(
            intent_id=uuid7(now, self._random),
            serial=serial_text(serial),
            ca_id=key.issuer.ca_id,
            tbs=certificates.unsigned(plan, key.issuer, serial),
            plan=plan,
            request=request,
            idempotency_key=identity.key,
            request_hash=identity.content,
            replay_until_us=now.utc_us + identity.replay_us,
            grant_id=grant.grant_id if grant else None,
            decided_at=now,
        )

    def _forget(self, shared_key: str, done: asyncio.Task[Issued]) -> None:
        self._running.pop(shared_key, None)
        if not done.cancelled():
            done.exception()  # retrieved: whoever waited has it, nobody else needs it


def explicit_key(sent: str) -> str:
    """Give the ledger's key for a key that a client sent (scoped to principal and route)."""
    return f"k:{sent}"


def _identify(request: EnrollmentRequest) -> _Identity:
    """Compute what makes a retry equal: design.md §3, *Idempotency key*."""
    content = hashlib.sha256(cbor.encode(_requested_content(request))).digest()
    if request.idempotency_key is not None:
        return _Identity(explicit_key(request.idempotency_key), content, EXPLICIT_REPLAY_US)
    scope = [
        request.principal,
        request.alias,
        request.operation.value,
        list(request.replaces or ()),
        request.public_key,
        content,
    ]
    return _Identity(
        f"c:{hashlib.sha256(cbor.encode(scope)).hexdigest()}", content, IMPLICIT_REPLAY_US
    )


def _requested_content(request: EnrollmentRequest) -> cbor.CborValue:
    return [
        request.operation.value,
        request.alias,
        request.profile,
        request.public_key,
        [[attribute.oid, attribute.value] for attribute in request.subject],
        [[name.kind.value, name.value] for name in request.alt_names],
        request.device_id,
        request.validity_days,
        dict(request.metadata),
        list(request.replaces or ()),
        request.test,
    ]


def _priority(request: EnrollmentRequest) -> Priority:
    return Priority.RENEWAL if request.operation is Operation.RENEW else Priority.LINE


def _replayed(record: CertificateRecord) -> Issued:
    if record.der is None:
        raise ConflictError("The certificate of this earlier request was voided.")
    return Issued(record.der, record.ca_id, record.serial, replayed=True)


def _expected(result: Issued | BaseException) -> Issued | TmaError:
    """Pass what a requester may see; anything else is a defect and must surface."""
    if isinstance(result, Issued | TmaError):
        return result
    raise result
