"""Comparing what both sides hold of a gateway's certificates, and repairing what differs.

Chain and cursors prove that every event came; this proves that its effect is there (design.md §5).
The gateway adds up a digest over (CA, serial, status) in 256 buckets, by the last byte of the
serial, which is random. Buckets that differ are split once more, and of those that still do the
gateway tells each certificate again, as events that change nothing where they are known.
Only what was issued by a moment that the gateway names is compared: later ones are under way.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.kernel import cbor, limits
from shared.kernel.errors import BadRequestError
from shared.sync import events
from shared.sync.envelope import BATCH_BYTES_MAX
from shared.sync.errands import Given
from shared.sync.events import Event
from shared.sync.messages import Errand
from shared.sync.ports import Holding, LinkTransaction, weight

#: Certificates that one part looks at: it holds the gateway's writer (tests/bench/comparing).
LOOKED_AT = 5_000
#: Suffixes of serials that one question may name.
SUFFIXES_MAX = 1_024
_TOLD = 100  # certificates in one part
_CAS_MAX = 64
_DIGEST_BYTES = 16
_POSITION_BYTES_MAX = 8 * 1024
#: Digits at the end of a serial that name a bucket: of the first table, and of a finer one.
_COARSE, _FINE = 2, 4

#: By CA and bucket: how many certificates, and the sum (XOR) of their digests.
Table = dict[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: serials that end in one of ``suffixes`` (none: all), as they stand.

    ``until_us`` is the last moment of issue that counts; 0: the gateway chooses it.
    """

    suffixes: frozenset[str] = frozenset()
    until_us: int = 0
    after: int = 0

    def encode(self) -> bytes:
        """Write the position of an ask."""
        return cbor.encode([sorted(self.suffixes), self.until_us, self.after])

    @classmethod
    def decode(cls, position: bytes) -> "Question":
        """Read a position. Raises BadRequestError."""
        value: Any = cbor.decode(position, limit=_POSITION_BYTES_MAX)
        try:
            suffixes, until_us, after = value
            named = frozenset(str(one) for one in suffixes)
            question = cls(named, int(until_us), int(after))
        except (TypeError, ValueError) as error:
            raise BadRequestError("The question about certificates cannot be read.") from error
        lengths = {len(one) for one in named}
        if len(named) > SUFFIXES_MAX or len(lengths) > 1 or not lengths <= {_COARSE, _FINE}:
            raise BadRequestError("The question about certificates names no buckets.")
        return question

    def names(self, serial: str) -> bool:
        """Tell if a serial is asked for."""
        if not self.suffixes:
            return True
        return serial[-_COARSE:] in self.suffixes or serial[-_FINE:] in self.suffixes

    def bucket(self, serial: str) -> str:
        """Name the bucket of the answer that a serial is in."""
        return serial[-(_FINE if self.suffixes else _COARSE) :]


class Told(NamedTuple):
    """A certificate as the gateway holds it, and the events that say all of it."""

    holding: Holding
    events: Sequence[Event]


def add_up(table: Table, holdings: Iterable[Holding], question: Question) -> None:
    """Add certificates to a table; the order does not matter."""
    for _, ca_id, serial, status in holdings:
        if question.names(serial):
            place = ca_id, question.bucket(serial)
            count, total = table.get(place, (0, 0))
            named = f"{ca_id}/{serial}/{status}".encode()
            digest = int.from_bytes(hashlib.sha256(named).digest()[:_DIGEST_BYTES])
            table[place] = count + 1, total ^ digest


def differing(ours: Table, theirs: Table) -> list[str]:
    """Name the buckets that are not equal, whatever the CA."""
    places = ours.keys() | theirs.keys()
    return sorted({place[1] for place in places if ours.get(place) != theirs.get(place)})


# --- the gateway's side ---------------------------------------------------------------------------


def give(store: LinkTransaction, errand: Errand, position: bytes, now_us: int) -> Given:
    """Give the next part of what a comparison asks for."""
    question = Question.decode(position)
    until_us = question.until_us or now_us - limits.COMPARED_AFTER_US
    question = Question(question.suffixes, until_us, question.after)
    holdings = store.holdings.page(question.after, until_us, LOOKED_AT)
    if errand is Errand.DIGEST:
        table: Table = {}
        add_up(table, holdings, question)
        after = holdings[-1].number if holdings else question.after
        content = [cbor.encode([until_us, _written(table)])]
    else:
        content, after = _told(store, holdings, question)
    done = not holdings or (after == holdings[-1].number and len(holdings) < LOOKED_AT)
    return Given(content, Question(question.suffixes, until_us, after).encode(), done=done)


def _told(
    store: LinkTransaction, holdings: Sequence[Holding], question: Question
) -> tuple[list[bytes], int]:
    """Tell of certificates as far as they fit; gives up to where that is."""
    content: list[bytes] = []
    size, after = 0, question.after
    for holding in holdings:
        if question.names(holding.serial):
            told = [events.encode(event) for event in store.holdings.told(holding)]
            encoded = cbor.encode([list(holding), told])
            size += weight(encoded)
            if content and (size > BATCH_BYTES_MAX or len(content) == _TOLD):
                break
            content.append(encoded)
        after = holding.number
    return content, after


def _written(table: Table) -> list[Any]:
    return [
        [ca_id, bucket, count, total.to_bytes(_DIGEST_BYTES)]
        for (ca_id, bucket), (count, total) in sorted(table.items())
    ]


# --- central's side -------------------------------------------------------------------------------


def read_table(content: bytes) -> tuple[int, Table]:
    """Read the moment that is compared, and a part of a table. Raises BadRequestError."""
    value: Any = cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX)
    try:
        until_us, rows = value
        table: Table = {
            (str(ca_id), str(bucket)): (int(count), int.from_bytes(total[:_DIGEST_BYTES]))
            for ca_id, bucket, count, total in rows
        }
        if len({ca_id for ca_id, _ in table}) > _CAS_MAX:
            raise BadRequestError("The digest names too many CAs.")
        return int(until_us), table
    except (TypeError, ValueError) as error:
        raise BadRequestError("The digest of a gateway cannot be read.") from error


def join(table: Table, part: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    """Add a part of a table."""
    for place, (count, total) in part.items():
        known = table.get(place, (0, 0))
        table[place] = known[0] + count, known[1] ^ total


def read_told(content: bytes) -> Told:
    """Read what a gateway tells of one certificate. Raises BadRequestError."""
    value: Any = cbor.decode(content, limit=limits.ENVELOPE_BYTES_MAX)
    try:
        (number, ca_id, serial, status), told = value
        holding = Holding(int(number), str(ca_id), str(serial), str(status))
        decoded = [events.decode(event) for event in told]
    except (TypeError, ValueError) as error:
        raise BadRequestError("What a gateway tells of a certificate cannot be read.") from error
    for event in decoded:
        events.check(event)
        place = event.body.get("ca_id"), event.body.get("serial")
        if not event.type.startswith("certificate.") or place != holding[1:3]:
            raise BadRequestError("A gateway tells of another certificate than it names.")
    return Told(holding, decoded)
