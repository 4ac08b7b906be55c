"""What a restored central asks for, part by part."""

import pytest

from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.sync import giving_back
from shared.sync.errands import Taken
from shared.sync.events import Direction, Lane
from shared.sync.messages import Errand, Part
from shared.sync.ports import Cursor, Directive, Lacking
from tests.support.sim_load import command, issue
from tests.support.sim_store import MemoryTransaction, State
from tests.support.sim_world import CALM, World


def _tables(direction: Direction) -> MemoryTransaction:
    return World(1, CALM).links[0].box("one", State(), direction).transaction()


def _part(content: list[bytes], *, done: bool = True) -> Part:
    return Part(nonce=bytes(16), errand=Errand.DIRECTIVES, content=content, position=b"", done=done)


def _held(count: int) -> MemoryTransaction:
    gateway = _tables(Direction.UP)
    gateway.state.effects |= {f"ordered:{number:032x}": number for number in range(1, count + 1)}
    return gateway


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_directives_come_in_order_each_once(count: int) -> None:
    gateway, central = _held(count), _tables(Direction.DOWN)
    position, parts = b"", 0
    while True:
        given = giving_back.give(gateway, Errand.DIRECTIVES, position)
        assert giving_back.take_directives(central, _part(given.content, done=given.done)) is (
            Taken.YES
        )
        position, parts = given.position, parts + 1
        if given.done:
            break
        assert central.lacking() is Lacking.NOTHING
    assert parts == count // 100 + 1
    assert central.state.orders == {f"{number:032x}": number for number in range(1, count + 1)}
    assert central.lacking() is Lacking.EVENTS


def test_large_directives_fill_a_part_each(monkeypatch: pytest.MonkeyPatch) -> None:
    large = [Directive(number, "codes", "b", bytes(120_000), 0) for number in range(5)]
    gateway = _tables(Direction.UP)
    monkeypatch.setattr(
        gateway, "directives", lambda after, most: [one for one in large if one[:3] > after]
    )
    position, seen = b"", 0
    while True:
        given = giving_back.give(gateway, Errand.DIRECTIVES, position)
        assert sum(map(len, given.content)) < 256 * 1024
        seen, position = seen + len(given.content), given.position
        if given.done:
            break
    assert seen == 5


def test_what_is_known_here_as_well_stays() -> None:
    central = _tables(Direction.DOWN)
    for _ in range(3):
        command(central, "1" * 32)
    given = cbor.encode([2, "revoke", "1" * 32, b"", 0])
    giving_back.take_directives(central, _part([given]))
    assert central.state.orders == {"1" * 32: 3}


def test_what_the_gateway_wrote_is_waited_for() -> None:
    gateway, central = _tables(Direction.UP), _tables(Direction.DOWN)
    gateway.start()
    issue(gateway, "1" * 32)
    central.set_lacking(Lacking.EVENTS)
    part = _part(giving_back.give(gateway, Errand.HEADS, b"").content)
    assert giving_back.take_heads(central, part) is Taken.NOT_YET
    assert central.lacking() is Lacking.EVENTS
    for (name, lane), head in gateway.state.heads.items():
        central.set_in_cursor(name, lane, head)
    assert giving_back.take_heads(central, part) is Taken.YES
    assert central.lacking() is Lacking.NOTHING


@pytest.mark.parametrize("content", [b"\x00", b"\x80", cbor.encode([1, 2, 3, 4, 5])])
def test_what_cannot_be_read_is_refused(content: bytes) -> None:
    with pytest.raises(BadRequestError):
        giving_back.take_directives(_tables(Direction.DOWN), _part([content]))


@pytest.mark.parametrize("content", [b"\x00", cbor.encode([["a" * 32, {}]]), cbor.encode([[1]])])
def test_heads_that_cannot_be_read_are_refused(content: bytes) -> None:
    with pytest.raises(BadRequestError):
        giving_back.take_heads(_tables(Direction.DOWN), _part([content]))


def test_marks_of_segments_from_after_the_backup_do_not_hide_the_others() -> None:
    central = _tables(Direction.DOWN)
    central.emit(
        "directive.revoke",
        {
            "incarnation": "i",
            "number": 1,
            "ca_id": "c",
            "serial": "1",
            "reason": "r",
        },
    )
    opened = central.state.opened
    assert opened is not None
    ours = central.state.heads[opened, Lane.URGENT]
    marks = {
        (opened, Lane.URGENT): (ours.sequence, ours.hash, 0),
        ("f" * 32, Lane.URGENT): (9, bytes(32), 0),
    }
    assert giving_back.confirm(central, {k: Cursor(*v) for k, v in marks.items()}) is None
    assert central.out_cursor(opened, Lane.URGENT).applied == ours.sequence
