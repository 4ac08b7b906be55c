"""A gateway as an administrator has it: token, daemon, agent, each a process of its own."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gateway_birth import Birthplace
from tests.support.gateway_box import GatewayBox
from tests.support.processes import PortBlocks


@pytest.fixture
def ports() -> Generator[PortBlocks]:
    blocks = PortBlocks()
    yield blocks
    blocks.close()


@pytest_asyncio.fixture
async def birthplace(tmp_path: Path) -> AsyncGenerator[Birthplace]:
    async with Birthplace(tmp_path).listening() as birthplace:
        yield birthplace


@pytest_asyncio.fixture
async def box(tmp_path: Path, ports: PortBlocks) -> AsyncGenerator[GatewayBox]:
    """A box with a fresh token and its daemon running; not joined yet."""
    made = GatewayBox(tmp_path / "gw", ports.take())
    made.prepare()
    made.start_hsmd()
    yield made
    await asyncio.to_thread(made.stop)


@pytest_asyncio.fixture
async def gateway(box: GatewayBox, birthplace: Birthplace) -> GatewayBox:
    """A gateway that joined and runs, without a link."""
    await box.join(birthplace.token())
    await box.start()
    return box
