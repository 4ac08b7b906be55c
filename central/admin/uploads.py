"""Forms with files: read part by part, bounded, never kept on disk."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from shared.kernel.errors import BadRequestError, TooLargeError

_PARTS_MAX = 64
_CHUNK_BYTES = 64 * 1024
_UNREADABLE = "The form cannot be read."


@dataclass(slots=True)
class Upload:
    """A form: text fields by name, and files by field in their order as (file name, content)."""

    fields: dict[str, str]
    files: dict[str, list[tuple[str, bytes]]]


async def parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    """Give the parts of a form as they arrive; raises BadRequestError."""
    try:
        reader = await request.multipart()
        for _ in range(_PARTS_MAX):
            part = await reader.next()
            if part is None:
                return
            if not isinstance(part, BodyPartReader):
                raise BadRequestError(_UNREADABLE)
            yield part
    except (ValueError, AssertionError, RuntimeError) as error:  # aiohttp's own, by malformation
        raise BadRequestError(_UNREADABLE) from error


async def read(request: web.Request, limit: int) -> Upload:
    """Read a form of at most ``limit`` bytes; empty file fields are left out."""
    upload, left = Upload({}, {}), limit
    async for part in parts(request):
        content = b""
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            content += chunk
            if len(content) > left:
                raise TooLargeError(f"At most {limit} bytes are taken here.")
        left -= len(content)
        name = part.name or ""
        if part.filename is None:
            upload.fields[name] = _text(content)
        elif content:
            upload.files.setdefault(name, []).append((part.filename, content))
    return upload


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(_UNREADABLE) from error
