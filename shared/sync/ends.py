"""What both ends of a link do alike: one Sender, one Receiver, one errand at a time.

Nothing in here survives a crash, and nothing needs to: storage and the next hello tell it all.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shared.kernel import cbor
from shared.kernel.clock import Instant
from shared.kernel.errors import TmaError
from shared.sync import envelope, giving_back, outbox
from shared.sync.effects import Alarm, Effects, Send, topic
from shared.sync.envelope import Address, Batch, FindKey, Kind, Message, Signer
from shared.sync.errands import Errands, Given
from shared.sync.events import Direction, Lane
from shared.sync.inbox import Acceptance
from shared.sync.messages import Ask, Part, Receipt, marks_of
from shared.sync.outbox import Contradiction
from shared.sync.receiver import Cursors, Receiver
from shared.sync.sender import Sender

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True, slots=True)
class Keys:
    """Our signing keys, and how to find the peer's by kid (UntrustedError: not known).

    ``signers`` has the newest first; a list that changes is followed. ``trusts`` gives the kids of
    the peer's keys that are trusted here: a hello names them, and the peer signs accordingly.
    """

    signers: Sequence[Signer]
    find: FindKey
    trusts: Callable[[], Sequence[bytes]] = tuple

    def trusted(self, kids: Sequence[bytes]) -> Signer:
        """Give the newest of ours among these; of a peer that names none, the oldest."""
        if not kids:
            return self.signers[-1]
        return next((one for one in self.signers if one.kid in kids), self.signers[0])


class End:
    """What both ends of a link do alike."""

    def __init__(
        self,
        gateway: str,
        keys: Keys,
        outward: Direction,
        incarnation: str,
        credit: Callable[[], int],
    ) -> None:
        inward = Direction.UP if outward is Direction.DOWN else Direction.DOWN
        self._keys = keys
        self._signer = keys.signers[0]
        self._to = Address(gateway, outward)
        self._from = Address(gateway, inward)
        self._incarnation = incarnation  # central's, whichever end this is
        self._window = 1
        confirm = outbox.confirm if outward is Direction.UP else giving_back.confirm
        self._sender = Sender(self._seal_batch, self._contradicted, confirm)
        self._receiver = Receiver(self._from, credit, self._receipt, self._refused)
        self._errands = Errands(partial(self._send, Kind.ASK), self._once)
        self._counted = 0

    @property
    def positions(self) -> dict[tuple[str, Lane], int]:
        """Up to where each lane of ours is on its way."""
        return self._sender.positions

    def wake(self, now: Instant) -> Effects:
        """Send new events. Call after each commit that wrote any."""
        return self._sender.wake(now)

    def disconnected(self, now: Instant) -> None:
        """Take note that the link is gone."""
        del now
        self._sender.stop()

    def received(self, kind: Kind, payload: bytes, now: Instant) -> Effects:
        """Take a message from the link. What is not authentic has no effect but an alarm."""
        try:
            if kind is Kind.PART:
                return self._errands.received(self._open(Part, kind, payload))
            return self._received(kind, payload, now)
        except TmaError as error:
            return [Alarm(f"A {kind.value} message was ignored: {error.message}")]

    def _received(self, kind: Kind, payload: bytes, now: Instant) -> Effects:
        raise NotImplementedError

    def _contradicted(self, contradiction: Contradiction) -> Effects:
        raise NotImplementedError

    def _receipt(self, cursors: Cursors, now: Instant) -> Effects:
        raise NotImplementedError

    def _refused(self, acceptance: Acceptance, now: Instant) -> Effects:
        raise NotImplementedError

    def _once(self, now: Instant) -> bytes:
        """Make 16 bytes that no other message of this name bears: a nonce or a challenge."""
        self._counted += 1
        seed = [self._incarnation, now.boot_id, now.utc_us, now.mono_ns, self._counted]
        return hashlib.sha256(cbor.encode(seed)).digest()[:16]

    def _confirmation(self, cursors: Cursors, now: Instant) -> Send:
        receipt = Receipt(
            incarnation=self._incarnation,
            utc_us=now.utc_us,
            marks=marks_of(cursors),
            credit=self._receiver.credit,
        )
        return self._send(Kind.RECEIPT, receipt)

    def _batch(self, payload: bytes) -> tuple[Batch, Effects]:
        batch = envelope.open_(payload, self._keys.find, self._from)
        return batch, self._receiver.take(batch)

    def _open(self, model: type[AnyMessage], kind: Kind, payload: bytes) -> AnyMessage:
        return model.open_(kind, payload, self._keys.find, self._from)

    def _send(self, kind: Kind, message: Message) -> Send:
        name = topic(self._to.gateway, self._to.direction, kind.value)
        return Send(kind, name, message.seal(kind, self._signer, self._to))

    def _part(self, ask: Ask, given: Given) -> Send:
        part = Part(
            nonce=ask.nonce,
            errand=ask.errand,
            content=given.content,
            position=given.position,
            done=given.done,
        )
        return self._send(Kind.PART, part)

    def _seal_batch(self, batch: Batch) -> Send:
        return self._send(Kind.EVENTS, batch)
