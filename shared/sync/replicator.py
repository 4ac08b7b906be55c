"""The two ends of a link. Each takes inputs and gives effects; ``then`` of a Run is an input too.

They differ in who asks (hello) and who judges (welcome); ``ends`` has what they do alike.
"""

from collections.abc import Callable
from functools import partial

from shared.kernel.clock import Instant
from shared.kernel.errors import ConflictError
from shared.kernel.ids import Random
from shared.sync import anti_entropy, forks, giving_back, outbox, reconcile, recovery
from shared.sync.effects import (
    Alarm,
    Contact,
    Effects,
    Healed,
    Online,
    Progress,
    Run,
    Send,
    Stop,
)
from shared.sync.ends import End, Keys
from shared.sync.envelope import Batch, Kind, Signer
from shared.sync.errands import Given, Rules
from shared.sync.events import Direction
from shared.sync.inbox import Acceptance
from shared.sync.lineage import Finding, Verdict
from shared.sync.messages import (
    Ask,
    Call,
    Errand,
    Hello,
    Receipt,
    Welcome,
    cursors_of,
    marks_of,
)
from shared.sync.outbox import Conflict, Contradiction
from shared.sync.ports import Claim, ClaimState, Lacking
from shared.sync.receiver import WINDOW_BYTES, Cursors
from shared.sync.reconcile import Confirmed, Examination, Standing

#: A hello is repeated until it is answered, and then as a sign of life with a fresh answer.
_ASK_NS = 2 * 10**9
_ASK_NS_MAX = 60 * 10**9
_HEARTBEAT_NS = 60 * 10**9
_REGAINED = "All that this gateway holds is known here again."


