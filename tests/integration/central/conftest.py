"""The real server with a real broker; one for all tests of this folder, gateways are theirs."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page

from tests.support.central_pages import browser_page
from tests.support.central_puppet import Puppet
from tests.support.fleet import Central, Ports
from tests.support.postgres import PostgresServer
from tests.support.processes import PortBlocks

_NAMES = itertools.count(1)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def central(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Central]:
    blocks = PortBlocks()
    settings: dict[str, dict[str, object]] = {"backup": {"same_disk_counts": True, "keep": 2}}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        settings["database"] = server.new()
    folder = tmp_path_factory.mktemp("central") / "central"
    made = Central(folder, Ports(blocks.take()), settings=settings)
    try:
        made.found()
        yield made
    finally:
        for process in (made.process, made.relay, made.broker):
            process.stop()
        blocks.close()


@pytest.fixture
def api(central: Central) -> Generator[httpx.Client]:
    """REST with the administrator's token."""
    trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
    headers = {"Authorization": f"Bearer {central.admin_token}"}
    with httpx.Client(verify=trusted, headers=headers, base_url=central.web_url) as client:
        yield client


@pytest.fixture
def browse(central) -> Generator[Callable[[str, str], httpx.Client]]:
    """Log somebody in at the pages, as a browser would."""
    opened: list[httpx.Client] = []

    def browse(name: str, password: str) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
        headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        client = httpx.Client(verify=trusted, headers=headers, base_url=central.web_url)
        opened.append(client)
        answer = client.post("/login", data={"name": name, "password": password})
        assert answer.status_code == 303, answer.text
        return client

    yield browse
    for client in opened:
        client.close()


@pytest.fixture
def bearer(central) -> Generator[Callable[[str], httpx.Client]]:
    opened: list[httpx.Client] = []

    def bearer(token: str) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
        headers = {"Authorization": f"Bearer {token.strip()}"}
        opened.append(httpx.Client(verify=trusted, headers=headers, base_url=central.web_url))
        return opened[-1]

    yield bearer
    for client in opened:
        client.close()


@pytest.fixture
async def page(central: Central) -> AsyncIterator[Page]:
    """A browser that nobody has used."""
    async with browser_page(central) as opened:
        yield opened


@pytest.fixture
def invite(central: Central) -> Callable[[str], Awaitable[str]]:
    async def invite(name: str) -> str:
        return await asyncio.to_thread(central.command, "gateway", "invite", name)

    return invite


@pytest.fixture
def newborn(
    invite: Callable[[str], Awaitable[str]], tmp_path: Path
) -> Callable[[], Awaitable[Puppet]]:
    """Let a puppet with a name of its own join."""

    async def newborn() -> Puppet:
        name = f"gw-{next(_NAMES):02}"
        return await Puppet.join(await invite(name), tmp_path / name)

    return newborn
