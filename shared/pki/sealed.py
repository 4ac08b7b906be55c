"""A large document encrypted in chunks: what a backup is written in.

Layout: magic, length and bytes of a header in clear, then frames of a length word and an
AES-256-GCM ciphertext. The nonce of a frame is its number and whether it is the last one, and each
frame is bound to the header: nothing can be changed, reordered, left out or cut off unnoticed
(the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). A key seals one document.
"""

from collections.abc import Callable, Iterable, Iterator
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.kernel.errors import BadRequestError, IntegrityError

CHUNK_BYTES = 1024 * 1024
HEADER_BYTES_MAX = 256 * 1024
_MAGIC = b"TMA sealed 1\n"
_LENGTH = Struct(">I")
_NONCE = Struct(">Q3xB")
_LAST = 1 << 31
_TAG_BYTES = 16

#: ``read(n)`` gives n bytes, or fewer at the end, as a buffered file does.
Read = Callable[[int], bytes]


def seal(header: bytes, chunks: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """Give the sealed document piece by piece; each chunk has at most ``CHUNK_BYTES``."""
    assert len(header) <= HEADER_BYTES_MAX
    start = _MAGIC + _LENGTH.pack(len(header)) + header
    yield start
    cipher = AESGCM(key)
    pending: bytes | None = None
    number = 0
    for chunk in chunks:
        if pending is not None:
            yield _frame(cipher, number, pending, start, last=False)
            number += 1
        pending = chunk
    yield _frame(cipher, number, pending or b"", start, last=True)


def read_header(read: Read) -> bytes:
    """Read up to the frames. Raises BadRequestError when this is no sealed document."""
    if read(len(_MAGIC)) != _MAGIC:
        raise BadRequestError(
            "This is not a backup of TMA Edge.", remedy="Give the file that `backup` wrote."
        )
    word = read(_LENGTH.size)
    length = _LENGTH.unpack(word)[0] if len(word) == _LENGTH.size else HEADER_BYTES_MAX + 1
    if length > HEADER_BYTES_MAX:
        raise _damaged()
    header = read(length)
    if len(header) != length:
        raise _damaged()
    return header


def unseal(read: Read, header: bytes, key: bytes) -> Iterator[bytes]:
    """Give the chunks; ``read`` stands behind the header.

    Raises IntegrityError at the first byte that is not what was sealed, or missing, or too many.
    A chunk is authentic when it is given, but only the end of the iteration proves the whole.
    """
    cipher = AESGCM(key)
    start = _MAGIC + _LENGTH.pack(len(header)) + header
    number, last = 0, False
    while not last:
        word = read(_LENGTH.size)
        if len(word) != _LENGTH.size:
            raise _damaged()
        [length] = _LENGTH.unpack(word)
        last = bool(length & _LAST)
        length &= ~_LAST
        if length > CHUNK_BYTES + _TAG_BYTES:
            raise _damaged()
        frame = read(length)
        if len(frame) != length:
            raise _damaged()
        try:
            yield cipher.decrypt(_NONCE.pack(number, last), frame, start)
        except (InvalidTag, ValueError) as error:
            raise _damaged() from error
        number += 1
    if read(1):
        raise _damaged()


def _frame(cipher: AESGCM, number: int, chunk: bytes, start: bytes, *, last: bool) -> bytes:
    assert len(chunk) <= CHUNK_BYTES
    sealed = cipher.encrypt(_NONCE.pack(number, last), chunk, start)
    return _LENGTH.pack(len(sealed) | (_LAST if last else 0)) + sealed


def _damaged() -> IntegrityError:
    return IntegrityError(
        "The backup is damaged or cut off; nothing of it was used.",
        remedy="Use another backup; `backups` lists them.",
    )
