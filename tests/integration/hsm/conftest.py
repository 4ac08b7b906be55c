"""One token and one daemon for all tests that leave both in good order."""

from collections.abc import AsyncIterator, Iterator

import pytest

from shared.hsm.client import HsmClient, RemoteIssuingKey
from tests.support.pki_hierarchy import Hierarchy
from tests.support.softhsm import KEY, Hsmd, SoftHsm, born, settled


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    return Hierarchy()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hsmd]:
    tokens = SoftHsm(tmp_path_factory.mktemp("hsm"))
    hsmd = Hsmd(tokens.folder, tokens.initialise("gw-01"), tokens.environ)
    hsmd.start()
    yield hsmd
    hsmd.process.stop()


@pytest.fixture
async def client(daemon: Hsmd) -> AsyncIterator[HsmClient]:
    client = HsmClient(daemon.socket)
    await settled(client, "ready")
    yield client
    await client.close()


@pytest.fixture
async def issuing_key(client: HsmClient, hierarchy: Hierarchy) -> RemoteIssuingKey:
    return await born(client, hierarchy.fleet, KEY)
