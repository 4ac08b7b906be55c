"""What the integration tests share."""

from collections.abc import Generator

import pytest

from tests.support.postgres import PostgresServer, postgres
from tests.support.store_databases import Kind


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """One server for all tests of this process."""
    with postgres() as server:
        yield server
    Kind.known.clear()


@pytest.fixture(params=["sqlite", "postgresql"])
def each_database(request: pytest.FixtureRequest) -> Generator[str]:
    """Run the test on both kinds of database."""
    if request.param == "postgresql":
        Kind.server = request.getfixturevalue("postgres_server")
    try:
        yield request.param
    finally:
        Kind.server = None
