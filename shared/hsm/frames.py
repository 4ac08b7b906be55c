"""The wire between daemon and client: length-prefixed deterministic CBOR, everything bounded.

A frame is four bytes of length, most significant first, and one map. Requests carry ``id`` (chosen
by the client) and ``do`` (see ``requests``); the answer carries the same ``id`` and either ``ok``
or ``error``. A ``sign`` answer's ``ok`` is a list with ``ok`` or ``error`` for each document: one
refused document stops no other.
"""

import asyncio
from typing import Any

from shared.kernel import cbor
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    NotFoundError,
    OutcomeUnknownError,
    StorageFullError,
    TmaError,
    TokenUnavailableError,
)
from shared.kernel.limits import CRL_BYTES_MAX

#: A CRL with 100,000 entries has about 5 MB. What is signed gets a signature yet (ML-DSA: 4,627 B).
DOCUMENT_BYTES_MAX = CRL_BYTES_MAX - 8 * 1024
FRAME_BYTES_MAX = CRL_BYTES_MAX + 64 * 1024
#: What is not one large document travels in frames of this size.
BATCH_BYTES_MAX = 4 * 1024 * 1024
DOCUMENTS_MAX = 256
REFERENCE_CHARS_MAX = 128
DEADLINE_MS_MAX = 300_000
_LENGTH_BYTES = 4

_ERRORS: dict[str, type[TmaError]] = {
    kind.code: kind
    for kind in (
        BadRequestError,
        ConflictError,
        ForbiddenError,
        IntegrityError,
        NotFoundError,
        OutcomeUnknownError,
        StorageFullError,
        TokenUnavailableError,
    )
}


def pack(value: cbor.CborValue) -> bytes:
    """Encode one frame."""
    body = cbor.encode(value)
    if len(body) > FRAME_BYTES_MAX:
        raise BadRequestError(f"A frame has at most {FRAME_BYTES_MAX} bytes.")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def read(reader: asyncio.StreamReader, *, body_within_s: float | None = None) -> bytes | None:
    """Read the body of one frame; None at the end of the stream.

    Raises BadRequestError when it is too long, cut short, or not complete in time.
    """
    try:
        prefix = await reader.readexactly(_LENGTH_BYTES)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequestError("The connection ended inside a frame.") from error
        return None
    length = int.from_bytes(prefix, "big")
    if length > FRAME_BYTES_MAX:
        raise BadRequestError(f"A frame has at most {FRAME_BYTES_MAX} bytes.")
    try:
        async with asyncio.timeout(body_within_s):
            return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, TimeoutError) as error:
        raise BadRequestError("The frame did not arrive whole.") from error


def open_map(body: bytes) -> dict[str, Any]:
    """Decode a frame's body to its map; raises BadRequestError."""
    value = cbor.decode(body, limit=FRAME_BYTES_MAX)
    if not isinstance(value, dict):
        raise BadRequestError("A frame holds a map.")
    return value  # pyright: ignore[reportUnknownVariableType] - cbor admits text keys only


def error_map(error: TmaError) -> dict[str, Any]:
    """Turn an error into its map."""
    return {
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
        "retry_after_ms": None
        if error.retry_after_s is None
        else round(error.retry_after_s * 1_000),
    }


def error_of(document: dict[str, Any]) -> TmaError:
    """Make the error of a map again; an unknown code becomes OutcomeUnknownError."""
    retry_after_ms = document.get("retry_after_ms")
    return _ERRORS.get(str(document.get("code")), OutcomeUnknownError)(
        str(document.get("message")),
        remedy=str(document.get("remedy")),
        retry_after_s=None if retry_after_ms is None else retry_after_ms / 1_000,
    )
