"""The life of one token, from absent to ready; everything here runs on the worker thread.

ABSENT → SETTLING → LOGIN → VERIFY → READY ⇄ DEGRADED, and the two that wait for a human:
PIN_BLOCKED and FOREIGN. A token is trusted only after each of its keys signed a random challenge
that verifies against what is known of it; a stranger's token never costs a try of the PIN, and a
wrong PIN is never tried twice (design.md §6).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.exceptions import InvalidSignature

from shared.hsm.documents import PROOF_PREFIX, spki_of
from shared.hsm.memory import Attempt, Memory
from shared.hsm.provider import (
    FoundToken,
    PinRefusedError,
    Provider,
    SeveralTokensError,
    TokenLostError,
)
from shared.kernel.clock import Clock
from shared.kernel.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    TmaError,
    TokenUnavailableError,
)
from shared.kernel.ids import Random
from shared.pki import algorithms, keys
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.keys import KeyType

_LOG = logging.getLogger(__name__)
_NS_PER_S = 1_000_000_000
_CHALLENGE_BYTES = 32
_RETRY_AFTER_S = 5.0


class State(StrEnum):
    """Where the token is in its life."""

    ABSENT = "absent"
    SETTLING = "settling"
    LOGIN = "login"
    VERIFY = "verify"
    READY = "ready"
    DEGRADED = "degraded"
    PIN_BLOCKED = "pin_blocked"
    FOREIGN = "foreign"


_SENTENCES = {
    State.ABSENT: "The token is not plugged in.",
    State.SETTLING: "A token was plugged in and is being recognised.",
    State.LOGIN: "The token is being opened.",
    State.VERIFY: "The token is open, but holds no key yet.",
    State.READY: "The token is ready.",
    State.DEGRADED: "The token stopped answering; it is being opened again.",
    State.PIN_BLOCKED: "The token refused its PIN; it is not tried again.",
    State.FOREIGN: "This is not the token of this installation; it was not opened.",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What any thread may read: replaced as a whole, never changed."""

    state: State = State.ABSENT
    sentence: str = _SENTENCES[State.ABSENT]
    token: str = ""
    serial: str = ""
    keys: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def ready(self) -> bool:
        """Whether documents are signed now."""
        return self.state is State.READY

    @property
    def is_open(self) -> bool:
        """Whether the token is trusted and logged in, with or without keys."""
        return self.state in {State.READY, State.VERIFY}


