"""Who may open the broker, and who may say what where."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.mqtt.link import BrokerAddress, Link
from shared.sync.effects import topic
from shared.sync.events import Direction
from shared.sync.join import CENTRAL_NAME
from tests.support.broker import Broker, Hierarchy, Identity, client_tls
from tests.support.sim_driver import until


class Ear:
    """A LinkUser that remembers."""

    def __init__(self, address: BrokerAddress) -> None:
        self.link = Link(address, os.urandom)
        self.ups = 0
        self.downs: list[str] = []
        self.heard: list[tuple[str, bytes]] = []
        self._task = asyncio.create_task(self.link.run(self))

    def link_up(self, receive_maximum: int) -> None:
        assert 0 < receive_maximum <= 64
        self.ups += 1

    def link_down(self, reason: str) -> None:
        self.downs.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, payload))

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Room:
    """A broker and the ears at it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ears: list[Ear] = []

    def ear(self, address: BrokerAddress) -> Ear:
        self.ears.append(Ear(address))
        return self.ears[-1]

    async def connected(self, name: str, identity: Identity | None = None) -> Ear:
        ear = self.ear(self.broker.address(identity or self.issue(name), name))
        await until(lambda: ear.ups > 0)
        return ear

    def issue(self, name: str) -> Identity:
        return self.broker.hierarchy.issue(name)

    async def refused(self, ear: Ear) -> None:
        await until(lambda: bool(ear.downs))
        assert ear.ups == 0


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    broker = Broker(tmp_path, Hierarchy(tmp_path / "transport", "transport root"))
    await broker.started()
    one = Room(broker)
    yield one
    for ear in one.ears:
        await ear.stop()
    broker.kill()


async def test_a_gateway_speaks_and_hears_under_its_own_name_only(room: Room) -> None:
    central = await room.connected(CENTRAL_NAME)
    first, second = await room.connected("gw-a"), await room.connected("gw-b")
    first.link.publish(topic("gw-b", Direction.UP, "events"), b"forged")
    first.link.publish(topic("gw-b", Direction.DOWN, "events"), b"forged")
    first.link.publish(topic("gw-a", Direction.DOWN, "events"), b"forged")
    first.link.publish(topic("gw-a", Direction.UP, "events"), b"own")
    central.link.publish(topic("gw-a", Direction.DOWN, "call"), b"for a")
    own = (topic("gw-a", Direction.UP, "events"), b"own")
    await until(lambda: own in central.heard and bool(first.heard))
    assert first.heard == [(topic("gw-a", Direction.DOWN, "call"), b"for a")]
    assert second.heard == []
    assert [payload for _, payload in central.heard].count(b"forged") == 0


@pytest.mark.parametrize("wanted", ["tma/v1/gw-b/dn/#", "tma/v1/+/dn/#", "tma/v1/gw-b/up/#", "#"])
async def test_a_gateway_cannot_listen_to_another(room: Room, wanted: str) -> None:
    address = room.broker.address(room.issue("gw-a"), "gw-a")
    spy = room.ear(BrokerAddress(address.host, address.port, address.tls, subscription=wanted))
    central, victim = await room.connected(CENTRAL_NAME), await room.connected("gw-b")
    victim.link.publish(topic("gw-b", Direction.UP, "events"), b"up")
    central.link.publish(topic("gw-b", Direction.DOWN, "events"), b"down")
    await until(lambda: bool(victim.heard) and len(central.heard) >= 2)
    central.link.publish(topic("gw-a", Direction.DOWN, "events"), b"last")
    await asyncio.sleep(0.2)
    assert [one for one in spy.heard if "gw-b" in one[0]] == []


async def test_a_name_with_a_wildcard_opens_nothing(room: Room) -> None:
    central = await room.connected(CENTRAL_NAME)
    await room.connected("gw-a")
    spy = room.ear(room.broker.address(room.issue("+"), "gw-a"))
    central.link.publish(topic("gw-a", Direction.DOWN, "events"), b"secret")
    await asyncio.sleep(0.3)
    assert spy.heard == []


async def test_a_device_certificate_with_a_gateways_name_cannot_connect(
    room: Room, tmp_path: Path
) -> None:
    for name in ("device root", "transport root"):  # the same name does not make the same root
        other = Hierarchy(tmp_path / name.replace(" ", "-") / "other", name)
        identity = other.issue("gw-07")
        tls = client_tls(room.broker.hierarchy.root_file, identity)
        address = room.broker.address(room.issue("gw-07"), "gw-07")
        forged = BrokerAddress(address.host, address.port, tls, address.subscription)
        await room.refused(room.ear(forged))


async def test_without_a_certificate_nobody_connects(room: Room) -> None:
    tls = ssl.create_default_context(cafile=str(room.broker.hierarchy.root_file))
    address = BrokerAddress("localhost", room.broker.port, tls, "tma/v1/gw-07/dn/#")
    await room.refused(room.ear(address))


async def test_tls_below_1_3_is_refused(room: Room) -> None:
    address = room.broker.address(room.issue("gw-07"), "gw-07")
    address.tls.minimum_version = ssl.TLSVersion.TLSv1_2
    address.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    await room.refused(room.ear(address))


async def test_a_revoked_identity_is_refused_after_sighup(room: Room) -> None:
    identity = room.issue("gw-07")
    ear = await room.connected("gw-07", identity)
    await ear.stop()
    room.broker.hierarchy.revoke(identity)
    room.broker.reload()
    await room.connected("gw-08")
    await room.refused(room.ear(room.broker.address(identity, "gw-07")))


async def test_a_gateway_cannot_take_over_anothers_session(room: Room) -> None:
    """paho chooses random client ids; the broker replaces them by the certificate's name."""
    first = await room.connected("gw-a")
    await room.connected("gw-b")
    again = await room.connected("gw-a", room.issue("gw-a"))
    await until(lambda: bool(first.downs))  # the same gateway twice: the later one stays
    assert again.ups == 1
