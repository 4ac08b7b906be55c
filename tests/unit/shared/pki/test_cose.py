"""Signed messages: what was signed opens, and nothing else does."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.errors import UntrustedError
from shared.pki import cose, keys

KEY = keys.generate()
OTHER = keys.generate()
MESSAGE = cose.sign1(b"payload", key=KEY, kid=b"gw-01", type="tma.events", external_aad=b"up")
SIGNATURE = cbor2.loads(MESSAGE).value[3]


def open1(data: bytes, **changes) -> bytes:
    arguments = {
        "find_key": lambda _: KEY.public_key(),
        "type": "tma.events",
        "external_aad": b"up",
        "limit": 1000,
    }
    return cose.open1(data, **arguments | changes)


def forged(**changes) -> bytes:
    """The message with parts of it replaced, in the same encoding."""
    protected, unprotected, payload, signature = cbor2.loads(MESSAGE).value
    parts = {"p": protected, "u": unprotected, "b": payload, "s": signature} | changes
    return cbor2.dumps(cbor2.CBORTag(18, list(parts.values())), canonical=True)


@given(
    st.binary(max_size=300), st.binary(max_size=40), st.text(max_size=20), st.binary(max_size=40)
)
@settings(max_examples=50, deadline=None)
def test_what_was_signed_opens(payload, kid, kind, context):
    data = cose.sign1(payload, key=KEY, kid=kid, type=kind, external_aad=context)
    asked = []

    def find_key(key_id):
        asked.append(key_id)
        return KEY.public_key()

    assert open1(data, find_key=find_key, type=kind, external_aad=context) == payload
    assert asked == [kid]


def test_every_flipped_bit_is_refused():
    for position in range(len(MESSAGE)):
        for bit in range(8):
            data = bytearray(MESSAGE)
            data[position] ^= 1 << bit
            with pytest.raises(UntrustedError):
                open1(bytes(data))


def test_every_truncation_and_addition_is_refused():
    for data in [MESSAGE[:end] for end in range(len(MESSAGE))] + [MESSAGE + b"\x00"]:
        with pytest.raises(UntrustedError):
            open1(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"find_key": lambda _: OTHER.public_key()},
        {"type": "tma.receipt"},
        {"external_aad": b"dn"},
        {"limit": len(MESSAGE) - 1},
    ],
    ids=["key", "type", "context", "limit"],
)
def test_what_surrounds_the_message_is_bound(changes):
    with pytest.raises(UntrustedError):
        open1(MESSAGE, **changes)


@pytest.mark.parametrize(
    "data",
    [
        cbor2.dumps(cbor2.loads(MESSAGE).value),
        cbor2.dumps(cbor2.CBORTag(98, cbor2.loads(MESSAGE).value)),
        forged(u={4: b"x"}),
        forged(p=cbor2.dumps({1: -35, 4: b"gw-01", 16: "tma.events"}, canonical=True)),
        forged(p=cbor2.dumps({1: -7, 16: "tma.events"}, canonical=True)),
        forged(p=cbor2.dumps({1: -7, 4: 5, 16: "tma.events"}, canonical=True)),
        forged(p=cbor2.dumps({1: -7, 4: b"gw-01", 16: "tma.events", 2: []}, canonical=True)),
        forged(p=cbor2.dumps({16: "tma.events", 4: b"gw-01", 1: -7})),
        forged(b=None),
        forged(b="payload"),
        forged(s=b""),
        forged(s=SIGNATURE[:32] + b"\x00" + SIGNATURE[32:]),
        forged(s=bytes(64)),
        forged(s=b"\xff" * 64),
        forged(s=SIGNATURE + b"\x00"),
        forged(x=b""),
        b"\xd2" * 900,
        b"",
    ],
)
def test_every_other_form_is_refused(data):
    with pytest.raises(UntrustedError):
        open1(data)


def test_an_unknown_key_id_is_the_callers_to_refuse():
    def find_key(_):
        raise UntrustedError("The key is not known.")

    with pytest.raises(UntrustedError, match="not known"):
        open1(MESSAGE, find_key=find_key)
