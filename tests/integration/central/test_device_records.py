"""Device records at central: verdicts row by row, moves between lines, search."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from central.enrollment.records import Records
from shared.kernel.errors import BadRequestError, NotFoundError
from shared.store.database import Database
from tests.support.store_databases import ListSink, open_database

HEADER = ("serial", "product", "order", "line", "colour")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "central.db", sink=ListSink()) as database:
        yield database


async def taken(database: Database, *rows: tuple[str, ...], dry_run: bool = False) -> list[str]:
    verdicts = await Records(database).import_rows(
        HEADER, rows, first_row=2, dry_run=dry_run, actor="user:test"
    )
    return [f"{one.row} {one.verdict}" for one in verdicts]


async def test_each_row_gets_its_verdict(database: Database):
    first = ("SN-1", "mixer", "A1", "gw-01", "red")
    assert await taken(database, first, dry_run=True) == ["2 added"]
    assert await taken(database, first, ("", "x", "", "", ""), ("SN-2",)) == [
        "2 added",
        "3 refused",
        "4 refused",
    ]
    changed = ("SN-1", "mixer", "A1", "gw-01", "blue")
    assert await taken(database, first, changed, changed) == ["2 same", "3 changed", "4 same"]
    [record] = await Records(database).search({"serial": "SN"})
    assert (record.product, record.line, record.metadata) == ("mixer", "gw-01", {"colour": "blue"})


async def test_search_and_removal(database: Database):
    rows = [(f"SN-{n}", "mixer" if n % 2 else "pump", "A1", "gw-01", "") for n in range(6)]
    await taken(database, *rows)
    records = Records(database)
    assert [one.serial for one in await records.search({"product": "pump"}, after="SN-0")] == [
        "SN-2",
        "SN-4",
    ]
    await records.remove("SN-2", "user:test")
    assert len(await records.search({"product": "pump"})) == 2
    with pytest.raises(NotFoundError):
        await records.remove("SN-2", "user:test")
    with pytest.raises(BadRequestError, match="cannot search"):
        await records.search({"colour": "red"})
    assert await taken(database, rows[2]) == ["2 added"]


@pytest.mark.parametrize("header", [("product",), ("serial", "serial"), ("serial", "a\x00b")])
async def test_a_wrong_first_line_is_refused(database: Database, header: tuple[str, ...]):
    with pytest.raises(BadRequestError):
        await Records(database).import_rows(
            header, [], first_row=2, dry_run=False, actor="user:test"
        )
