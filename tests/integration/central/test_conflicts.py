"""Conflicts as people see them: filtered, page by page, both sides beside each other, settled."""

from typing import Any

from playwright.async_api import expect

from tests.support.central_pages import browser_page, log_in


async def _twins(newborn: Any, *devices: str) -> tuple[Any, Any]:
    """Let two gateways issue for the same devices; gives both."""
    first, second = await newborn(), await newborn()
    for puppet in (first, second):
        async with puppet.open(), puppet.online():
            bodies = [puppet.certificate(device) for device in devices]
            await puppet.emit("certificate.issued", *bodies)
            await puppet.drained()
    return first, second


def _of(api: Any, query: str) -> list[dict[str, Any]]:
    answer = api.get(f"/api/v2.0/conflicts?{query}")
    assert answer.status_code == 200, answer.text
    return [row["attributes"] for row in answer.json()["data"]]


async def test_they_are_filtered_paged_and_shown_with_both_sides(central, api, newborn):
    first, second = await _twins(newborn, "SN-t1", "SN-t2", "SN-t3")
    mine = f"filter[gateway]={second.name}&filter[kind]=device-at-two-gateways"
    everything = _of(api, mine)
    assert len(everything) == 3
    assert _of(api, f"filter[gateway]={first.name}&filter[kind]=device-at-two-gateways") == []
    page = api.get(f"/api/v2.0/conflicts?{mine}&page[size]=2").json()
    following = api.get(page["links"]["next"]).json()
    assert [row["id"] for row in page["data"] + following["data"]] == [
        one["id"] for one in everything
    ]
    assert "next" not in following["links"]
    number = everything[0]["id"]
    shown = api.get(f"/api/v2.0/conflicts/{number}").json()["data"]["attributes"]
    later, earlier = shown["certificates"]
    assert (later["issued_by"], earlier["issued_by"]) == (second.name, first.name)
    assert later["device_id"] == earlier["device_id"] == "SN-t3"
    assert later["serial"] in central.command("conflict", "show", str(number))
    choice = {"choice": "revoke-earlier"}
    done = api.post(f"/api/v2.0/conflicts/{number}/settle", json=choice).json()
    assert earlier["serial"] in done["data"]["attributes"]["done"]
    after = api.get(f"/api/v2.0/conflicts/{number}").json()["data"]["attributes"]
    assert (after["state"], after["resolution"]) == ("settled", "revoke-earlier")
    assert [one["status"] for one in after["certificates"]] == ["good", "revoked"]
    assert len(_of(api, mine)) == 2
    assert [one["id"] for one in _of(api, f"{mine}&filter[state]=settled")] == [number]
    assert len(_of(api, f"{mine}&filter[state]=")) == 3


def test_what_is_not_known_is_said(api):
    answer = api.get("/api/v2.0/conflicts?filter[colour]=red")
    assert answer.status_code == 400
    assert "state, kind, gateway" in answer.text
    assert api.get("/api/v2.0/conflicts/999999").status_code == 404
    assert api.post("/api/v2.0/conflicts/999999/settle", json={}).status_code == 404


async def test_the_pages_show_both_sides_and_settle(central, newborn):
    first, second = await _twins(newborn, "SN-page")
    async with browser_page(central) as page:
        await log_in(page, central)
        await page.goto(f"/gateways/{second.name}")
        await page.get_by_role("link", name="The same device was enrolled at two").click()
        table = page.get_by_role("table", name="Both sides, the later one first")
        await expect(table.get_by_role("row", name="Issued by")).to_contain_text(first.name)
        await expect(table.get_by_role("row", name="Issued by")).to_contain_text(second.name)
        await page.get_by_label("Both certificates are put on hold").check()
        await page.get_by_role("button", name="Settle").click()
        await expect(page.get_by_text("Settled by user:admin: hold-both.")).to_be_visible()
        await expect(table.get_by_role("row", name="Status")).to_contain_text("on hold")
        await expect(page.get_by_role("button", name="Settle")).to_have_count(0)
        await page.goto(f"/conflicts?gateway={second.name}")
        await expect(page.get_by_text("No conflict like this")).to_be_visible()
        await page.get_by_label("State").select_option("settled")
        await page.get_by_role("button", name="Show").click()
        await expect(page.get_by_role("row", name="hold-both")).to_be_visible()
