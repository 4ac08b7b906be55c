"""Asking the other side for something large, part by part: stop and wait, nothing kept.

Who asks checks and stores each part in one transaction and asks for the next; who answers keeps no
state at all. A lost message is asked for again, a crash begins anew: parts are idempotent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from shared.kernel.clock import Instant
from shared.sync.effects import Alarm, Effects, Run, Send
from shared.sync.messages import Ask, Errand, Part
from shared.sync.ports import LinkTransaction, Unit

_ASK_NS = 5 * 10**9
_ASK_NS_MAX = 60 * 10**9


@dataclass(frozen=True, slots=True)
class Rules:
    """One errand from the asking side: where to begin, what to do with a part, what comes then.

    ``take`` gives None, or a sentence why the part cannot be taken: the errand ends there.
    """

    begin: Unit[bytes]
    take: Callable[[LinkTransaction, Part], str | None]
    done: Callable[[Instant], Effects]


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

    def tick(self, now: Instant) -> Effects:
        """Ask again for what did not come."""
        if not self._nonce or now.mono_ns < self._ask_at_ns:
            return []
        self._pause_ns = min(2 * self._pause_ns, _ASK_NS_MAX)
        return self._ask(now)

    def received(self, part: Part) -> Effects:
        """Take a part; any but the one that was asked for is ignored."""
        if part.errand is not self._errand or part.nonce != self._nonce:
            return []
        self._nonce = b""
        take = self._rules.take
        return [Run(lambda store: take(store, part), partial(self._took, self._life, part))]

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

    def _took(self, life: int, part: Part, trouble: str | None, now: Instant) -> Effects:
        if life != self._life:
            return []
        if trouble is not None:
            self.stop()
            return [Alarm(trouble)]
        if part.done:
            done = self._rules.done
            self.stop()
            return done(now)
        return self._begun(life, part.position, now)
