"""Backups by REST and on the page of a central that has a directory for them."""

import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from tests.support.central_pages import browser_page, log_in
from tests.support.fleet import Central, Ports
from tests.support.processes import PortBlocks, wait_until


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def archived(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Central]:
    """A central that makes backups by itself, once a month, and once it starts."""
    settings: dict[str, dict[str, object]] = {
        "backup": {"directory": str(shelf), "same_disk_counts": True, "hours": 744}
    }
    blocks = PortBlocks()
    folder = tmp_path_factory.mktemp("archived") / "central"
    made = Central(folder, Ports(blocks.take()), settings=settings)
    try:
        made.found()
        yield made
    finally:
        for process in (made.process, made.relay, made.broker):
            process.stop()
        blocks.close()


@pytest.fixture
def rest(archived: Central) -> Generator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=str(archived.folder / "state" / "root.pem"))
    headers = {"Authorization": f"Bearer {archived.admin_token}"}
    with httpx.Client(verify=trusted, headers=headers, base_url=archived.web_url) as client:
        yield client


def _standing(rest: httpx.Client) -> Any:
    return rest.get("/api/v2.0/backups").json()["data"]["attributes"]


def _until(rest: httpx.Client, count: int) -> list[dict[str, Any]]:
    def made() -> bool:
        seen = _standing(rest)
        return len(seen["backups"]) >= count and seen["running"] is None

    wait_until(made, what="the backups are made")
    return _standing(rest)["backups"]


def test_one_is_made_read_back_and_found_damaged(archived: Central, rest: httpx.Client):
    _until(rest, 1)  # by itself
    answer = rest.post("/api/v2.0/backups")
    assert answer.status_code == 201, answer.text
    wanted = answer.json()["data"]["id"]
    newest, *_ = _until(rest, 2)
    assert (newest["id"], newest["state"], newest["counts"]) == (wanted, "held", True)
    checked = rest.post(f"/api/v2.0/backups/{wanted}/verify")
    assert checked.json()["data"]["attributes"]["state"] == "held"
    file = Path(newest["file"])
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    refused = rest.post(f"/api/v2.0/backups/{wanted}/verify")
    assert refused.status_code >= 400
    assert "Traceback" not in refused.text
    assert _standing(rest)["backups"][0]["state"] == "damaged"
    entries = archived.command("audit", "list")
    assert "backup.begun" in entries
    assert rest.post("/api/v2.0/backups/none/verify").status_code == 404


def test_without_a_directory_it_says_what_to_do(central: Central, api: httpx.Client):
    refused = api.post("/api/v2.0/backups")
    by_file = isinstance(central.database, Path)
    status, word = (400, "backup.directory") if by_file else (409, "pg_dump")
    assert refused.status_code == status
    assert word in refused.text
    assert _standing(api)["running"] is None


async def test_the_page_makes_one_and_reads_it_back(archived: Central, rest: httpx.Client):
    _until(rest, 1)
    before = sum(one["state"] == "held" for one in _standing(rest)["backups"])
    async with browser_page(archived) as page:
        await log_in(page, archived)
        await page.get_by_role("link", name="Backups").click()
        await page.get_by_role("button", name="Back up now").click()
        await expect(page.get_by_role("button", name="Read back")).to_have_count(before + 1)
        await page.get_by_role("button", name="Read back").first.click()
        await expect(page.get_by_text("it is whole")).to_be_visible()