class TokenKeeper:
    """Brings one token to READY, keeps it there, and uses its keys."""

    def __init__(
        self,
        *,
        provider: Provider,
        secret: Callable[[], bytes],
        memory: Memory,
        clock: Clock,
        random: Random,
        settle_s: float,
    ) -> None:
        """Take the provider, how to read the PIN when it is needed, and what is remembered."""
        self._provider = provider
        self._secret = secret
        self._memory = memory
        self._clock = clock
        self._random = random
        self._settle_ns = round(settle_s * _NS_PER_S)
        self._seen_at_ns = 0
        self._found: FoundToken | None = None
        self.snapshot = Snapshot()

    def poll(self) -> None:
        """Look at the token and take the next step; never raises. The poll is the truth."""
        try:
            if not self.snapshot.is_open:
                self._discover()
            elif not self._provider.present():
                self._lost("it was pulled")
        except TokenLostError as error:
            self._lost(str(error))
        except SeveralTokensError as error:
            self._stop(State.ABSENT, error.message)
        except TmaError as error:
            self._stop(State.LOGIN, f"{error.message} {error.remedy}".strip())
        except OSError as error:
            self._stop(State.LOGIN, f"The state directory cannot be used: {error.strerror}.")
        except Exception:  # noqa: BLE001 - whatever a module answers, the thread goes on looking
            _LOG.exception("the token was not understood")
            self._stop(State.ABSENT, "The token gives answers that are not understood.")

    @property
    def restless(self) -> bool:
        """Whether the next poll should come soon."""
        return self.snapshot.state in {State.SETTLING, State.DEGRADED}

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        """Use a key; raises TokenUnavailableError, OutcomeUnknownError, NotFoundError."""
        if not self.snapshot.ready:
            raise self.unavailable()
        if key not in self.snapshot.keys:
            raise self.unknown_key(key)
        try:
            return self._provider.sign(key, data, algorithm)
        except TokenLostError as error:
            self._lost(str(error))
            if error.used:
                raise OutcomeUnknownError(
                    "The token was lost while it signed.", retry_after_s=_RETRY_AFTER_S
                ) from error
            raise self.unavailable() from error

    def prove(self, key: str, statement: bytes) -> bytes:
        """Sign what is no document with the usual algorithm of the key; errors as of ``sign``."""
        spki = self.snapshot.keys.get(key)
        if spki is None:
            raise self.unknown_key(key) if self.snapshot.ready else self.unavailable()
        return self.sign(key, statement, algorithms.usual(keys.load_spki(spki)))

    def generate(self, key: str, kind: KeyType) -> bytes:
        """Make a key and trust it; gives its DER SubjectPublicKeyInfo. Raises ConflictError."""
        if not self.snapshot.is_open:
            raise self.unavailable()
        if key in self.snapshot.keys or self._memory.public_key(key) is not None:
            raise ConflictError(f"There is a key {key} already; keys are never overwritten.")
        try:
            self._provider.generate(key, kind)
            if self._found is not None:
                self._verify(self._found)
        except TokenLostError as error:
            self._lost(str(error))
        if key not in self.snapshot.keys:
            raise self.unavailable()
        return self.snapshot.keys[key]

    def unavailable(self) -> TokenUnavailableError:
        """Make the error that tells why nothing is signed now."""
        return TokenUnavailableError(self.snapshot.sentence, retry_after_s=_RETRY_AFTER_S)

    def unknown_key(self, key: str) -> NotFoundError:
        """Make the error for a label that is not on the token."""
        known = ", ".join(sorted(self.snapshot.keys)) or "none"
        return NotFoundError(f"The token holds no key {key}; it holds: {known}.")

    def _discover(self) -> None:
        found, before = self._provider.find(), self._found
        self._found = found
        if found is None:
            self._enter(State.ABSENT)
            return
        now_ns = self._clock.now().mono_ns
        if before is None or before.serial != found.serial:
            self._seen_at_ns = now_ns
        if now_ns - self._seen_at_ns < self._settle_ns:
            self._enter(State.SETTLING)
        elif self._is_foreign(found):
            self._enter(State.FOREIGN)
        elif (self.snapshot.state is not State.FOREIGN or found != before) and self._login(found):
            self._verify(found)

    def _is_foreign(self, found: FoundToken) -> bool:
        """Tell a stranger's token by what it shows without a PIN."""
        serial = self._memory.serial()
        return (
            serial is not None
            and serial != found.serial
            and self._memory.public_keys().isdisjoint(found.public_keys)
        )

    def _login(self, found: FoundToken) -> bool:
        """Use the PIN once, with the try written down before and settled after."""
        attempt = self._memory.attempt()
        if attempt is Attempt.WRONG or (attempt is Attempt.UNRESOLVED and found.pin_doubt):
            return self._block()
        self._enter(State.LOGIN)
        secret = self._secret()
        self._memory.attempt_begins()
        try:
            self._provider.login(secret)
        except PinRefusedError:
            self._memory.attempt_was_wrong()
            return self._block()
        self._memory.attempt_succeeded()
        return True

    def _block(self) -> bool:
        remedy = f"Put the right PIN in its place, then remove {self._memory.attempt_path}."
        self._stop(State.PIN_BLOCKED, f"{_SENTENCES[State.PIN_BLOCKED]} {remedy}")
        return False

    def _verify(self, found: FoundToken) -> None:
        """Trust the token once each key signed a challenge that verifies."""
        public_keys = self._provider.keys()
        for key, spki in public_keys.items():
            if not self._is_ours(key, spki):
                self._stop(
                    State.FOREIGN,
                    f"The key {key} on the token is not the one that this installation knows.",
                )
                return
        self._memory.remember_token(found.serial, public_keys)
        self._enter(State.READY if public_keys else State.VERIFY, public_keys=public_keys)

    def _is_ours(self, key: str, shown: bytes) -> bool:
        """Challenge a key; what counts is its CA certificate, before birth the key shown first."""
        certificate = self._memory.certificate(key)
        expected = self._memory.public_key(key) or shown
        if certificate is not None:
            expected = spki_of(certificate) or b""
        challenge = PROOF_PREFIX + self._random(_CHALLENGE_BYTES)
        if expected != shown:
            return False
        public_key = keys.load_spki(expected)
        algorithm = algorithms.usual(public_key)
        signature = self._provider.sign(key, challenge, algorithm)
        try:
            algorithm.verify(public_key, challenge, signature)
        except InvalidSignature:
            return False
        return True

    def _lost(self, reason: str) -> None:
        """Drop the token; the next polls look for it again."""
        if self.snapshot.ready:
            _LOG.warning("token lost: %s", reason)
        self._stop(State.DEGRADED if self.snapshot.ready else State.ABSENT)
        self._found = None

    def _stop(self, state: State, sentence: str | None = None) -> None:
        self._provider.drop()
        self._enter(state, sentence)

    def _enter(
        self,
        state: State,
        sentence: str | None = None,
        public_keys: dict[str, bytes] | None = None,
    ) -> None:
        found = self._found
        before, self.snapshot = (
            self.snapshot,
            Snapshot(
                state=state,
                sentence=sentence or _SENTENCES[state],
                token=found.label if found else "",
                serial=found.serial if found else "",
                keys=public_keys or {},
            ),
        )
        if before.state is not state:
            _LOG.info("token %s: %s", state.value, self.snapshot.sentence)
