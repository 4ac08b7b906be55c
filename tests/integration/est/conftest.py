"""One whole server per test, and a machine that asks it by EST."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.pki import formats
from shared.policy.profile import Profile
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


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The shipped profiles, with the hash that requests are to be signed with at least."""
    shipped = [
        Profile.from_document(one.to_document() | {"csr_hash_min": request.param})
        for one in rest_server.SHIPPED
    ]
    monkeypatch.setattr(rest_server, "SHIPPED", tuple(shipped))
