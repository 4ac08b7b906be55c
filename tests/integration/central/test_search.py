"""Search by page, REST and console, against the real server."""

import csv
import io
import json

import pytest
from cryptography import x509
from playwright.async_api import expect

from tests.support.central_pages import log_in
from tests.support.products import rows


@pytest.fixture
async def three(newborn, api):
    """Three certificates of one new gateway that can be found; its name."""
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = [puppet.certificate(f"SN-{puppet.name}-{number}") for number in range(3)]
        await puppet.emit("certificate.issued", *bodies)
        await puppet.drained()

        async def found() -> bool:
            answer = api.get("/api/v2.0/search", params={"q": f"gateway:{puppet.name} meta.line:7"})
            return len(answer.json()["data"]) == 3

        await puppet.until(found)
    return puppet.name


async def test_pages_are_linked_and_exports_are_whole_and_audited(central, api, three):
    seen: list[str] = []
    address = f"/api/v2.0/search?q=gateway:{three}&page[size]=2"
    while address:
        answer = api.get(address).json()
        seen += [one["attributes"]["device_id"] for one in answer["data"]]
        address = answer["links"].get("next")
    assert seen == [f"SN-{three}-{number}" for number in (2, 1, 0)]

    query = {"q": f"meta.line:7 gateway:{three} dns:device-*"}
    table = api.get("/api/v2.0/search/export", params={**query, "as": "csv"})
    assert table.headers["content-type"].startswith("text/csv")
    told = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["device_id"] for row in told] == seen
    assert told[0]["metadata"] == "line=7"
    lines = api.get("/api/v2.0/search/export", params={**query, "as": "json"}).text.splitlines()
    assert [json.loads(line)["device_id"] for line in lines] == seen
    pem = api.get("/api/v2.0/search/export", params={**query, "as": "pem"}).content
    assert len(x509.load_pem_x509_certificates(pem)) == 3
    audited = rows(central.database, "SELECT detail FROM audit WHERE action = 'inventory.exported'")
    assert sum(three in detail for (detail,) in audited) == 3

    wrong = api.get("/api/v2.0/search", params={"q": "colour:red"})
    assert wrong.status_code == 400
    assert "colour" in wrong.json()["detail"]
    assert api.get("/api/v2.0/search/export?as=pdf").status_code == 400


async def test_a_token_for_one_profile_finds_nothing_of_another(central, api, three):
    token = central.command("station", "add", f"st-{three}", "--profile", "idevid").strip()
    answer = api.get(
        "/api/v2.0/search",
        params={"q": f"gateway:{three}"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200
    assert answer.json()["data"] == []


async def test_a_kept_query_is_offered_to_whom_it_is_shared_with(central, api, three):
    kept = {"query": f"gateway:{three}", "shared": True}
    assert api.put(f"/api/v2.0/searches/of {three}", json=kept).status_code == 204
    assert api.put("/api/v2.0/searches/wrong", json={"query": "colour:red"}).status_code == 400
    told = central.command("search", "list", "-o", "json")
    assert f"of {three}" in {one["name"] for one in json.loads(told)}
    assert api.delete(f"/api/v2.0/searches/of {three}").status_code == 204
    assert api.delete(f"/api/v2.0/searches/of {three}").status_code == 404


async def test_console_finds_and_exports(central, three, tmp_path):
    found = json.loads(central.command("search", "find", f"gateway:{three}", "-o", "json"))
    assert len(found) == 3
    assert "good" in central.command("search", "find", f"SN-{three}-1")
    path = tmp_path / "found.pem"
    central.command("search", "export", f"gateway:{three}", "--as", "pem", "--to", str(path))
    assert len(x509.load_pem_x509_certificates(path.read_bytes())) == 3


async def test_page_searches_keeps_and_drops(page, central, three):
    await log_in(page, central)
    await page.goto("/certificates")
    await page.get_by_role("searchbox").fill(f"gateway:{three} meta.line:7")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("row")).to_have_count(4)
    await page.get_by_label("Keep this query as").fill(f"line 7 of {three}")
    await page.get_by_role("button", name="Keep", exact=True).click()
    await expect(page.get_by_role("link", name=f"line 7 of {three}")).to_be_visible()
    await page.goto("/certificates")
    await page.get_by_role("link", name=f"line 7 of {three}").click()
    await expect(page.get_by_role("row")).to_have_count(4)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Export as CSV").click()
    assert (await downloading.value).suggested_filename == "certificates.csv"
    await page.get_by_role("button", name=f"Drop line 7 of {three}").click()
    await expect(page.get_by_role("link", name=f"line 7 of {three}")).to_have_count(0)
    await page.get_by_role("searchbox").fill("colour:red")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("alert").filter(has_text="colour")).to_be_visible()
