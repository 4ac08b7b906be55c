import zlib
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel import limits
from shared.kernel.errors import BadRequestError, TmaError, UntrustedError
from shared.sync import envelope
from shared.sync.envelope import Address, Batch, Kind, Signer, batch_of
from shared.sync.events import Direction, Lane
from shared.sync.messages import Call, Receipt
from shared.sync.ports import Row
from tests.support.sim_world import GATEWAY_KEYS

SIGNER = GATEWAY_KEYS.signers[0]
ADDRESS = Address("gw-07", Direction.UP)
SEGMENT = "ab" * 16


def _find(kid: bytes) -> ec.EllipticCurvePublicKey:
    if kid != SIGNER.kid:
        raise UntrustedError("The key is not known.")
    return SIGNER.key.public_key()


def _batch(count: int = 3, size: int = 10) -> Batch:
    rows = [Row(n, bytes(size), bytes([n % 256]) * 32, "") for n in range(1, count + 1)]
    return batch_of(SEGMENT, Lane.NORMAL, bytes(32), rows, 5)


def test_a_batch_survives_the_wire() -> None:
    batch = _batch()
    assert envelope.open_(envelope.seal(batch, SIGNER, ADDRESS), _find, ADDRESS) == batch


def test_the_envelope_is_a_cose_sign1_of_the_written_form() -> None:
    message = cbor2.loads(envelope.seal(_batch(), SIGNER, ADDRESS))
    assert message.tag == 18
    protected, unprotected, payload, signature = message.value
    assert cbor2.loads(protected) == {1: -7, 4: SIGNER.kid, 16: "tma-events"}
    assert unprotected == {}
    assert len(signature) == 64
    names = "segment lane first_sequence count previous_hash last_hash backlog packed"
    fields = cbor2.loads(payload)
    assert set(fields) == set(names.split())
    assert cbor2.loads(zlib.decompress(fields["packed"])) == _batch().events


def test_what_goes_down_is_not_packed_for_older_gateways_cannot_read_it() -> None:
    down = Address("gw-07", Direction.DOWN)
    sealed = envelope.seal(_batch(), SIGNER, down)
    assert "events" in cbor2.loads(cbor2.loads(sealed).value[2])
    assert envelope.open_(sealed, _find, down) == _batch()


def test_what_goes_up_unpacked_from_older_gateways_is_read() -> None:
    plain = _Loose(value=_batch().model_dump()).seal(Kind.EVENTS, SIGNER, ADDRESS)
    assert envelope.open_(plain, _find, ADDRESS) == _batch()


_PACKED = zlib.compress(cbor2.dumps(_batch().events))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"noise",
        _PACKED[:-1],
        _PACKED + b"\0",
        zlib.compress(cbor2.dumps([bytes(limits.ENVELOPE_BYTES_MAX)])),
        zlib.compress(bytes(64 * 1024 * 1024)),  # a bomb
        zlib.compress(cbor2.dumps("no list")),
        7,
    ],
)
def test_a_signed_pack_that_is_none_is_refused(packed: Any) -> None:
    fields = _batch().model_dump() | {"packed": packed}
    del fields["events"]
    wrong = _Loose(value=fields).seal(Kind.EVENTS, SIGNER, ADDRESS)
    with pytest.raises(BadRequestError):
        envelope.open_(wrong, _find, ADDRESS)


def test_events_come_packed_or_plain_but_not_both() -> None:
    fields = _batch().model_dump() | {"packed": _PACKED}
    both = _Loose(value=fields).seal(Kind.EVENTS, SIGNER, ADDRESS)
    with pytest.raises(BadRequestError):
        envelope.open_(both, _find, ADDRESS)


@pytest.mark.parametrize(
    "address", [Address("gw-08", Direction.UP), Address("gw-07", Direction.DOWN)]
)
def test_an_envelope_cannot_be_readdressed_or_turned_round(address: Address) -> None:
    with pytest.raises(UntrustedError):
        envelope.open_(envelope.seal(_batch(), SIGNER, ADDRESS), _find, address)


def test_a_message_cannot_pass_as_another_kind() -> None:
    call = Call(incarnation="i", utc_us=1).seal(Kind.CALL, SIGNER, ADDRESS)
    with pytest.raises(UntrustedError):
        Receipt.open_(Kind.RECEIPT, call, _find, ADDRESS)
    with pytest.raises(UntrustedError):
        envelope.open_(call, _find, ADDRESS)


def test_another_key_cannot_sign() -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    for signer in (Signer(SIGNER.kid, stranger), Signer(b"stranger", SIGNER.key)):
        with pytest.raises(UntrustedError):
            envelope.open_(envelope.seal(_batch(), signer, ADDRESS), _find, ADDRESS)


@given(st.data())
def test_a_damaged_envelope_is_not_authentic(data: st.DataObject) -> None:
    good = envelope.seal(_batch(), SIGNER, ADDRESS)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TmaError):
        envelope.open_(bytes(bad), _find, ADDRESS)


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UntrustedError):
        envelope.open_(data, _find, ADDRESS)


def test_a_full_batch_fits_and_more_is_not_sealed() -> None:
    full = _batch(200, envelope.BATCH_BYTES_MAX // 200)
    assert len(envelope.seal(full, SIGNER, ADDRESS)) <= limits.ENVELOPE_BYTES_MAX
    with pytest.raises(BadRequestError):
        envelope.seal(_batch(200, limits.ENVELOPE_BYTES_MAX // 200), SIGNER, ADDRESS)
    with pytest.raises(ValueError, match="count"):
        _batch(201)


@pytest.mark.parametrize(
    "change",
    [
        {"segment": "not a name"},
        {"lane": 2},
        {"first_sequence": 0},
        {"count": 2},
        {"count": 0},
        {"count": True},
        {"previous_hash": bytes(31)},
        {"events": []},
        {"events": ["text"] * 3},
        {"surplus": 1},
    ],
)
def test_a_signed_batch_that_is_none_is_refused(change: dict[str, Any]) -> None:
    wrong = _Loose(value=_batch().model_dump() | change)
    with pytest.raises(BadRequestError):
        envelope.open_(wrong.seal(Kind.EVENTS, SIGNER, ADDRESS), _find, ADDRESS)


class _Loose(envelope.Message):
    """A message whose payload is whatever it is given."""

    value: dict[str, Any]

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return self.value
