"""A sealed document is given whole or refused: no byte of it can be changed, moved or left out."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import sealed

KEY = bytes(range(32))
HEADER = b"header"
chunks_of_any_size = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def _seal(chunks: list[bytes]) -> bytes:
    return b"".join(sealed.seal(HEADER, chunks, KEY))


def _unseal(data: bytes, key: bytes = KEY) -> list[bytes]:
    file = io.BytesIO(data)
    return list(sealed.unseal(file.read, sealed.read_header(file.read), key))


@given(chunks_of_any_size)
def test_what_was_sealed_comes_back(chunks: list[bytes]) -> None:
    assert _unseal(_seal(chunks)) == (chunks or [b""])


@given(chunks_of_any_size, st.data())
def test_any_change_is_refused(chunks: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(_seal(chunks))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((IntegrityError, BadRequestError)):
        _unseal(bytes(whole))


@given(chunks_of_any_size, st.data())
def test_any_end_but_the_end_is_refused(chunks: list[bytes], data: st.DataObject) -> None:
    whole = _seal(chunks)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises((IntegrityError, BadRequestError)):
        _unseal(whole[:cut])
    with pytest.raises(IntegrityError):
        _unseal(whole + b"x")


def test_frames_cannot_change_places() -> None:
    pieces = list(sealed.seal(HEADER, [b"one", b"two", b"end"], KEY))
    pieces[1], pieces[2] = pieces[2], pieces[1]
    with pytest.raises(IntegrityError):
        _unseal(b"".join(pieces))


def test_a_frame_left_out_is_noticed() -> None:
    pieces = list(sealed.seal(HEADER, [b"one", b"two", b"end"], KEY))
    with pytest.raises(IntegrityError):
        _unseal(b"".join(pieces[:1] + pieces[2:]))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(IntegrityError):
        _unseal(_seal([b"secret"]), bytes(32))
    assert b"secret" not in _seal([b"secret"])
