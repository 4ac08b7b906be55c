"""Asking the other side for something large, part by part: stop and wait, nothing kept.

Who asks checks and stores each part in one transaction and asks for the next; who answers keeps no
state at all. A lost message is asked for again, a crash begins anew: parts are idempotent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import NamedTuple

from shared.kernel.clock import Instant
from shared.kernel.errors import BadRequestError, UntrustedError
from shared.sync.effects import Alarm, Effects, Run, Send
from shared.sync.messages import Ask, Errand, Part
from shared.sync.ports import LinkTransaction, Unit

_ASK_NS = 5 * 10**9
_ASK_NS_MAX = 60 * 10**9
_AGAIN_NS = 10**9


class Given(NamedTuple):
    """A part of an errand: its content, where to go on, and whether that is all."""

    content: list[bytes]
    position: bytes
    done: bool


class Trouble(NamedTuple):
    """Why a part cannot be taken, as a sentence: the errand ends there."""

    reason: str


class Taken(Enum):
    """What became of a part."""

    YES = "yes"
    NOT_YET = "not yet"  # it is tried again in a while, without asking


@dataclass(frozen=True, slots=True)
class Rules:
    """One errand from the asking side: where to begin, what to do with a part, what comes then.

    ``take`` may raise what is the peer's fault (BadRequestError, UntrustedError): then nothing of
    that part was taken, and ``failed`` is told why, as for any trouble.
    """

    begin: Unit[bytes]
    take: Callable[[LinkTransaction, Part], Taken | Trouble]
    done: Callable[[Instant], Effects]
    failed: Callable[[str], Effects] = lambda reason: [Alarm(reason)]


class Errands:
    """Runs one errand at a time."""

    def __init__(self, send: Callable[[Ask], Send], nonce: Callable[[Instant], bytes]) -> None:
        """Take how to send, and where nonces come from."""
        self._send = send
        self._new_nonce = nonce
        self._errand: Errand | None = None
        self._rules: Rules
        self._life = 0  # results of transactions that belong to an earlier errand are void
        self._nonce = b""  # of the ask that waits for its part
        self._position = b""
        self._part: Part | None = None  # what came too early
        self._pause_ns = _ASK_NS
        self._ask_at_ns = 0

    @property
    def running(self) -> Errand | None:
        """The errand that is under way."""
        return self._errand

    def start(self, errand: Errand, rules: Rules) -> Effects:
        """Begin; one that runs already goes on."""
        if self._errand is errand:
            return []
        self.stop()
        self._errand, self._rules = errand, rules
        return [Run(rules.begin, partial(self._begun, self._life))]

    def stop(self) -> None:
        """Forget the errand."""
        self._errand = None
        self._life += 1
        self._nonce = b""
        self._part = None

    def tick(self, now: Instant) -> Effects:
        """Ask again for what did not come, and try again what came too early."""
        if self._part is not None and now.mono_ns >= self._ask_at_ns:
            part, self._part = self._part, None
            return self._take(part)
        if not self._nonce or now.mono_ns < self._ask_at_ns:
            return []
        self._pause_ns = min(2 * self._pause_ns, _ASK_NS_MAX)
        return self._ask(now)

    def received(self, part: Part) -> Effects:
        """Take a part; any but the one that was asked for is ignored."""
        if part.errand is not self._errand or part.nonce != self._nonce:
            return []
        self._nonce = b""
        return self._take(part)

    def _take(self, part: Part) -> Effects:
        take = partial(_taken, self._rules.take, part)
        return [Run(take, partial(self._took, self._life, part))]

    def _begun(self, life: int, position: bytes, now: Instant) -> Effects:
        if life != self._life:
            return []
        self._position = position
        self._pause_ns = _ASK_NS
        return self._ask(now)

    def _ask(self, now: Instant) -> Effects:
        assert self._errand is not None
        self._nonce = self._new_nonce(now)
        self._ask_at_ns = now.mono_ns + self._pause_ns
        ask = Ask(nonce=self._nonce, errand=self._errand, position=self._position)
        return [self._send(ask)]

    def _took(self, life: int, part: Part, taken: Taken | Trouble, now: Instant) -> Effects:
        if life != self._life:
            return []
        if isinstance(taken, Trouble):
            failed = self._rules.failed
            self.stop()
            return failed(taken.reason)
        if taken is Taken.NOT_YET:
            self._part, self._ask_at_ns = part, now.mono_ns + _AGAIN_NS
            return []
        if part.done:
            done = self._rules.done
            self.stop()
            return done(now)
        return self._begun(life, part.position, now)


def _taken(
    take: Callable[[LinkTransaction, Part], Taken | Trouble], part: Part, store: LinkTransaction
) -> Taken | Trouble:
    try:
        with store.savepoint():
            return take(store, part)
    except (BadRequestError, UntrustedError) as error:
        return Trouble(error.message)
