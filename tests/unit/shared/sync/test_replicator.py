"""What the two ends do with single inputs; how they behave together is in tests/sim."""

import random
from dataclasses import replace

import pytest

from shared.kernel import limits
from shared.kernel.clock import ClockQuality, Instant
from shared.sync import envelope, inbox
from shared.sync.effects import Alarm, Contact, Effects, Online, Run, Send, Stop, parse_topic, topic
from shared.sync.envelope import Address, Batch, Kind
from shared.sync.events import Direction, Lane
from shared.sync.inbox import Outcome
from shared.sync.lineage import Finding, Verdict
from shared.sync.messages import Hello, Welcome
from shared.sync.ports import NOTHING, Row
from shared.sync.receiver import WINDOW_BYTES, Receiver
from shared.sync.replicator import CentralReplicator, GatewayReplicator
from tests.support.sim_load import issue, revoke
from tests.support.sim_store import GATEWAY, MemoryTransaction, State
from tests.support.sim_world import CENTRAL_KEYS, GATEWAY_KEYS

START = Instant(1_800_000_000_000_000, 10**12, "boot", ClockQuality.NTP)
INCARNATION = "0" * 32
SEGMENT = "ab" * 16


class Side:
    """One end with its tables; effects are carried out at once."""

    def __init__(self, direction: Direction) -> None:
        self.random = random.Random(direction.value).randbytes
        self.tx = MemoryTransaction(State(), direction, START, self.random, lambda *_: None)
        if direction is Direction.UP:
            self.tx.start()
            self.end = GatewayReplicator(
                GATEWAY, GATEWAY_KEYS, version="1", random=self.random, now=START
            )
        else:
            self.end = CentralReplicator(GATEWAY, CENTRAL_KEYS, incarnation=INCARNATION)

    def settle(self, effects: Effects, now: Instant = START) -> Effects:
        """Run all transactions and give everything else that is wanted."""
        rest: Effects = []
        for effect in effects:
            if isinstance(effect, Run):
                rest += self.settle(effect.then(effect.unit(self.tx), now), now)
            else:
                rest.append(effect)
        return rest


def _later(seconds: float) -> Instant:
    return replace(START, mono_ns=START.mono_ns + int(seconds * 10**9))


def _exchange(gateway: Side, central: Side, effects: Effects, now: Instant = START) -> Effects:
    """Deliver messages to and fro until all is quiet; give the other effects."""
    seen: Effects = []
    waiting = list(effects)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, Send):
            to = central if "/up/" in effect.topic else gateway
            waiting += to.settle(to.end.received(effect.kind, effect.payload, now), now)
        else:
            seen.append(effect)
    return seen


@pytest.fixture
def sides() -> tuple[Side, Side]:
    return Side(Direction.UP), Side(Direction.DOWN)


def _connected(gateway: Side, central: Side, window: int = 20) -> Effects:
    central.settle(central.end.connected(20, START))
    return _exchange(gateway, central, gateway.settle(gateway.end.connected(window, START)))


