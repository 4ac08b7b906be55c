import contextlib
import hashlib
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import BadRequestError
from shared.kernel.limits import EVENT_BYTES_MAX
from shared.sync import events
from shared.sync.events import CATALOGUE, Direction, Event, Lane
from shared.sync.outbox import GENESIS_HASH, chain_hash

NOW = Instant(1_800_000_000_000_000, 5, "boot", ClockQuality.NTP)
REVOKED = {"ca_id": "ca", "serial": "0a", "reason": "superseded", "revoked_at_us": 1}

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_events = st.builds(
    Event,
    id=st.text(max_size=40),
    type=st.text(max_size=40),
    schema=st.integers(0, 99),
    utc_us=st.integers(-(2**62), 2**62),
    mono_ns=st.integers(0, 2**62),
    boot_id=st.text(max_size=40),
    clock=st.sampled_from([quality.value for quality in ClockQuality]),
    actor=st.text(max_size=40),
    body=st.dictionaries(st.text(), _values, max_size=4),
)


def _random(count: int) -> bytes:
    return bytes(count)


def _made(type_name: str = "certificate.revoked", body=REVOKED) -> Event:
    return events.create(type_name, body, actor="station:one", now=NOW, random=_random)


@given(_events)
def test_any_event_of_any_type_survives_the_wire(event: Event) -> None:
    data = events.encode(event)
    assert events.decode(data) == event
    assert events.encode(events.decode(data)) == data


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        events.decode(data)


@given(_events, st.data())
def test_a_damaged_event_is_refused_or_another_event(event: Event, data: st.DataObject) -> None:
    good = events.encode(event)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadRequestError):
        assert events.encode(events.decode(bytes(bad))) == bytes(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"schema": True},
        {"schema": "1"},
        {"clock": "perfect"},
        {"body": []},
        {"id": b"bytes"},
    ],
)
def test_what_is_not_an_event_is_refused(change: dict[str, object]) -> None:
    value = cbor2.loads(events.encode(_made())) | change
    with pytest.raises(BadRequestError):
        events.decode(cbor2.dumps(value, canonical=True))


def test_a_missing_field_is_refused() -> None:
    value = cbor2.loads(events.encode(_made()))
    del value["actor"]
    with pytest.raises(BadRequestError):
        events.decode(cbor2.dumps(value, canonical=True))


def test_an_event_names_when_and_how_well_that_is_known() -> None:
    event = _made()
    assert (event.utc_us, event.mono_ns, event.boot_id, event.clock) == (
        NOW.utc_us,
        5,
        "boot",
        "ntp",
    )
    assert event.id[14] == "7"  # UUIDv7


def test_bodies_are_what_the_catalogue_says() -> None:
    with pytest.raises(BadRequestError, match="serial"):
        _made(body=REVOKED | {"serial": 7})
    with pytest.raises(BadRequestError, match="not known"):
        _made("no.such.type", {})
    with pytest.raises(BadRequestError, match="surplus"):
        _made("token.changed", {"state": "gone", "detail": "", "surplus": 1})


def test_the_core_of_a_revocation_is_frozen() -> None:
    later = replace(_made(), schema=9, body=REVOKED | {"invented_later": True})
    assert events.check(later)
    with pytest.raises(BadRequestError):
        events.check(replace(_made("token.changed", {"state": "", "detail": ""}), schema=9))


def test_too_large_an_event_is_not_made() -> None:
    event = _made("token.changed", {"state": "x" * EVENT_BYTES_MAX, "detail": ""})
    with pytest.raises(BadRequestError, match=str(EVENT_BYTES_MAX)):
        events.encode(event)


def test_each_type_has_its_lane() -> None:
    assert events.lane_of("certificate.revoked") is Lane.URGENT
    assert events.lane_of("certificate.issued") is Lane.NORMAL
    urgent = {name for name, known in CATALOGUE.items() if known.lane is Lane.URGENT}
    assert {"certificate.held", "certificate.released", "directive.revoke"} <= urgent
    for name in ("segment.opened", "unheard.of"):
        with pytest.raises(BadRequestError):
            events.lane_of(name)


@given(
    st.tuples(
        st.binary(min_size=32, max_size=32),
        st.text(max_size=8),
        st.sampled_from(Direction),
        st.text(max_size=8),
        st.sampled_from(Lane),
        st.integers(1, 2**62),
        st.binary(max_size=40),
    ),
    st.data(),
)
def test_the_chain_binds_each_part_of_the_address(parts, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 6))
    others = {
        0: bytes(31) + b"x",
        1: "else",
        2: None,
        3: "else",
        4: None,
        5: 2**63,
        6: b"else" * 11,
    }
    changed = list(parts)
    other = others[place]
    if other is None:
        other = next(one for one in type(parts[place]) if one is not parts[place])
    changed[place] = other
    if changed[place] != parts[place]:
        assert chain_hash(*changed) != chain_hash(*parts)


def test_the_chain_is_what_is_written_down() -> None:
    """The hashed array written out by hand: a change of the format must not go unnoticed."""
    array = (
        b"\x87\x58\x20" + bytes(32) + b"\x65gw-07\x62up\x78\x20" + b"ab" * 16 + b"\x01\x02\x45event"
    )
    digest = chain_hash(GENESIS_HASH, "gw-07", Direction.UP, "ab" * 16, Lane.NORMAL, 2, b"event")
    assert digest == hashlib.sha256(array).digest()
