"""How soon a link is used that is back."""

import asyncio
from pathlib import Path

from shared.mqtt.link import Link
from tests.support.broker import Broker, Hierarchy
from tests.support.sim_driver import until


class _Listener:
    def __init__(self) -> None:
        self.ups = 0
        self.downs = 0

    def link_up(self, receive_maximum: int) -> None:
        self.ups += receive_maximum > 0

    def link_down(self, reason: str) -> None:
        self.downs += bool(reason)

    def message(self, topic: str, payload: bytes) -> None:
        raise AssertionError((topic, payload))


async def test_after_a_long_outage_the_link_is_used_at_once(tmp_path: Path):
    """With the unluckiest jitter. A doubling pause would be past a minute after six attempts."""
    broker = Broker(tmp_path, Hierarchy(tmp_path / "transport", "transport root"))
    address = broker.address(broker.hierarchy.issue("gw-1"), "gw-1")
    listener = _Listener()
    task = asyncio.create_task(Link(address, lambda count: b"\xff" * count).run(listener))
    try:
        async with asyncio.timeout(30):
            await until(lambda: listener.downs >= 6)
        await broker.started()
        async with asyncio.timeout(10):
            await until(lambda: listener.ups == 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        broker.kill()
