"""The second room of an enrollment: the only one that calls the others.

Decide, intend, sign, compare, complete (design.md §3). An intent is durable before the key is
used, and nothing leaves before the completion is durable: a crash between any two steps neither
loses a certificate nor issues one that nobody remembers.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.issuance.ports import (
    CertificateRecord,
    Devices,
    Forward,
    Forwards,
    Intent,
    IssuingKey,
    IssuingKeys,
    Ledger,
    Priority,
    Profiles,
    Purpose,
)
from shared.issuance.retries import Identity, identify
from shared.kernel import limits
from shared.kernel.clock import Clock, Instant
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
from shared.policy.grant import Grant
from shared.policy.profile import Mode, Profile
from shared.policy.request import INTERNAL, EnrollmentRequest, Operation

_OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
#: Requests that come together share their commits; so many, that none of them waits long.
_GROUP_MAX = 32


@dataclass(frozen=True, slots=True)
class Issued:
    """What a front end encodes; ``replayed`` tells that an earlier request got it."""

    der: bytes
    ca_id: str
    serial: str
    replayed: bool


@dataclass(slots=True, eq=False)
class _Wish:
    """One request under way; equal ones that come meanwhile wait for the same result."""

    request: EnrollmentRequest
    identity: Identity
    result: Issued | BaseException | None = None
    _waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def finish(self, result: Issued | BaseException) -> None:
        """Set the result; the first one stays."""
        if self.result is None:
            self.result = result
            for waiter in self._waiters:
                if not waiter.done():  # its requester was cancelled
                    waiter.set_result(None)

    async def finished(self) -> Issued | BaseException:
        """Wait for the result; whoever is cancelled meanwhile stops waiting, and nothing else."""
        if self.result is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        assert self.result is not None
        return self.result


@dataclass(frozen=True, slots=True)
class _Opened:
    """A wish whose intent is, or is about to be, committed."""

    wish: _Wish
    intent: Intent
    key: IssuingKey


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
        forwards: Forwards | None = None,
        grant_of: Callable[[str], Grant] | None = None,
    ) -> None:
        """Take the ports; nothing is read or started here. ``devices`` None: none are known.

        ``forwards`` takes requests that another box signs; without it, all is signed here.
        ``grant_of`` gives the grant of a gateway that forwards; raises RefusedError.
        """
        self._profiles = profiles
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._devices = devices
        self._forwards = forwards
        self._grant_of = grant_of
        self._running: dict[tuple[str, bytes], _Wish] = {}
        self._arrived: list[_Wish] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._live: set[str] = set()  # intents that a task of this process works on

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate, or give the one that an equal request got.

        Raises RefusedError (a rule says no), PendingError (it waits for central), KeyReusedError,
        InProgressError, ConflictError, UnavailableError and its kin (nothing was issued: try
        again), IntegrityError.

        Equal requests that arrive together share one result. What was begun is finished also when
        the client hangs up: the retry finds it.
        """
        result = await self._begin(request).finished()
        if isinstance(result, BaseException):
            raise result
        return result

    async def issue_many(self, requests: Sequence[EnrollmentRequest]) -> list[Issued | TmaError]:
        """Issue up to 1,000 certificates, each for itself: one refusal stops no other."""
        if len(requests) > limits.BATCH_REQUESTS_MAX:
            raise BadRequestError(
                f"The batch holds {len(requests)} requests; "
                f"at most {limits.BATCH_REQUESTS_MAX} are accepted."
            )
        wishes = [self._begin(request) for request in requests]
        return [_expected(await wish.finished()) for wish in wishes]

    async def explain(self, request: EnrollmentRequest) -> Decision:
        """Say what would become of the request now, rule by rule; nothing is issued or spent.

        Raises NotFoundError (no such profile), UnavailableError (nothing can be issued now).
        """
        request = await self._with_record(request)
        profile, circumstances = self._facing(request, self._clock.now())
        return explain(profile, self._grant(request), request, circumstances)

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
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, request: EnrollmentRequest) -> _Wish:
        """Join an equal request that is under way, or set out with what this turn brings."""
        identity = identify(request)
        known = self._running.get((identity.key, identity.content))
        if known is not None:
            return known
        wish = _Wish(request, identity)
        if len(self._running) >= limits.CONCURRENT_ISSUES_MAX:
            wish.finish(UnavailableError("Too many enrollments at once.", retry_after_s=1))
            return wish
        self._running[identity.key, identity.content] = wish
        self._arrived.append(wish)
        if len(self._arrived) == 1:
            self._spawn(self._issue_arrived())
        return wish

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what must be finished also when its requester is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _issue_arrived(self) -> None:
        group, self._arrived = self._arrived[:_GROUP_MAX], self._arrived[_GROUP_MAX:]
        if self._arrived:
            self._spawn(self._issue_arrived())
        await self._settled(group, self._issue_group(group))

    async def _settled(self, wishes: Sequence[_Wish], work: Coroutine[Any, Any, None]) -> None:
        """Do the work; if it fails as a whole, that is the result of what is not finished yet."""
        try:
            await work
        except BaseException as error:  # whoever waits must get an answer
            for wish in wishes:
                self._finish(wish, error)
            if not isinstance(error, Exception):
                raise

    def _finish(self, wish: _Wish, result: Issued | BaseException) -> None:
        self._running.pop((wish.identity.key, wish.identity.content), None)
        wish.finish(result)

    async def _issue_group(self, group: Sequence[_Wish]) -> None:
        """Decide on each, open all intents in one commit, and go on with what was opened."""
        if self._devices is not None:
            await asyncio.gather(*(self._add_record(wish) for wish in group))
        now = self._clock.now()
        opened: list[_Opened] = []
        for wish in group:
            try:
                outcome = self._decide(wish.request, now)
                if isinstance(outcome, Refusal):
                    self._spawn(self._settled([wish], self._refuse(wish, outcome, now)))
                    continue
                if (forwards := self._forwarding(wish.request)) is not None:
                    self._spawn(self._settled([wish], self._forward(wish, outcome, forwards)))
                    continue
                key = self._keys.active(wish.request.profile)
                opened.append(_Opened(wish, self._intent(wish, outcome, key, now), key))
            except Exception as error:  # noqa: BLE001 - raised again to whoever waits
                self._finish(wish, error)
        if opened:
            await self._open_and_go_on(opened)

    async def _open_and_go_on(self, opened: Sequence[_Opened]) -> None:
        """Commit the intents; sign one after the other, or at once where each one waits."""
        names = {one.intent.intent_id for one in opened}
        self._live |= names
        try:
            earlier = await self._ledger.intend_each([one.intent for one in opened])
            open_now: list[_Opened] = []
            for one, known in zip(opened, earlier, strict=True):
                if known is None:
                    open_now.append(one)
                elif isinstance(known, RefusedError):
                    self._spawn(self._settled([one.wish], self._say_no(one.wish, known)))
                else:
                    self._finish(one.wish, replay_of(known))
            if all(one.key.immediate for one in open_now):
                await self._sign_and_complete(open_now)
            else:
                work = (
                    self._settled([one.wish], self._sign_and_complete([one])) for one in open_now
                )
                await asyncio.gather(*work)
        finally:
            self._live -= names

    async def _sign_and_complete(self, opened: Sequence[_Opened]) -> None:
        signed: list[tuple[_Opened, bytes]] = []
        for one in opened:
            try:
                signed.append((one, await self._signed(one)))
            except Exception as error:  # noqa: BLE001 - raised again to whoever waits
                self._finish(one.wish, error)
        if not signed:
            return
        pairs = [(one.intent, der) for one, der in signed]
        records = await self._ledger.complete_each(pairs)
        for (one, der), record in zip(signed, records, strict=True):
            if isinstance(record, ConflictError):
                await self._ledger.void(one.intent, "the CA or the line was stopped meanwhile")
            self._finish(
                one.wish, record if isinstance(record, Exception) else _issued(record, der)
            )

    async def _signed(self, one: _Opened) -> bytes:
        """Sign and compare; gives the DER that may be released."""
        try:
            signature = await self._sign(one.intent, one.key, _priority(one.wish.request))
        except (TokenUnavailableError, ForbiddenError):
            await self._ledger.release(one.intent)  # the signer surely did not sign
            raise
        try:
            return certificates.assemble(one.intent.tbs, signature, one.key.issuer)
        except IntegrityError:
            reason = "the signature does not belong to the issuing CA"
            await self._ledger.void(one.intent, reason)
            raise

    async def _finish_again(self, intent: Intent) -> str | None:
        """Decide and finish what was left open, or void it and give the reason."""
        reason = await self._obstacle(intent)
        if reason is not None:
            await self._ledger.void(intent, reason)
        return reason

    async def _obstacle(self, intent: Intent) -> str | None:
        """Finish an intent; give what keeps it from being finished for good."""
        try:
            outcome = self._decide(intent.request, self._clock.now())
            if isinstance(outcome, Refusal):
                return outcome.message
            key = self._keys.of(intent.ca_id)
            signature = await self._sign(intent, key, Priority.RENEWAL)
            der = certificates.assemble(intent.tbs, signature, key.issuer)
            await self._ledger.complete(intent, der)
        except (
            ConflictError,
            ForbiddenError,
            IntegrityError,
            NotFoundError,
            RefusedError,
        ) as error:
            return error.message
        return None

    async def _sign(self, intent: Intent, key: IssuingKey, priority: Priority) -> bytes:
        purpose = _purpose(intent.plan)
        return await key.sign(intent.tbs, purpose, priority=priority, reference=intent.intent_id)

    async def _add_record(self, wish: _Wish) -> None:
        wish.request = await self._with_record(wish.request)

    async def _with_record(self, request: EnrollmentRequest) -> EnrollmentRequest:
        """Add what is known of the device: rules may demand it, and take values from it."""
        if self._devices is None or request.device is None:
            return request
        record = await self._devices.record(request.device)
        return request if record is None else replace(request, record=record)

    def _decide(self, request: EnrollmentRequest, now: Instant) -> Plan | Refusal:
        profile, circumstances = self._facing(request, now)
        return decide(profile, self._grant(request), request, circumstances)

    def _grant(self, request: EnrollmentRequest) -> Grant | None:
        """Give the grant under which a request stands."""
        if request.gateway:
            assert self._grant_of is not None  # who is forwarded to knows the grants
            return self._grant_of(request.gateway)
        return self._profiles.grant()

    def _forwarding(self, request: EnrollmentRequest) -> Forwards | None:
        """Give what takes the request to another box; None: it is signed here.

        What a box needs itself, as the certificate of its page, never waits for another one.
        """
        mode = self._profiles.profile(request.profile).mode
        return self._forwards if mode is Mode.FORWARD and request.protocol != INTERNAL else None

    def _facing(self, request: EnrollmentRequest, now: Instant) -> tuple[Profile, Circumstances]:
        """Give the rules in force and what the decision depends on."""
        circumstances = Circumstances(
            now=now,
            issuer=None,
            last_contact_us=self._profiles.last_contact_us(),
            rules=self._profiles.rules(),
        )
        if self._forwarding(request) is None:
            issuer = self._keys.active(request.profile).issuer
            circumstances = replace(
                circumstances,
                issuer=issuer.limits,
                ca_id=issuer.ca_id,
                ca_role=issuer.role,
                path_length=issuer.path_length,
            )
        return self._profiles.profile(request.profile), circumstances

    async def _forward(self, wish: _Wish, plan: Plan, forwards: Forwards) -> None:
        """Let central sign it; raises PendingError until it has."""
        identity = wish.identity
        wanted = Forward(
            wish.request,
            plan.profile_version,
            identity.key,
            identity.content,
            identity.replay_us,
        )
        self._finish(wish, replay_of(await forwards.forward(wanted)))

    async def _refuse(self, wish: _Wish, refusal: Refusal, now: Instant) -> None:
        """Hand out what an equal request got while the rules still allowed it; else say no."""
        identity = wish.identity
        earlier = await self._ledger.replay(identity.key, identity.content, now.utc_us)
        if earlier is None and self._forwards is not None:
            earlier = await self._forwards.earlier(identity.key, identity.content)
        if earlier is not None:
            self._finish(wish, replay_of(earlier))
            return
        error = RefusedError(refusal.rule, refusal.value, refusal.message, refusal.remedy)
        await self._say_no(wish, error)

    async def _say_no(self, wish: _Wish, refused: RefusedError) -> None:
        """Let it be an event, whoever's rule it is: the profile's, the grant's or the ledger's."""
        await self._ledger.refuse(wish.request, refused.rule, refused.value, refused.message)
        self._finish(wish, refused)

    def _intent(self, wish: _Wish, plan: Plan, key: IssuingKey, now: Instant) -> Intent:
        identity = wish.identity
        serial = random_serial(self._random)
        grant = self._grant(wish.request)
        return Intent(
            intent_id=uuid7(now, self._random),
            serial=serial_text(serial),
            ca_id=key.issuer.ca_id,
            tbs=certificates.unsigned(plan, key.issuer, serial),
            plan=plan,
            request=wish.request,
            idempotency_key=identity.key,
            request_hash=identity.content,
            replay_until_us=now.utc_us + identity.replay_us,
            grant_id=grant.grant_id if grant else None,
            decided_at=now,
            existing=self._profiles.profile(plan.profile).existing,
        )


def _purpose(plan: Plan) -> Purpose:
    """Say to the signer what the certificate is for: it checks that the document agrees."""
    if plan.ca_path_length is not None:
        return Purpose.CA
    responder = _OCSP_SIGNING in plan.extended_key_usage
    return Purpose.OWN_RESPONDER if responder else Purpose.LEAF


def _priority(request: EnrollmentRequest) -> Priority:
    return Priority.RENEWAL if request.operation is Operation.RENEW else Priority.LINE


def replay_of(earlier: CertificateRecord | Exception) -> Issued | Exception:
    """Give what an equal request got, or why there is nothing to give."""
    if isinstance(earlier, Exception):
        return earlier
    if earlier.der is None:
        return ConflictError("The certificate of this earlier request was voided.")
    return Issued(earlier.der, earlier.ca_id, earlier.serial, replayed=True)


def _issued(record: CertificateRecord, der: bytes) -> Issued:
    return Issued(der, record.ca_id, record.serial, replayed=False)


def _expected(result: Issued | BaseException) -> Issued | TmaError:
    """Pass what a requester may see; anything else is a defect and must surface."""
    if isinstance(result, Issued | TmaError):
        return result
    raise result
