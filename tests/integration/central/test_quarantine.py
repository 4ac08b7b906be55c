"""The quarantine and open questions by page, REST and console, against the real server."""

import json

import pytest
from playwright.async_api import expect

from tests.support.central_pages import log_in


@pytest.fixture
async def kept(newborn, api):
    """An event that cannot be applied: a certificate of a CA that is not the gateway's."""
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        body = puppet.certificate("SN-poison") | {"ca_id": "00" * 20}
        await puppet.emit("certificate.issued", body)

        async def arrived() -> bool:
            rows = api.get("/api/v2.0/quarantine").json()["data"]
            return any(row["attributes"]["gateway"] == puppet.name for row in rows)

        await puppet.until(arrived)
    rows = api.get("/api/v2.0/quarantine").json()["data"]
    [place] = [row["id"] for row in rows if row["attributes"]["gateway"] == puppet.name]
    return place


async def test_an_event_is_shown_exported_discarded_and_taken_back(central, api, kept, tmp_path):
    shown = api.get(f"/api/v2.0/quarantine/{kept}").json()["data"]["attributes"]
    assert shown["body"]["device_id"] == "SN-poison"
    assert "not one of this gateway" in shown["reason"]
    assert api.post("/api/v2.0/quarantine/retry").json()["data"]["attributes"] == {"applied": 0}

    path = tmp_path / "event.cose"
    central.command("quarantine", "export", kept, "--to", str(path))
    assert api.post(f"/api/v2.0/quarantine/{kept}/discard", json={}).status_code == 400
    reason = {"reason": "a test box"}
    assert api.post(f"/api/v2.0/quarantine/{kept}/discard", json=reason).status_code == 204
    told = json.loads(central.command("quarantine", "show", kept))
    assert told["resolution"] == "discarded: a test box"
    assert kept not in central.command("quarantine", "list", "--json")

    for _ in range(2):
        central.command("quarantine", "import", str(path))
        assert kept in central.command("quarantine", "list", "--json")
    whole = path.read_bytes()
    damaged = {"file": (whole[:-1] + bytes([whole[-1] ^ 1])).hex()}
    assert api.post("/api/v2.0/quarantine/import", json=damaged).status_code in {400, 403}


async def test_page_shows_exports_and_discards(page, central, kept):
    await log_in(page, central)
    await page.goto("/quarantine")
    name = kept.split("/")[0]
    await page.get_by_role("row", name=name).get_by_role("link", name="certificate.issued").click()
    await expect(page.get_by_text("SN-poison")).to_be_visible()
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Export, signed").click()
    exported = await (await downloading.value).path()
    await page.get_by_label("Why").fill("a test box")
    await page.get_by_role("button", name="Discard for good").click()
    await expect(page.get_by_role("heading", name="Quarantine", exact=True)).to_be_visible()
    await expect(page.get_by_role("row", name=name)).to_have_count(0)
    await page.get_by_label("File").set_input_files(exported)
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_text("Not applied:")).to_be_visible()
    await page.goto("/quarantine")
    await page.get_by_role("button", name="Try all again").click()
    await expect(page.get_by_text("0 events were applied.")).to_be_visible()


async def test_an_open_question_is_settled_by_rest_and_by_the_console(central, api, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = [
            puppet.certificate(f"SN-{number}") | {"grant_id": "of-another-central"}
            for number in range(2)
        ]
        await puppet.emit("certificate.issued", *bodies)
        await puppet.drained()
    listed = [row["attributes"] for row in api.get("/api/v2.0/conflicts").json()["data"]]
    first, second = [one["id"] for one in listed if one["gateway"] == puppet.name]
    settled = api.post(f"/api/v2.0/conflicts/{first}/settle", json={"choice": ""})
    assert settled.status_code == 200
    assert api.post(f"/api/v2.0/conflicts/{first}/settle", json={}).status_code == 409
    assert f" {second} " in f" {central.command('conflict', 'list')} ".replace("\n", " ")
    central.command("conflict", "settle", str(second))
    left = api.get("/api/v2.0/conflicts").json()["data"]
    assert not [row for row in left if row["attributes"]["gateway"] == puppet.name]