class GatewayReplicator(End):
    """The gateway's end: says hello, drains its outbox once welcome, applies directives."""

    def __init__(
        self,
        gateway: str,
        keys: Keys,
        *,
        version: str,
        random: Random,
        now: Instant,
    ) -> None:
        super().__init__(gateway, keys, Direction.UP, "", lambda: WINDOW_BYTES)
        self._version = version
        self._random = random
        self._connected = False
        self._lost_at_ns = now.mono_ns  # when the link was lost, or we started without one
        self._nonce = b""
        self._floor: Confirmed | None = None  # confirmed when this nonce was first sent
        self._challenge = b""  # of central's last call: the next hellos repeat it
        self._welcome_here = False  # on this link; else what comes may be meant for a second box
        self._turned_away = b""  # nonce of the hello that made us one of two boxes
        self._doubt = Verdict.RESUME  # of our own history, as long as this end lives
        self._pause_ns = _ASK_NS
        self._ask_at_ns = 0

    def connected(self, receive_maximum: int, now: Instant) -> Effects:
        """Say hello on a fresh link. ``receive_maximum`` is the broker's (MQTT 5 §3.2.2.3.3)."""
        self._connected = True
        self._window = receive_maximum
        return self._ask_anew((now.mono_ns - self._lost_at_ns) // 1_000, now)

    def disconnected(self, now: Instant) -> None:
        """Take note that the link is gone."""
        super().disconnected(now)
        self._errands.stop()
        self._welcome_here = False
        if self._connected:
            self._lost_at_ns = now.mono_ns
        self._connected = False

    def tick(self, now: Instant) -> Effects:
        """Let time pass: repeat what was not answered. Call about once a second."""
        if not self._connected:
            return []
        if now.mono_ns < self._ask_at_ns:
            return self._sender.tick(now) + self._errands.tick(now)
        if not self._nonce:
            return self._ask_anew(0, now)
        return [Online(online=False, reason="Central does not answer."), *self._ask(0, now)]

    def _ask_anew(self, outage_us: int, now: Instant) -> Effects:
        self._nonce = self._random(16)
        self._floor = None
        self._pause_ns = _ASK_NS
        return self._ask(outage_us, now)

    def _ask(self, outage_us: int, now: Instant) -> Effects:
        self._ask_at_ns = now.mono_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, _ASK_NS_MAX)
        introduce = partial(reconcile.introduce, outage_us=outage_us)
        return [Run(introduce, partial(self._introduced, self._nonce, now))]

    def _introduced(
        self, nonce: bytes, asked: Instant, standing: Standing, now: Instant
    ) -> Effects:
        del now  # the hello speaks of the state at ``asked`` or later, never earlier
        if nonce != self._nonce or not self._connected:
            return []
        if self._floor is None:
            self._floor = standing.confirmed
        hello = Hello(
            nonce=nonce,
            boot_id=asked.boot_id,
            mono_ns=asked.mono_ns,
            incarnation=standing.incarnation,
            version=self._version,
            backlog=standing.backlog,
            segments=standing.segments,
            cursors=standing.cursors,
            challenge=self._challenge,
            doubt=standing.doubt if self._doubt is Verdict.RESUME else self._doubt,
            trusts=list(self._keys.trusts()),
        )
        return [self._send(Kind.HELLO, hello)]

    def _received(self, kind: Kind, payload: bytes, now: Instant) -> Effects:
        if kind is Kind.WELCOME:
            return self._welcome(self._open(Welcome, kind, payload), now)
        if kind is Kind.EVENTS and self._welcome_here:
            return self._batch(payload)[1]
        if kind is Kind.RECEIPT and self._welcome_here:
            return self._take_receipt(self._open(Receipt, kind, payload), now)
        if kind is Kind.ASK:
            return self._asked(self._open(Ask, kind, payload), now)
        if kind is Kind.CALL:
            self._challenge = self._open(Call, kind, payload).challenge
            self._sender.stop()  # nothing may overtake the hello that is to be judged
            return self._ask_anew(0, now) if self._connected else []
        return []

    def _asked(self, ask: Ask, now: Instant) -> Effects:
        if ask.errand is Errand.FORK:
            of_fork = partial(forks.give, position=ask.position, nonce=self._turned_away)
            return [Run(of_fork, lambda given, _: [self._part(ask, given)] if given else [])]
        if ask.errand in {Errand.DIGEST, Errand.LEDGER}:
            compare = partial(
                anti_entropy.give, errand=ask.errand, position=ask.position, now_us=now.utc_us
            )
            return [Run(compare, lambda given, _: [self._part(ask, given)])]
        give = partial(giving_back.give, errand=ask.errand, position=ask.position)
        return [Run(give, lambda given, _: [self._part(ask, given)])]

    def _welcome(self, welcome: Welcome, now: Instant) -> Effects:
        if welcome.nonce != self._nonce or not self._connected:
            return []  # an answer to an earlier hello, or one that was answered already
        self._welcome_here = welcome.verdict is Verdict.RESUME
        self._turned_away = welcome.nonce if welcome.verdict is Verdict.CLONE else b""
        self._nonce = b""
        self._ask_at_ns = now.mono_ns + _HEARTBEAT_NS
        self._challenge = b""
        if welcome.verdict is not Verdict.RESUME:
            return self._stop(welcome.verdict, welcome.reason)
        if welcome.incarnation != self._incarnation:
            self._sender.stop()
            self._incarnation = welcome.incarnation
        cursors = cursors_of(welcome.cursors)
        take = partial(
            outbox.welcomed,
            incarnation=welcome.incarnation,
            cursors=cursors,
            floor=self._floor,
        )
        return [Contact(welcome.utc_us), Run(take, partial(self._settled, welcome))]

    def _settled(
        self, welcome: Welcome, contradiction: Contradiction | None, now: Instant
    ) -> Effects:
        if contradiction is not None:
            effects = self._contradicted(contradiction)
            again = contradiction.kind is Conflict.LOST and self._connected
            return effects + (self._ask_anew(0, now) if again else [])
        if not self._connected or self._sender.live:
            return []
        return self._sender.start(self._window, welcome.credit, now)

    def _take_receipt(self, receipt: Receipt, now: Instant) -> Effects:
        if receipt.incarnation == self._incarnation:
            return self._sender.confirmed(cursors_of(receipt.marks), receipt.credit, now)
        if not self._sender.live:
            return []
        self._sender.stop()  # central came back as another one: what it has is to be asked
        return self._ask_anew(0, now)

    def _contradicted(self, contradiction: Contradiction) -> Effects:
        self._sender.stop()
        match contradiction.kind:
            case Conflict.AHEAD:
                return self._stop(Verdict.RESTORED, contradiction.reason)
            case Conflict.FORKED:
                self._doubt = Verdict.CLONE  # central learns it by the next hello
                return self._stop(Verdict.CLONE, contradiction.reason)
            case Conflict.LOST:
                return [Alarm(contradiction.reason)]

    def _stop(self, verdict: Verdict, reason: str) -> Effects:
        """Let the line stop; a restored copy begins at once to take back what it forgot."""
        self._sender.stop()
        effects: Effects = [Stop(verdict, reason)]
        if verdict is Verdict.RESTORED:
            rules = Rules(
                recovery.begin, partial(recovery.take, gateway=self._to.gateway), self._recovered
            )
            return [*effects, *self._errands.start(Errand.HISTORY, rules)]
        self._errands.stop()
        return effects

    def _recovered(self, now: Instant) -> Effects:
        self._doubt = Verdict.RESUME
        reason = "What this database had forgotten came back from central."
        return [Healed(reason), *(self._ask_anew(0, now) if self._connected else [])]

    def _receipt(self, cursors: Cursors, now: Instant) -> Effects:
        archived = {  # central's directives are kept here as documents: applied is enough
            lane: cursor._replace(archived=cursor.applied) for lane, cursor in cursors.items()
        }
        return [self._confirmation(archived, now)]

    def _refused(self, acceptance: Acceptance, now: Instant) -> Effects:
        del now
        return [Alarm(f"Central's directives contradict each other: {acceptance.reason}")]


