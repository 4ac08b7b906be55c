"""The engine over a real mosquitto with TLS 1.3 and client certificates."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.kernel.errors import UnavailableError
from shared.sync.effects import Alarm, Contact, Progress, topic
from shared.sync.envelope import Address, Kind
from shared.sync.events import Direction
from shared.sync.join import CENTRAL_NAME
from shared.sync.messages import Ask, Errand
from tests.support.broker import Broker, Hierarchy
from tests.support.sim_driver import Party, until
from tests.support.sim_link import gateway_keys
from tests.support.sim_load import issue, revoke
from tests.support.sim_store import GATEWAY, MemoryTransaction


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    one = Broker(tmp_path, Hierarchy(tmp_path / "transport", "transport root"))
    await one.started()
    yield one
    one.kill()


@pytest.fixture
async def parties(broker: Broker) -> AsyncIterator[tuple[Party, Party]]:
    hierarchy = broker.hierarchy
    central = Party(Direction.DOWN, broker.address(hierarchy.issue(CENTRAL_NAME), CENTRAL_NAME))
    gateway = Party(Direction.UP, broker.address(hierarchy.issue(GATEWAY), GATEWAY))
    yield gateway, central
    await gateway.stop()
    await central.stop()


def _many(count: int, first: int = 0):
    def unit(tx: MemoryTransaction) -> None:
        for number in range(first, first + count):
            issue(tx, f"{number:032x}")

    return unit


def _complete(gateway: Party, central: Party) -> bool:
    """All that the gateway wrote is applied at central once, and the gateway knows it."""
    written, held = gateway.store.state, central.store.state
    confirmed = {lane: cursor.applied for lane, cursor in written.out_cursors.items()}
    return (
        written.outbox == held.inbox
        and confirmed == {lane: head.sequence for lane, head in written.heads.items()}
        and set(held.effects.values()) == {1}
    )


async def test_events_go_up_and_directives_go_down(parties: tuple[Party, Party]) -> None:
    gateway, central = parties
    gateway.write(_many(450))
    gateway.write(lambda tx: revoke(tx, "00" * 16))
    body = {"incarnation": "0", "number": 1, "ca_id": "c", "serial": "s", "reason": "superseded"}
    central.write(lambda tx: tx.emit("directive.revoke", body))
    await until(lambda: _complete(gateway, central) and bool(gateway.store.state.effects))
    assert central.online
    assert gateway.online
    assert any(isinstance(notice, Contact) for notice in gateway.notices)
    backlogs = [notice.backlog for notice in central.notices if isinstance(notice, Progress)]
    assert backlogs[-1] == 0


async def test_a_killed_broker_loses_nothing(broker: Broker, parties: tuple[Party, Party]) -> None:
    gateway, central = parties
    for round_number in range(3):
        gateway.write(_many(800, first=1000 * round_number))
        await until(lambda: len(central.store.state.inbox) > 800 * round_number)  # noqa: B023
        broker.kill()
        gateway.write(_many(100, first=1000 * round_number + 900))
        await broker.started()
    await until(lambda: _complete(gateway, central))
    assert len(central.store.state.effects) == 2700


async def test_central_learns_that_a_gateway_is_gone(
    broker: Broker, parties: tuple[Party, Party]
) -> None:
    gateway, central = parties
    await until(lambda: central.online and gateway.online)
    await gateway.stop()
    await until(lambda: not central.online)


@pytest.mark.parametrize("trouble", [UnavailableError("The database is locked."), KeyError("x")])
async def test_a_transaction_that_fails_is_tried_again(
    parties: tuple[Party, Party], trouble: Exception
) -> None:
    """Trouble of the box is retried, and so is a defect: it must not stop the other gateways."""
    gateway, central = parties
    gateway.store.trouble = [trouble]
    central.store.trouble = [trouble, trouble]
    gateway.write(_many(10))
    await until(lambda: _complete(gateway, central))
    assert gateway.store.trouble == central.store.trouble == []


async def test_noise_from_a_gateway_stops_nothing(
    broker: Broker, parties: tuple[Party, Party]
) -> None:
    gateway, central = parties
    await until(lambda: gateway.online)
    for level in (*Kind, "state", "unheard-of"):
        gateway.session._link.publish(topic(GATEWAY, Direction.UP, level), b"noise")
    gateway.write(_many(10))
    await until(lambda: _complete(gateway, central))
    assert any(isinstance(notice, Alarm) for notice in central.notices)


async def test_what_a_gateway_signs_though_it_cannot_be_read_is_not_tried_again(
    parties: tuple[Party, Party],
) -> None:
    """It would be as wrong the next time; each one tried for ever would pile up at central."""
    gateway, central = parties
    await until(lambda: gateway.online)
    signer, address = gateway_keys(0).signers[0], Address(GATEWAY, Direction.UP)
    for number in range(20):
        ask = Ask(nonce=number.to_bytes(16), errand=Errand.HISTORY, position=b"\x61")
        sealed = ask.seal(Kind.ASK, signer, address)
        gateway.session._link.publish(topic(GATEWAY, Direction.UP, Kind.ASK), sealed)
    gateway.write(_many(10))
    await until(lambda: _complete(gateway, central))
    said = [one.reason for one in central.notices if isinstance(one, Alarm)]
    assert len([reason for reason in said if "ignored" in reason]) == 20
    await until(lambda: not central.session._tasks)