def test_a_session_drains_both_ways(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    issue(gateway.tx, "1" * 32)
    notices = _connected(gateway, central)
    assert any(isinstance(one, Contact) and one.utc_us == START.utc_us for one in notices)
    assert central.tx.state.inbox == gateway.tx.state.outbox
    assert gateway.tx.backlog() == 0
    body = {"incarnation": "i", "number": 1, "ca_id": "c", "serial": "s", "reason": "r"}
    central.tx.emit("directive.revoke", body)
    _exchange(gateway, central, central.settle(central.end.wake(START)))
    assert [row.type for row in gateway.tx.state.inbox.values()].count("directive.revoke") == 1
    assert central.tx.backlog() == 0


def test_nothing_is_sent_before_the_welcome(sides: tuple[Side, Side]) -> None:
    gateway, _ = sides
    issue(gateway.tx, "1" * 32)
    sent = gateway.settle(gateway.end.connected(20, START))
    assert [one.kind for one in sent if isinstance(one, Send)] == [Kind.HELLO]
    assert gateway.settle(gateway.end.wake(START)) == []


@pytest.mark.parametrize("window", [1, 3, 20])
def test_no_more_is_under_way_than_the_window(sides: tuple[Side, Side], window: int) -> None:
    gateway, central = sides
    _connected(gateway, central, window)
    for number in range(10_000):
        issue(gateway.tx, f"{number:032x}")
    sent = gateway.settle(gateway.end.wake(START))
    assert len(sent) == window
    assert gateway.settle(gateway.end.wake(START)) == []
    first, *_ = sent
    assert isinstance(first, Send)
    receipt, *_ = [
        one
        for one in central.settle(central.end.received(first.kind, first.payload, START))
        if isinstance(one, Send)
    ]
    more = gateway.settle(gateway.end.received(receipt.kind, receipt.payload, START))
    assert len(more) == 1


def _opened(sent: Effects) -> list[Batch]:
    address = Address(GATEWAY, Direction.UP)
    return [
        envelope.open_(one.payload, CENTRAL_KEYS.find, address)
        for one in sent
        if isinstance(one, Send)
    ]


@pytest.mark.parametrize("credit", [100_000, 1_000_000, WINDOW_BYTES])
def test_no_more_is_under_way_than_the_credit(sides: tuple[Side, Side], credit: int) -> None:
    gateway, _ = sides
    central = Side(Direction.DOWN)
    central.end = CentralReplicator(
        GATEWAY, CENTRAL_KEYS, incarnation=INCARNATION, credit=lambda: credit
    )
    _connected(gateway, central, window=1_000)
    for number in range(30_000):
        issue(gateway.tx, f"{number:032x}")
    batches = _opened(gateway.settle(gateway.end.wake(START)))
    assert credit // 4 < sum(batch.size for batch in batches) <= credit
    crumbs = [batch for batch in batches if batch.count < limits.ENVELOPE_EVENTS_MAX]
    assert len(batches) == 1 or crumbs == []


def test_what_is_urgent_finds_room_in_a_window_that_is_full(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central, window=1_000)
    for number in range(30_000):
        issue(gateway.tx, f"{number:032x}")
    assert all(
        batch.lane is Lane.NORMAL for batch in _opened(gateway.settle(gateway.end.wake(START)))
    )
    revoke(gateway.tx, "1" * 32)
    [batch] = _opened(gateway.settle(gateway.end.wake(START)))
    assert batch.lane is Lane.URGENT


def test_what_got_lost_on_the_way_goes_again_once_what_followed_is_answered(
    sides: tuple[Side, Side],
) -> None:
    gateway, central = sides
    _connected(gateway, central)
    for number in range(3_000):
        issue(gateway.tx, f"{number:032x}")
    first, _lost, *others = gateway.settle(gateway.end.wake(START))
    rest = _exchange(gateway, central, [first, *others])
    assert not any(isinstance(one, Alarm) for one in rest)
    assert gateway.tx.backlog() == 0
    assert central.tx.state.inbox == gateway.tx.state.outbox


def test_a_peer_that_repeats_itself_is_sent_the_same_but_once(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central)
    for number in range(3_000):
        issue(gateway.tx, f"{number:032x}")
    first, *_ = gateway.settle(gateway.end.wake(START))
    assert isinstance(first, Send)
    answers = central.settle(central.end.received(first.kind, first.payload, START))
    [receipt] = [one for one in answers if isinstance(one, Send)]
    again = [
        len(_opened(gateway.settle(gateway.end.received(receipt.kind, receipt.payload, START))))
        for _ in range(4)
    ]
    assert again[1] > 0
    assert again[2:] == [0, 0]


def test_what_is_urgent_is_applied_before_batches_that_came_earlier() -> None:
    ran: list[Batch] = []
    receiver = Receiver(
        Address(GATEWAY, Direction.UP), lambda: WINDOW_BYTES, lambda *_: [], lambda *_: []
    )

    def run(effects: Effects) -> Effects:
        [effect] = effects
        batches = effect.unit.args[1]
        ran.extend(batches)
        nothing = [inbox.Acceptance(SEGMENT, b.lane, Outcome.KNOWN, NOTHING) for b in batches]
        return effect.then(nothing, START)

    running = receiver.take(_empty(Lane.NORMAL, 1))
    for number in range(2, 8):
        assert receiver.take(_empty(Lane.NORMAL, number)) == []
    assert receiver.take(_empty(Lane.URGENT, 1)) == []
    while running:
        running = run(running)
    assert [(batch.lane, batch.first_sequence) for batch in ran] == [
        (Lane.NORMAL, 1), (Lane.URGENT, 1), *((Lane.NORMAL, number) for number in range(2, 8)),
    ]  # fmt: skip


def _empty(lane: Lane, sequence: int) -> Batch:
    return envelope.batch_of(SEGMENT, lane, bytes(32), [Row(sequence, b"", bytes(32), "")], 0)


def test_what_is_not_confirmed_is_sent_again_and_less_and_less_often(
    sides: tuple[Side, Side],
) -> None:
    gateway, central = sides
    _connected(gateway, central)
    issue(gateway.tx, "1" * 32)
    assert len(gateway.settle(gateway.end.wake(START))) == 1
    times = []
    for second in range(1, 400):
        now = _later(second)
        effects = gateway.settle(gateway.end.tick(now), now)
        if any(isinstance(one, Send) and one.kind is Kind.EVENTS for one in effects):
            times.append(second)
    assert times[:3] == [15, 45, 105]


def test_a_silent_central_is_said_to_be_silent(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central)
    effects: Effects = []
    for second in range(1, 90):
        effects += gateway.settle(gateway.end.tick(_later(second)), _later(second))
    assert any(isinstance(one, Online) and not one.online for one in effects)
    hellos = [one for one in effects if isinstance(one, Send) and one.kind is Kind.HELLO]
    assert 2 <= len(hellos) <= 8  # repeated, with growing pauses


def test_a_welcome_answers_one_hello_only(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    (hello,) = gateway.settle(gateway.end.connected(20, START))
    assert isinstance(hello, Send)
    answers = central.settle(central.end.received(hello.kind, hello.payload, START))
    welcome = next(one for one in answers if isinstance(one, Send) and one.kind is Kind.WELCOME)
    gateway.end.disconnected(START)
    gateway.settle(gateway.end.connected(20, START))
    assert gateway.end.received(welcome.kind, welcome.payload, START) == []


def test_a_forged_verdict_stops_nobody(sides: tuple[Side, Side]) -> None:
    gateway, _ = sides
    (hello,) = gateway.settle(gateway.end.connected(20, START))
    assert isinstance(hello, Send)
    address = Address(GATEWAY, Direction.UP)
    asked = Hello.open_(Kind.HELLO, hello.payload, CENTRAL_KEYS.find, address)
    forged = Welcome(
        nonce=asked.nonce,
        incarnation="i",
        verdict="clone",
        reason="",
        utc_us=1,
        cursors=[],
        credit=0,
    ).seal(Kind.WELCOME, GATEWAY_KEYS.signers[0], Address(GATEWAY, Direction.DOWN))
    effects = gateway.end.received(Kind.WELCOME, forged, START)
    assert [type(one) for one in effects] == [Alarm]


def test_a_tampered_receipt_confirms_nothing(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central)
    issue(gateway.tx, "1" * 32)
    (sent,) = gateway.settle(gateway.end.wake(START))
    assert isinstance(sent, Send)
    answers = central.settle(central.end.received(sent.kind, sent.payload, START))
    [receipt] = [one for one in answers if isinstance(one, Send) and one.kind is Kind.RECEIPT]
    waiting = gateway.tx.backlog()
    for place in range(0, len(receipt.payload), 7):
        damaged = bytearray(receipt.payload)
        damaged[place] ^= 1
        effects = gateway.settle(gateway.end.received(Kind.RECEIPT, bytes(damaged), START))
        assert [type(one) for one in effects] == [Alarm]
        assert gateway.tx.backlog() == waiting
    gateway.settle(gateway.end.received(receipt.kind, receipt.payload, START))
    assert gateway.tx.backlog() == 0


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xd2\x84", bytes(1000)])
def test_noise_is_an_alarm_or_nothing(sides: tuple[Side, Side], kind: Kind, payload: bytes) -> None:
    for side in sides:
        before = side.tx.state.copy()
        effects = side.end.received(kind, payload, START)
        assert [one for one in effects if not isinstance(one, Alarm)] == []
        assert side.tx.state == before


def test_a_message_for_another_gateway_is_not_taken(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central)
    issue(gateway.tx, "1" * 32)
    (sent,) = gateway.settle(gateway.end.wake(START))
    assert isinstance(sent, Send)
    other = CentralReplicator("gw-08", CENTRAL_KEYS, incarnation=INCARNATION)
    assert [type(one) for one in other.received(sent.kind, sent.payload, START)] == [Alarm]


def test_a_blocked_gateway_is_told_and_not_heard(sides: tuple[Side, Side]) -> None:
    gateway, central = sides
    _connected(gateway, central)
    issue(gateway.tx, "1" * 32)
    (sent,) = gateway.settle(gateway.end.wake(START))
    held = dict(central.tx.state.inbox)
    finding = Finding(Verdict.CLONE, "There are two of them.")
    told = _exchange(gateway, central, central.settle(central.end.block(finding, START)))
    assert told.count(Stop(*finding)) >= 2  # central's registry, and the gateway's line
    assert isinstance(sent, Send)
    assert central.end.received(sent.kind, sent.payload, START) == []
    assert central.tx.state.inbox == held


def test_topics_are_read_as_they_are_written() -> None:
    for direction in Direction:
        assert parse_topic(topic("gw-07", direction, "events")) == ("gw-07", direction, "events")
    for wrong in ("", "tma/v1/gw", "tma/v2/gw/up/events", "tma/v1/gw/in/events", "a/b/c/d/e"):
        assert parse_topic(wrong) is None
