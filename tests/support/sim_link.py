"""One simulated link: a gateway, central's end of it, and what must always hold between them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

from shared.kernel.errors import UntrustedError
from shared.sync.effects import Stop
from shared.sync.ends import Keys
from shared.sync.envelope import Signer
from shared.sync.events import Direction, Event, Lane
from shared.sync.lineage import Verdict
from shared.sync.ports import Row
from tests.support.sim_machine import Machine
from tests.support.sim_node import Node
from tests.support.sim_store import GATEWAY, State

if TYPE_CHECKING:
    from tests.support.sim_world import World

_ALL = 1 << 31


class ViolationError(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ViolationError(what)


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


_CENTRAL_KEY = _key(8)
_GATEWAY_KEYS = [_key(7), *(_key(number) for number in range(100, 108))]


def _find(kid: bytes, key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], Any]:
    public = key.public_key()

    def find(asked: bytes) -> ec.EllipticCurvePublicKey:
        if asked != kid:
            raise UntrustedError("The key is not known.")
        return public

    return find


def gateway_keys(number: int) -> Keys:
    return Keys([Signer(b"gateway", _GATEWAY_KEYS[number])], _find(b"central", _CENTRAL_KEY))


def central_keys(number: int) -> Keys:
    return Keys([Signer(b"central", _CENTRAL_KEY)], _find(b"gateway", _GATEWAY_KEYS[number]))


class Link:
    """Both ends, and what each of them has ever made durable."""

    def __init__(self, world: "World", number: int, central: Machine) -> None:
        self.world = world
        self.name = GATEWAY if number == 0 else f"gw-{number + 20}"
        self.gateway_keys, self.central_keys = gateway_keys(number), central_keys(number)
        #: Each event ever made durable, by place; after a disk was put back there may be several.
        self.truth: dict[tuple[Direction, str, Lane, int], set[Row]] = {}
        #: The ids of the gateway's events that some disk held whenever one was lost.
        self.must: set[str] = set()
        #: The ids of all issues that ever became durable.
        self.issued: set[str] = set()
        #: Whether the gateway's disk is an old copy that has not taken everything back yet.
        self.recovering = False
        #: Whether nothing can heal it any more without a person: two boxes, or no history at all.
        self.broken = False
        self.expected: set[Verdict] = set()
        self.verdicts: dict[str, int] = {}
        self.gateway = world.node_class(self, Machine(world, self.name), Direction.UP)
        self.central = world.node_class(self, central, Direction.DOWN)
        self.nodes = [self.gateway, self.central]

    def box(self, name: str, state: State, direction: Direction = Direction.UP) -> Node:
        """Another box with this gateway's keys and a disk like this; it is not started."""
        return Node(self, Machine(self.world, name), direction, state)

    def twin(self) -> Node:
        """Copy the gateway's disk into a second box, which starts at once."""
        twin = self.box(f"{self.name}-twin", self.gateway.synced.copy())
        self.nodes.append(twin)
        self.world.machines.append(twin.machine)
        self.expected = set(Verdict)
        twin.start()
        return twin

    def put_back(self, backup: Any) -> None:
        """Put an old copy in the place of a disk that is lost; what nobody holds now is lost."""
        self.expected.add(Verdict.RESTORED)
        self.gateway.crash()
        self.gateway.put_back(backup)
        self.recovering = True
        self.forget_what_nobody_holds()

    def forget_what_nobody_holds(self) -> None:
        kept = [*self.central.synced.inbox.values(), *self.gateway.synced.outbox.values()]
        self.must &= {event_id(row) for row in kept}

    # What the nodes make of events.

    def apply(self, effects: dict[str, Any], event: Event) -> None:
        """The projection: who was applied how often, and the status lattice."""
        key = f"applied:{event.id}"
        effects[key] = effects.get(key, 0) + 1
        if event.type == "certificate.issued" and event.body["profile"] == "unappliable":
            effects[f"half:{event.id}"] = True
            raise ValueError("a defect in applying")
        self.reapply(effects, event)

    def reapply(self, effects: dict[str, Any], event: Event) -> None:
        """What both sides make of an event, the gateway of its own: the status lattice."""
        serial = event.body.get("serial")
        if event.type in {"certificate.revoked", "certificate.voided"}:
            effects[f"status:{serial}"] = "revoked"
        elif event.type == "certificate.issued" and event.body["profile"] != "unappliable":
            effects.setdefault(f"status:{serial}", "good")
        elif event.type == "directive.revoke":
            known = effects.get(f"ordered:{serial}", 0)
            effects[f"ordered:{serial}"] = max(known, event.body["number"])

    # Invariants.

    def committed(self, node: Node, before: State, after: State) -> None:
        """Check what became durable."""
        for place in after.outbox.keys() - before.outbox.keys():
            self._wrote(node, before, place, after.outbox[place])
        origin = Direction.DOWN if node.direction is Direction.UP else Direction.UP
        for place in after.inbox.keys() - before.inbox.keys():
            written = self.truth.get((origin, *place), set())
            require(after.inbox[place] in written, f"{place} is not what was sent")
        for lane, cursor in before.in_cursors.items():
            require(after.in_cursors[lane].applied >= cursor.applied, f"the cursor {lane} fell")
        for lane, cursor in after.in_cursors.items():
            if cursor != before.in_cursors.get(lane):
                held = all((*lane, n) in after.inbox for n in range(1, cursor.applied + 1))
                require(held, f"the log {lane} is no prefix")
        _check_pruned(before, after)
        _check_effects(before.effects, after.effects)

    def _wrote(self, node: Node, before: State, place: tuple[str, Lane, int], row: Row) -> None:
        written = self.truth.setdefault((node.direction, *place), set())
        new = row not in written
        written.add(row)
        require(len(written) == 1 or bool(self.expected), f"{place} was written twice")
        self.world.count("events", int(new))
        if node.direction is Direction.UP:
            name = event_id(row)
            self.must.add(name)
            if row.type == "certificate.issued" and name not in self.issued:
                self.issued.add(name)
                stopped = before.facts.get("line") and node.synced.facts.get("line")
                require(not stopped, f"{place} was issued while the line was stopped")

    def stopped(self, node: Node, stop: Stop) -> None:
        self.world.note("stop", node.name, stop.verdict.value)
        self.verdicts[stop.verdict.value] = self.verdicts.get(stop.verdict.value, 0) + 1
        require(stop.verdict in self.expected, f"{node.name} stopped without cause: {stop}")

    def drained(self) -> bool:
        """Tell if each side holds, and has confirmed to the other, all that the other wrote."""
        ends: Sequence[Node] = (self.gateway, self.central)
        if any(node.stops or node.state.facts.get("doubt") or not node.alive for node in ends):
            return False
        if self.gateway.state.intents:
            return False
        held = self.central.state.inbox
        confirmed = all(
            out.confirmed[lane].applied == head.sequence
            for node in ends
            for out in node.reading().out_segments(_ALL)
            for lane, head in out.heads.items()
        )
        regained = not self.central.state.facts.get("lacking")
        ordered = self.central.state
        obeyed = all(  # a disk that was put back just now has not said so yet
            place in self.gateway.state.inbox
            for place in ordered.outbox
            if place[0] == ordered.opened
        )
        return (
            confirmed and regained and obeyed and all(p in held for p in self.gateway.state.outbox)
        )

    def check_complete(self) -> None:
        """After draining: nothing is lost, and each event is applied or quarantined."""
        central = self.central.state
        held = {event_id(row) for row in central.inbox.values() if row.type != "segment.opened"}
        for place, row in self.gateway.state.outbox.items():
            require(central.inbox.get(place) == row, f"{place} is not what central holds")
        for lost in self.must - held:
            opening = any(
                row.type == "segment.opened" and event_id(row) == lost
                for rows in self.truth.values()
                for row in rows
            )
            require(opening, f"{lost} is lost")
        for serial, number in central.orders.items():
            done = self.gateway.state.effects.get(f"ordered:{serial}")
            require(done == number, f"the order about {serial} is lost")
        for key, value in central.effects.items():
            if key.startswith("status:"):
                ours = self.gateway.state.effects.get(key)
                require(ours == value, f"{key} is {value} at central and {ours} at the gateway")
        for node in (self.gateway, self.central):
            for place, row in node.state.inbox.items():
                applied = f"applied:{event_id(row)}" in node.state.effects
                quarantined = place in node.state.quarantined
                opening = row.type == "segment.opened"
                require(applied + quarantined + opening == 1, f"{place} has no one fate")


def _check_pruned(before: State, after: State) -> None:
    """No more than what the peer archived may be pruned; this row itself stays."""
    for name, lane, sequence in before.outbox.keys() - after.outbox.keys():
        if name in after.abandoned or sequence > after.heads[name, lane].sequence:
            continue  # its events are written again in another place
        archived = after.out_cursors[name, lane].archived
        require(sequence < archived, f"{name} {lane} {sequence} was pruned, not archived")


def _check_effects(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in after.items() - before.items():
        if key.startswith("applied:"):
            require(value == 1, f"{key} has {value} effects")
        require(not key.startswith("half:"), f"{key} was left behind by a quarantined event")
    for key, value in before.items() - after.items():
        require(value != "revoked", f"{key} was revoked and is {after.get(key)}")


def event_id(row: Row) -> str:
    return cbor2.loads(row.event)["id"]
