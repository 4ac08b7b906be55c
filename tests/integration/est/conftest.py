"""One whole server per test, and a machine that asks it by EST."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.pki import formats
from tests.support import rest_server
from tests.support.est import EstClient


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[rest_server.Server]:
    async with rest_server.serve(tmp_path) as running:
        yield running


@pytest.fixture
def client(server: rest_server.Server, tmp_path: Path) -> EstClient:
    """A client of the alias tls-client."""
    root = tmp_path / "root.pem"
    root.write_text(formats.pem([server.authority.issuer.chain[-1]]))
    return EstClient(tmp_path, f"{server.urls['machines']}/.well-known/est/tls-client", root)
