"""Envelopes and the two slots of the key that wraps them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel import cbor
from shared.kernel.errors import BadRequestError, IntegrityError, TmaError, UntrustedError
from shared.pki import keywrap
from shared.pki.keywrap import Keyring

_BOX, _RECOVERY = b"b" * 32, b"r" * 32
_RING = Keyring.create(box_secret=_BOX, recovery_secret=_RECOVERY, random=os.urandom)
_ENVELOPE = _RING.wrap(b"secret", "key", "fleet", 1)


def _open(document: bytes) -> Keyring:
    return Keyring.open(document, box_secret=_BOX, random=os.urandom)


@given(st.binary(max_size=2_000), st.text(max_size=20), st.text(max_size=20), st.integers(0, 99))
def test_round_trip(secret: bytes, table: str, row: str, version: int):
    envelope = _RING.wrap(secret, table, row, version)
    assert len(secret) < 8 or secret not in envelope
    assert _open(_RING.document()).unwrap(envelope, table, row, version) == secret


@pytest.mark.parametrize(
    "place", [("keys", "fleet", 1), ("key", "root", 1), ("key", "fleet", 0), ("keyf", "leet", 1)]
)
def test_moved_or_rolled_back(place: tuple[str, str, int]):
    with pytest.raises(IntegrityError):
        _RING.unwrap(_ENVELOPE, *place)


@given(st.integers(0, len(_ENVELOPE) - 1), st.integers(1, 255))
def test_changed(place: int, flip: int):
    changed = bytearray(_ENVELOPE)
    changed[place] ^= flip
    with pytest.raises(IntegrityError):
        _RING.unwrap(bytes(changed), "key", "fleet", 1)


def test_equal_secrets_have_different_envelopes():
    assert _RING.wrap(b"secret", "key", "fleet", 1) != _ENVELOPE


def test_rotation():
    rotated = _open(_RING.rotate().document())
    assert rotated.unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"
    again = rotated.rewrap(_ENVELOPE, "key", "fleet", 1)
    assert cbor.decode(again, limit=10_000)["kek"] == 2
    assert cbor.decode(again, limit=10_000)["data"] == cbor.decode(_ENVELOPE, limit=10_000)["data"]
    assert rotated.unwrap(again, "key", "fleet", 1) == b"secret"
    with pytest.raises(IntegrityError, match="not in the keyring"):
        _RING.unwrap(again, "key", "fleet", 1)
    with pytest.raises(IntegrityError):
        rotated.rewrap(_ENVELOPE, "key", "root", 1)


def test_recovery_on_another_box():
    """The document from a backup, the paper, and a new box are enough; also for later KEKs."""
    typed = keywrap.recovery_text(_RECOVERY).lower().replace("-", " ")
    other_box = b"o" * 32
    restored = Keyring.recover(
        _RING.rotate().document(),
        recovery_secret=keywrap.recovery_secret(typed),
        box_secret=other_box,
        random=os.urandom,
    )
    assert restored.unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"
    reopened = Keyring.open(restored.document(), box_secret=other_box, random=os.urandom)
    assert reopened.unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"
    with pytest.raises(UntrustedError):
        _open(restored.document())
    once_more = Keyring.recover(
        restored.document(), recovery_secret=_RECOVERY, box_secret=_BOX, random=os.urandom
    )
    assert once_more.unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"


def test_wrong_secrets():
    document = _RING.document()
    with pytest.raises(UntrustedError):
        Keyring.open(document, box_secret=_RECOVERY, random=os.urandom)
    with pytest.raises(UntrustedError):
        Keyring.recover(document, recovery_secret=_BOX, box_secret=_BOX, random=os.urandom)
    with pytest.raises(BadRequestError):
        Keyring.open(document, box_secret=b"short", random=os.urandom)


@given(st.binary(max_size=300))
def test_damaged_document(noise: bytes):
    with pytest.raises(TmaError):
        _open(noise)


@given(st.binary(min_size=32, max_size=32))
def test_recovery_text(secret: bytes):
    text = keywrap.recovery_text(secret)
    assert [len(group) for group in text.split("-")] == [7] * 8
    assert keywrap.recovery_secret(f" {text.lower()}\n") == secret
    assert keywrap.recovery_secret(text.replace("O", "0").replace("I", "1")) == secret


@given(st.integers(0, 55), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_typing_error_is_noticed(place: int, letter: str):
    text = keywrap.recovery_text(_RECOVERY).replace("-", "")
    typed = text[:place] + letter + text[place + 1 :]
    if typed == text:
        assert keywrap.recovery_secret(typed) == _RECOVERY
    else:
        with pytest.raises(BadRequestError, match="typing error"):
            keywrap.recovery_secret(typed)


def test_keys_do_not_show_in_a_trace():
    assert _BOX.decode() not in repr(_RING)
    assert repr(_RING.keks[0].key) not in repr(_RING.keks)


def test_another_recovery_secret_opens_in_place_of_the_former():
    document = _RING.rotate().with_recovery(b"n" * 32).document()
    assert _open(document).unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"
    recovered = Keyring.recover(
        document, recovery_secret=b"n" * 32, box_secret=b"o" * 32, random=os.urandom
    )
    assert recovered.unwrap(_ENVELOPE, "key", "fleet", 1) == b"secret"
    with pytest.raises(UntrustedError):
        Keyring.recover(document, recovery_secret=_RECOVERY, box_secret=_BOX, random=os.urandom)