class CentralReplicator(End):
    """Central's end of the link to one gateway: judges hellos, applies events, sends directives.

    ``blocked`` is what an earlier examination found, kept by the registry until a person decides.
    ``credit`` tells, whenever it is asked, how many bytes this gateway may have under way.
    """

    def __init__(
        self,
        gateway: str,
        keys: Keys,
        *,
        incarnation: str,
        blocked: Finding | None = None,
        credit: Callable[[], int] = lambda: WINDOW_BYTES,
    ) -> None:
        super().__init__(gateway, keys, Direction.DOWN, incarnation, credit)
        self._blocked = blocked
        self._challenge = b""  # what a hello must repeat to be judged
        self._floor: Confirmed = {}  # what was confirmed when it was asked for

    def connected(self, receive_maximum: int, now: Instant) -> Effects:
        """Call for a hello: central is (back) at the broker. ``receive_maximum`` as above."""
        self._window = receive_maximum
        return [self._call(now, signer) for signer in reversed(self._keys.signers)]

    def block(self, finding: Finding, now: Instant) -> Effects:
        """Refuse this gateway from now on and let it know."""
        self._blocked = finding
        self._sender.stop()
        return [Stop(finding.verdict, finding.reason), self._call(now)]

    def archived(self, cursors: Cursors, now: Instant) -> Effects:
        """Tell which marks rose because a backup was read back; call after that commit."""
        return self._receipt(cursors, now)

    def inquire(self, errand: Errand, rules: Rules) -> Effects:
        """Begin an errand of the application. Raises ConflictError: it would be in the way."""
        if self._blocked is not None or self._errands.running is not None:
            raise ConflictError("This gateway gives back something else at the moment.")
        return self._errands.start(errand, rules)

    def give_up(self, errand: Errand) -> None:
        """End an errand of the application."""
        if self._errands.running is errand:
            self._errands.stop()

    def tick(self, now: Instant) -> Effects:
        """Let time pass: repeat what was not answered. Call about once a second."""
        return self._sender.tick(now) + self._errands.tick(now)

    def disconnected(self, now: Instant) -> None:
        """Take note that the link is gone."""
        super().disconnected(now)
        self._errands.stop()

    def _call(self, now: Instant, signer: Signer | None = None) -> Send:
        """Make a call; ``signer`` as long as no hello has said which of our keys is trusted."""
        self._signer = signer or self._signer
        call = Call(incarnation=self._incarnation, utc_us=now.utc_us, challenge=self._challenge)
        return self._send(Kind.CALL, call)

    def _challenged(self, reason: str, now: Instant) -> Effects:
        """Ask for a hello of now before anything is judged: the network may keep old messages."""
        if not self._challenge:
            self._challenge = self._once(now)
        return [Alarm(reason), self._call(now)]

    def _received(self, kind: Kind, payload: bytes, now: Instant) -> Effects:
        if kind is Kind.HELLO:
            hello = self._open(Hello, kind, payload)
            self._signer = self._keys.trusted(hello.trusts)
            floor = self._floor if self._is_fresh(hello) else None
            examine = partial(reconcile.examine, hello=hello, floor=floor, stopped=self._two_boxes)
            return [Run(examine, partial(self._examined, hello))]
        if kind is Kind.ASK:
            return self._asked(self._open(Ask, kind, payload))
        if self._blocked is not None:
            return []
        if kind is Kind.EVENTS:
            batch, effects = self._batch(payload)
            return [Contact(now.utc_us), _progress(batch), *effects]
        if kind is Kind.RECEIPT:
            receipt = self._open(Receipt, kind, payload)
            if receipt.incarnation == self._incarnation:
                return self._sender.confirmed(cursors_of(receipt.marks), receipt.credit, now)
        return []

    def _examined(self, hello: Hello, examination: Examination | None, now: Instant) -> Effects:
        if examination is None:
            return []
        finding, claim = examination.finding, examination.claim
        if finding is not None and claim is None and not self._is_fresh(hello):
            if not self._challenge:
                self._floor = examination.confirmed
            return self._challenged(finding.reason, now)
        if claim is not None and claim.state is ClaimState.OUTCAST:
            return [self._welcome(hello, examination, finding, now), *self._fetch(claim, hello)]
        if self._is_fresh(hello) and self._settles(examination):
            self._challenge = b""
        if self._halted:
            finding = self._blocked
        if finding is None and examination.lacking is Lacking.DIRECTIVES:
            return [Contact(now.utc_us), *self._regain(Errand.DIRECTIVES)]
        effects: Effects = [
            Contact(now.utc_us),
            Progress(hello.backlog, hello.version, hello.heads()),
            self._welcome(hello, examination, finding, now),
        ]
        if finding is None:
            return effects + self._resumed(examination, now)
        self._sender.stop()
        if self._errands.running is not Errand.FORK:
            self._errands.stop()
        self._blocked = finding
        return [*effects, Stop(*finding), *self._fetch(claim, hello)]

    @property
    def _halted(self) -> bool:
        """Whether a person has to decide; a restored copy heals by itself."""
        return self._blocked is not None and self._blocked.verdict is not Verdict.RESTORED

    @property
    def _two_boxes(self) -> bool:
        return self._blocked is not None and self._blocked.verdict is Verdict.CLONE

    def _settles(self, examination: Examination) -> bool:
        """Tell if this fresh hello was asked for: several boxes may answer to one challenge."""
        if examination.finding is None:
            return not self._halted
        return examination.claim is None or examination.is_new_claim

    def _is_fresh(self, hello: Hello) -> bool:
        return self._challenge != b"" and hello.challenge == self._challenge

    def _welcome(
        self, hello: Hello, examination: Examination, finding: Finding | None, now: Instant
    ) -> Send:
        welcome = Welcome(
            nonce=hello.nonce,
            incarnation=self._incarnation,
            verdict=finding.verdict if finding else Verdict.RESUME,
            reason=finding.reason if finding else "",
            utc_us=now.utc_us,
            cursors=marks_of(examination.cursors),
            credit=self._receiver.credit,
        )
        return self._send(Kind.WELCOME, welcome)

    def _fetch(self, claim: Claim | None, hello: Hello) -> Effects:
        """Ask a box for what it wrote beside the history that is held here."""
        if claim is None or claim.complete or claim.state is ClaimState.HEIR:
            return []
        if self._errands.running not in {None, Errand.FORK}:
            return []
        self._errands.stop()
        rules = Rules(
            lambda _store: forks.begin(claim, hello.nonce),
            partial(forks.take, fork=claim.fork, gateway=self._to.gateway),
            lambda _: [Alarm(f"All that the box {claim.fork} wrote is kept here.")],
        )
        return self._errands.start(Errand.FORK, rules)

    def _resumed(self, examination: Examination, now: Instant) -> Effects:
        """Go on with a gateway that is welcome."""
        effects: Effects = []
        if self._blocked is not None:
            self._blocked = None
            effects.append(Healed("The gateway goes on behind what is held of it."))
        if examination.contradiction is not None:
            effects += self._contradicted(examination.contradiction)
        if examination.lacking is Lacking.EVENTS:
            effects += self._regain(Errand.HEADS)
        return effects + self._sender.start(self._window, WINDOW_BYTES, now)

    def _contradicted(self, contradiction: Contradiction) -> Effects:
        return [
            Alarm(
                f"This gateway holds directives that are not in our books: {contradiction.reason}"
            )
        ]

    def _regain(self, errand: Errand) -> Effects:
        """Ask the gateway for what this central, which is restored, does not know again yet."""
        begin = giving_back.from_the_beginning
        if errand is Errand.DIRECTIVES:
            rules = Rules(begin, giving_back.take_directives, lambda now: [self._call(now)])
        else:
            self._errands.stop()  # since the last hello it may have gone on elsewhere
            rules = Rules(begin, giving_back.take_heads, lambda _: [Alarm(_REGAINED)])
        return self._errands.start(errand, rules)

    def _receipt(self, cursors: Cursors, now: Instant) -> Effects:
        return [] if self._blocked else [self._confirmation(cursors, now)]

    def _refused(self, acceptance: Acceptance, now: Instant) -> Effects:
        """Judge nobody by a batch, which the network may have kept: whoever lives says hello."""
        return self._challenged(acceptance.reason, now)

    def _asked(self, ask: Ask) -> Effects:
        if self._halted:
            return []
        give = partial(recovery.give, position=ask.position)
        return [Run(give, partial(self._given, ask))]

    def _given(self, ask: Ask, given: Given | Finding, now: Instant) -> Effects:
        if isinstance(given, Finding):
            return self.block(given, now)
        return [self._part(ask, given)]


def _progress(batch: Batch) -> Progress:
    return Progress(batch.backlog, heads={(batch.segment, batch.lane): batch.last_sequence})
