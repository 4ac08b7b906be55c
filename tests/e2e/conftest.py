"""One whole product per module."""

from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet
from tests.support.products import running_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("e2e"), "gw-01") as fleet:
        yield fleet
