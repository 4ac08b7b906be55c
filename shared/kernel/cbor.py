"""Deterministic CBOR: one value, one encoding, so that hashes and signatures mean the value.

cbor2 accepts duplicate keys and trailing bytes and sorts maps length-first (research/sync.md), so
what is decoded is encoded again and must be the same bytes. Map keys are text only.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any, cast

import cbor2

from shared.kernel.errors import BadRequestError

#: What an event or message body may hold.
CborValue = Any

#: The types that cbor2 decodes into, exactly.
_TEXT = frozenset({str})
_CONTAINERS = frozenset({dict, list, tuple})


def encode(value: CborValue) -> bytes:
    """Encode by RFC 8949 §4.2.1 as cbor2 orders it; equal values give equal bytes."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, *, limit: int) -> CborValue:
    """Decode one item that is exactly ``data``, at most ``limit`` bytes long.

    Raises BadRequestError when the bytes are too many, malformed, not in the one encoding that
    ``encode`` gives, or hold a map key that is no text.
    """
    if len(data) > limit:
        raise BadRequestError(f"The message has {len(data)} bytes; at most {limit} are accepted.")
    try:
        value = cbor2.CBORDecoder(BytesIO(data)).decode()
        exact = encode(value) == data
    except Exception as error:  # cbor2 raises many types on hostile input
        raise BadRequestError("The message is not valid CBOR.") from error
    if not exact:
        raise BadRequestError("The message is not in deterministic CBOR encoding.")
    _require_text_keys(value)
    return value


def _require_text_keys(value: CborValue) -> None:
    """Walk maps and arrays without recursion and refuse keys that are no text.

    It runs for each event of a drain: what holds nothing is not walked to.
    """
    pending: list[Any] = [value]
    while pending:
        item: Any = pending.pop()
        if type(item) is dict:
            if not _TEXT.issuperset(map(type, item)):  # pyright: ignore[reportUnknownArgumentType]
                raise BadRequestError("A map in the message has a key that is not text.")
            item = cast("dict[str, Any]", item).values()
        elif type(item) not in _CONTAINERS:
            continue
        pending.extend(one for one in cast("Iterable[Any]", item) if type(one) in _CONTAINERS)
