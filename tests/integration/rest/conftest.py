"""One whole server per test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import rest_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[rest_server.Server]:
    async with rest_server.serve(tmp_path) as running:
        yield running
