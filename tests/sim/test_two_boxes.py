"""Two boxes under one name: both histories are kept, a person decides, and one of them goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shared.kernel.errors import ConflictError, NotFoundError
from shared.sync import forks, reconcile
from shared.sync.effects import Run, Send
from shared.sync.envelope import Address, Kind
from shared.sync.events import Direction
from shared.sync.lineage import Verdict
from shared.sync.messages import Call, Hello
from shared.sync.ports import Claim, ClaimState
from shared.sync.replicator import CentralReplicator
from tests.support.sim_link import event_id
from tests.support.sim_load import burst, command, issue
from tests.support.sim_store import MemoryTransaction
from tests.support.sim_world import CALM, Chaos, Node, World, require

_BAD_LINK = Chaos(crash=0, busy=0.05)
_OF_TWIN, _OF_FIRST, _BATCH = 20_000, 10_000, 700
_LATER = 90_000


@dataclass
class Case:
    """A world in which two boxes fight, and who of them is who."""

    world: World
    boxes: tuple[Node, Node]

    @property
    def claims(self) -> list[Claim]:
        return list(self.world.central.state.claims.values())

    @property
    def open_claims(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.state is ClaimState.OPEN]

    def loser(self, claim: Claim) -> Node:
        return next(box for box in self.boxes if box.state.opened == claim.segment)

    def other(self, box: Node) -> Node:
        return next(one for one in self.boxes if one is not box)

    def decide(self, rule: Callable[[MemoryTransaction], Any], blocked: str = "") -> None:
        """What central does for its operator: the rule, the registry, another end."""
        central = self.world.central
        central.commit(rule)
        central.remember("blocked", blocked)
        central.crash()
        self.world.run(100, until=lambda: central.connected)

    def choose(self, claim: Claim) -> None:
        def rule(tx: MemoryTransaction) -> None:
            forks.keep_claim(tx, claim.fork, self.world.bytes, revoke=False)

        self.decide(rule, Verdict.RESTORED.value)

    def take_in(self) -> None:
        """What central does in the background."""
        for claim in self.claims:
            if claim.state is ClaimState.OUTCAST:
                taken = 1
                while taken:
                    now = self.world.central.state.claims[claim.fork]
                    taken = self.world.central.commit(
                        lambda tx, now=now: forks.take_in(tx, now, 50)
                    )

    def settle(self, winner: Node, loser: Node) -> None:
        """All is well in the end: the winner goes on, the loser does not, nothing is unknown."""
        world = self.world
        world.chaos = CALM
        world.run(200)
        outcasts = [c.fork for c in self.claims if c.state is not ClaimState.DONE]

        def fetched() -> bool:
            held = world.central.state.inbox
            claims = world.central.state.claims
            return (
                winner.alive
                and not winner.stops
                and not winner.state.facts.get("doubt")
                and all(row in held.values() or place in held for place, row in _living(winner))
                and all(
                    claims[f].complete or claims[f].state is not ClaimState.OUTCAST
                    for f in outcasts
                )
            )

        world.run(2000, until=fetched)
        require(fetched(), f"not settled: {self.claims}, {winner.stops}, {world.central.alarms}")
        self.take_in()
        assert winner.write(lambda tx: issue(tx, f"{_LATER:032x}"))
        assert not loser.write(lambda tx: issue(tx, f"{_LATER + 1:032x}"))
        world.central.write(lambda tx: command(tx, "c" * 32))
        world.run(200)
        assert winner.state.effects[f"ordered:{'c' * 32}"]
        assert f"ordered:{'c' * 32}" not in loser.state.effects
        assert not winner.stops
        assert loser.stops
        assert not world.central.stops
        assert world.central.state.effects[f"status:{_LATER:032x}"] == "good"


def _living(box: Node) -> list[Any]:
    return [(p, row) for p, row in box.state.outbox.items() if p[0] not in box.state.abandoned]


def _issued(box: Node) -> set[str]:
    return {key for key in box.state.effects if key.startswith("status:")}


@pytest.fixture(params=range(12))
def case(request: pytest.FixtureRequest) -> Case:
    return fight(request.param)


def fight(seed: int) -> Case:
    """Let a copied box start beside the first one, both without a link for a while."""
    world = World(seed, CALM)
    burst(world, 20)
    world.run(60, until=world.drained)
    if seed % 3 == 1:  # the copy is older than what central holds
        twin = world.links[0].twin()
        burst(world, 30, first=3000)
        world.run(30)
    else:
        twin = world.links[0].twin()
    case = Case(world, (world.gateway, twin))
    if seed % 2:
        world.partition(world.gateway, 40)
        world.partition(twin, 50)
    world.chaos = _BAD_LINK
    for number in range(30):
        for box, first in ((world.gateway, _OF_FIRST), (twin, _OF_TWIN)):
            burst(world, _BATCH // 30, first=first + 100 * number, node=box)
        world.run(2)
    world.run(900, until=lambda: bool(case.open_claims) and all(box.stops for box in case.boxes))
    require(bool(case.open_claims), f"nobody claims: {world.central.stops}")
    world.chaos = CALM  # let both be told, whoever is not yet
    world.run(200)
    return case


def test_the_history_that_central_holds_goes_on(case: Case) -> None:
    [claim] = case.open_claims
    loser = case.loser(claim)
    both = _issued(case.boxes[0]) | _issued(case.boxes[1])
    case.world.chaos = _BAD_LINK
    case.decide(lambda tx: forks.keep_trunk(tx, revoke=False))
    case.settle(case.other(loser), loser)
    known = case.world.central.state.effects
    assert both <= known.keys()
    assert {known[one] for one in both} == {"good"}


def test_the_other_history_goes_on_behind_it(case: Case) -> None:
    [claim] = case.open_claims
    winner = case.loser(claim)
    both = _issued(case.boxes[0]) | _issued(case.boxes[1])
    case.world.chaos = _BAD_LINK
    case.choose(claim)
    case.settle(winner, case.other(winner))
    known = case.world.central.state.effects
    assert both <= known.keys()
    assert case.world.central.state.claims[claim.fork].state is ClaimState.DONE
    written = {event_id(row) for _, row in _living(winner)}
    held = {event_id(row) for row in case.world.central.state.inbox.values()}
    assert written <= held


def test_what_the_other_box_issued_is_revoked_on_demand() -> None:
    revoked = 0
    for seed in range(6):
        case = fight(seed)
        [claim] = case.open_claims
        loser = case.loser(claim)
        known = case.world.central.state.effects
        only_there, both = _issued(loser) - known.keys(), _issued(loser) & known.keys()
        case.decide(lambda tx: forks.keep_trunk(tx, revoke=True))
        case.settle(case.other(loser), loser)
        known = case.world.central.state.effects
        assert {known[one] for one in only_there} <= {"revoked"}
        assert {known[one] for one in both} <= {"good"}
        revoked += len(only_there)
    assert revoked


def test_until_somebody_decides_both_are_stopped_and_all_of_both_is_kept(case: Case) -> None:
    [claim] = case.open_claims
    central = case.world.central.state
    assert claim.complete
    held = {event_id(row) for row in central.inbox.values()}
    kept = {event_id(one.row) for _, one in central.fork_rows}
    for _, row in _living(case.loser(claim)):
        assert event_id(row) in held | kept
    assert all(box.stops for box in case.boxes)


def test_a_crash_of_anybody_changes_nothing() -> None:
    for seed in range(4):
        case = fight(seed)
        [claim] = case.open_claims
        winner = case.loser(claim)
        both = _issued(case.boxes[0]) | _issued(case.boxes[1])
        for box in (*case.boxes, case.world.central):
            box.crash()
        case.world.run(100)
        case.choose(claim)
        for seconds in (2, 5, 9):
            case.world.run(seconds)
            for box in (*case.boxes, case.world.central):
                box.crash()
        case.settle(winner, case.other(winner))
        assert both <= case.world.central.state.effects.keys()


def test_a_third_box_is_a_claim_of_its_own() -> None:
    case = fight(0)
    third = case.world.links[0].twin()
    burst(case.world, 10, first=50_000, node=third)
    case.world.run(300, until=lambda: len(case.open_claims) > 1)
    assert len(case.open_claims) == 2
    opened = [box.state.opened for box in case.boxes]
    of_first = next(claim for claim in case.open_claims if claim.segment in opened)
    with pytest.raises(NotFoundError):
        case.decide(lambda tx: forks.keep_claim(tx, "0" * 16, case.world.bytes, revoke=False))
    case.decide(lambda tx: forks.keep_trunk(tx, revoke=False))
    loser = case.loser(of_first)
    case.settle(case.other(loser), loser)
    case.world.run(200)
    case.take_in()
    assert _issued(third) <= case.world.central.state.effects.keys()
    assert not case.open_claims
    with pytest.raises(ConflictError):
        case.decide(lambda tx: forks.keep_trunk(tx, revoke=False))


def test_an_end_is_told_apart_by_what_it_has_open() -> None:
    """A box that is not chosen may say hello again and again; the other one is not disturbed."""
    case = fight(2)
    [claim] = case.open_claims
    loser = case.loser(claim)
    case.decide(lambda tx: forks.keep_trunk(tx, revoke=False))
    case.settle(case.other(loser), loser)
    for _ in range(3):
        loser.crash()
        case.world.run(100)
        case.other(loser).write(lambda tx: tx.emit("history.gap", {"detail": ""}))
    assert not case.other(loser).stops
    assert isinstance(case.world.central.end, CentralReplicator)
    assert not case.world.central.stops


def _hello(case: Case, box: Node, challenge: bytes = b"") -> Hello:
    standing = reconcile.introduce(box.reading(), 0)
    return Hello(
        nonce=case.world.bytes(16),
        boot_id=box.machine.now.boot_id,
        mono_ns=box.machine.now.mono_ns + 10**15,
        incarnation=standing.incarnation,
        version="sim",
        backlog=standing.backlog,
        segments=standing.segments,
        cursors=standing.cursors,
        challenge=challenge,
        doubt=standing.doubt,
    )


def _answers(case: Case, hello: Hello) -> list[Send]:
    """What central answers to a hello, all at once."""
    central, link = case.world.central, case.world.links[0]
    assert isinstance(central.end, CentralReplicator)
    sealed = hello.seal(Kind.HELLO, link.gateway_keys.signers[0], Address(link.name, Direction.UP))
    [run] = central.end.received(Kind.HELLO, sealed, central.machine.now)
    assert isinstance(run, Run)
    effects = run.then(central.commit(run.unit), central.machine.now)
    return [one for one in effects if isinstance(one, Send)]


def _third_box(case: Case) -> Node:
    """A copy of the box that claims, which went on in the same segment; it never spoke."""
    [claim] = case.open_claims
    third = case.world.links[0].box("third", case.loser(claim).state.copy())
    tx = third.transaction()
    for number in range(3):
        issue(tx, f"{70_000 + number:032x}")
    third.state = tx.state
    return third


def test_whoever_grew_is_asked_from_the_beginning() -> None:
    """It may be a third box that writes in the same segment: what lies before differs, too."""
    case = fight(0)
    [claim] = case.open_claims
    assert claim.complete
    assert claim.reached
    _answers(case, _hello(case, _third_box(case)))
    [claim] = case.open_claims
    assert not claim.complete
    assert claim.reached == b""


def test_a_challenge_waits_for_the_box_that_it_is_for() -> None:
    """All boxes of one name hear it: the answers of those that are known must not use it up."""
    case = fight(0)
    [claim] = case.open_claims
    third = case.world.links[0].box("third", case.loser(claim).state.copy())
    tx = third.transaction()
    tx.start()
    issue(tx, f"{70_000:032x}")
    tx.start()  # so that nothing names what the claim is known by
    third.state = tx.state
    link = case.world.links[0]
    [call] = _answers(case, _hello(case, third))
    assert call.kind is Kind.CALL
    address = Address(link.name, Direction.DOWN)
    challenge = Call.open_(Kind.CALL, call.payload, link.gateway_keys.find, address).challenge
    for box in (case.other(case.loser(claim)), case.loser(claim)):
        said = _answers(case, _hello(case, box, challenge))
        assert said[0].kind is Kind.WELCOME
    assert len(case.open_claims) == 1
    _answers(case, _hello(case, third, challenge))
    assert len(case.open_claims) == 2
