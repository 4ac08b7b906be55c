"""Device records at central: verdicts row by row, moves between lines, search."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from central.enrollment.codes import Codes
from central.enrollment.records import Records
from shared.enroll.requesters.doorkeeper import code_hash
from shared.kernel.errors import BadRequestError, ForbiddenError, NotFoundError
from shared.store import devices
from shared.store.database import Database
from shared.sync.join import CENTRAL_NAME
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


async def test_devices_are_found_by_their_metadata(database: Database, each_database: str):
    colours = ("red", 'dark "red"', "", "Red", "red, matt")
    rows = [(f"SN-{n}", "mixer", "A1", "gw-01", colour) for n, colour in enumerate(colours)]
    await taken(database, *rows)
    for colour in filter(None, colours):
        found = await Records(database).search({"meta.colour": colour, "product": "mixer"})
        assert [one.metadata["colour"] for one in found] == [colour]
    assert await Records(database).search({"meta.shade": "red"}) == []


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


async def test_rights_for_a_line_end_at_it(database: Database):
    records = Records(database)
    mine = ("SN-1", "mixer", "", "gw-01", "")
    theirs, nobodys = ("SN-2", "", "", "gw-02", ""), ("SN-3", "", "", "", "")
    await taken(database, theirs, nobodys)

    def may(line: str) -> bool:
        return line == "gw-01"

    moved = ("SN-2", "", "", "gw-01", "")  # it would be taken from another line
    rows = [mine, theirs, nobodys, moved]
    verdicts = await records.import_rows(
        HEADER, rows, first_row=2, dry_run=False, actor="user:test", may=may
    )
    assert [one.verdict for one in verdicts] == ["added", "refused", "refused", "refused"]
    assert "line “gw-02”" in verdicts[1].detail
    with pytest.raises(ForbiddenError):
        await records.remove("SN-2", "user:test", may)
    seen = await records.search({}, lines=frozenset({"gw-01"}))
    assert [one.serial for one in seen] == ["SN-1"]


async def test_codes_are_listed_page_by_page_with_their_state(database: Database):
    codes = Codes(database, os.urandom)
    serials = [f"SN-{number // 2:03}" for number in range(150)]  # two for each device
    made = await codes.make(serials, gateway=CENTRAL_NAME, alias="*", days=1, actor="user:test")
    assert len({one.code for one in made}) == 150
    digest = code_hash(made[2].code)
    await database.writer.run(lambda tx: devices.spend_code(tx, digest, "some request"))
    first = await codes.listed(now_us=0)
    rest = await codes.listed(after=(first[-1].serial, first[-1].number), now_us=0)
    assert [one.serial for one in (*first, *rest)] == serials
    assert [one.number for one in (*first, *rest) if one.state == "spent"] == [3]
    ended = await codes.listed(serial="SN-001", now_us=1 << 60)
    assert [one.state for one in ended] == ["spent", "ended"]
    assert not await codes.listed(gateway="gw-01", now_us=0)
    assert not await codes.listed(boxes=frozenset({"gw-01"}), now_us=0)


@pytest.mark.parametrize("header", [("product",), ("serial", "serial"), ("serial", "a\x00b")])
async def test_a_wrong_first_line_is_refused(database: Database, header: tuple[str, ...]):
    with pytest.raises(BadRequestError):
        await Records(database).import_rows(
            header, [], first_row=2, dry_run=False, actor="user:test"
        )
