"""How messages are signed, and the batch of events, the one message that carries history.

Each message is one COSE_Sign1 (RFC 9052 §4.2): protected {1: -7, 4: kid, 16: type}, and in
external_aad the direction and the gateway, so that no message can be turned round or readdressed.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError
from shared.pki import cose
from shared.sync.events import Direction, Lane
from shared.sync.ports import Row, weight

#: What the events of one batch may weigh: an envelope less its headers.
BATCH_BYTES_MAX = limits.ENVELOPE_BYTES_MAX - 4096

#: More effort saves 5 % of the bytes and costs half again as much time (tests/bench/drain.py).
_PACK_LEVEL = 1

FindKey = Callable[[bytes], ec.EllipticCurvePublicKey]

Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
Name = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Kind(StrEnum):
    """What a message is; the last level of its topic and its protected type."""

    EVENTS = "events"
    HELLO = "hello"
    WELCOME = "welcome"
    RECEIPT = "receipt"
    CALL = "call"
    ASK = "ask"
    PART = "part"


@dataclass(frozen=True, slots=True)
class Signer:
    """An event-signing or directive key. ``kid`` is the SHA-256 of its DER public key."""

    kid: bytes
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Address:
    """Between whom a message travels, and which way."""

    gateway: str
    direction: Direction

    def aad(self) -> bytes:
        """Give what the signature binds besides header and payload."""
        return cbor.encode([self.direction.value, self.gateway])


class Message(BaseModel):
    """Strict and closed: what is not named here is refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def seal(self, kind: Kind, signer: Signer, address: Address) -> bytes:
        """Encode and sign. Raises BadRequestError when the result is too large to send."""
        data = cose.sign1(
            cbor.encode(self._fields(address)),
            key=signer.key,
            kid=signer.kid,
            type=f"tma-{kind.value}",
            external_aad=address.aad(),
        )
        if len(data) > limits.ENVELOPE_BYTES_MAX:
            raise BadRequestError(f"The message has {len(data)} bytes, more than may be sent.")
        return data

    @classmethod
    def open_(cls, kind: Kind, data: bytes, find_key: FindKey, address: Address) -> Self:
        """Verify, then decode. Raises UntrustedError, BadRequestError."""
        payload = cose.open1(
            data,
            find_key=find_key,
            type=f"tma-{kind.value}",
            external_aad=address.aad(),
            limit=limits.ENVELOPE_BYTES_MAX,
        )
        value = cls._unpacked(cbor.decode(payload, limit=limits.ENVELOPE_BYTES_MAX))
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise BadRequestError(f"The {kind.value} message lacks or misuses a field.") from error

    def _fields(self, address: Address) -> Mapping[str, Any]:
        """Give what is encoded and signed."""
        del address
        return self.model_dump()

    @classmethod
    def _unpacked(cls, value: Any) -> Any:
        """Undo what ``_fields`` made of the fields; only what was verified gets here."""
        return value


class Batch(Message):
    """Consecutive events of one lane. ``backlog`` counts what is unsent behind them."""

    segment: Name
    lane: Annotated[Lane, Field(strict=False)]
    first_sequence: Annotated[int, Field(ge=1, lt=2**62)]
    count: Annotated[int, Field(ge=1, le=limits.ENVELOPE_EVENTS_MAX)]
    previous_hash: Digest
    last_hash: Digest
    backlog: Count
    events: Annotated[list[bytes], Field(min_length=1, max_length=limits.ENVELOPE_EVENTS_MAX)]

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event."""
        return self.first_sequence + self.count - 1

    @property
    def size(self) -> int:
        """The weight of its events (see ``ports.weight``), in bytes."""
        return sum(map(weight, self.events))

    def _fields(self, address: Address) -> Mapping[str, Any]:
        """Pack what goes up: certificates of one CA differ in little but key and signature."""
        fields = self.model_dump()
        if address.direction is Direction.DOWN:
            return fields
        events = cbor.encode(fields.pop("events"))
        if len(events) > limits.ENVELOPE_BYTES_MAX:
            raise BadRequestError(f"The events have {len(events)} bytes, more than may be sent.")
        return {**fields, "packed": zlib.compress(events, _PACK_LEVEL)}

    @classmethod
    def _unpacked(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "events" in value or "packed" not in value:
            return value  # pyright: ignore[reportUnknownVariableType]
        events = _unpack(value["packed"])
        return {name: one for name, one in value.items() if name != "packed"} | {"events": events}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def batch_of(
    segment: str, lane: Lane, previous_hash: bytes, rows: Sequence[Row], backlog: int
) -> Batch:
    """Make a batch of consecutive stored rows; ``previous_hash`` is of the one before."""
    assert all(after.sequence == before.sequence + 1 for before, after in pairwise(rows))
    return Batch(
        segment=segment,
        lane=lane,
        first_sequence=rows[0].sequence,
        count=len(rows),
        previous_hash=previous_hash,
        last_hash=rows[-1].hash,
        backlog=backlog,
        events=[row.event for row in rows],
    )


def _unpack(packed: Any) -> Any:
    """Unpack a list of events; no more of it than may be sent. Raises BadRequestError."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, limits.ENVELOPE_BYTES_MAX)
    except (zlib.error, TypeError) as error:
        raise BadRequestError("The events of the envelope cannot be unpacked.") from error
    if not stream.eof or stream.unused_data:
        raise BadRequestError("The events of the envelope are larger than may be sent, or cut.")
    return cbor.decode(data, limit=limits.ENVELOPE_BYTES_MAX)


def seal(batch: Batch, signer: Signer, address: Address) -> bytes:
    """Sign a batch: the envelope that travels by MQTT or as a file."""
    return batch.seal(Kind.EVENTS, signer, address)


def open_(data: bytes, find_key: FindKey, address: Address) -> Batch:
    """Verify an envelope. Raises UntrustedError, BadRequestError; see ``inbox.accept``."""
    batch = Batch.open_(Kind.EVENTS, data, find_key, address)
    if batch.count != len(batch.events):
        raise BadRequestError("The envelope does not hold as many events as it says.")
    return batch
