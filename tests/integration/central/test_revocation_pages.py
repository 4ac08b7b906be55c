"""Many certificates are revoked by the pages: criteria, what they mean, confirmation, progress."""

from typing import Any

from playwright.async_api import expect

from tests.support.central_pages import browser_page, log_in


async def test_many_are_revoked_after_their_number_was_confirmed(central, api, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = [puppet.certificate(f"SN-m{number}") for number in range(30)]
        await puppet.emit("certificate.issued", *bodies)
        await puppet.drained()
        async with browser_page(central) as page:
            await log_in(page, central)
            await page.goto("/certificates")
            await page.get_by_role("link", name="Revoke many").click()
            await page.get_by_role("button", name="Show what that would do").click()
            await expect(page.get_by_text("name at least one criterion")).to_be_visible()
            await page.get_by_label("Gateway that issued them").fill(puppet.name)
            await page.get_by_label("Reason").select_option("cessation_of_operation")
            await page.get_by_role("button", name="Show what that would do").click()
            await expect(page.get_by_text("30 certificates would be revoked")).to_be_visible()
            await page.get_by_label("Type the number").fill("29")
            await page.get_by_role("button", name="Revoke 30 certificates").click()
            await expect(page.get_by_text("another number was confirmed")).to_be_visible()
            assert _revoked(api, puppet.name) == 0
            await page.get_by_label("Type the number").fill("30")
            await page.get_by_role("button", name="Revoke 30 certificates").click()
            await expect(page.get_by_text("30 certificates are revoked.")).to_be_visible()
    assert _revoked(api, puppet.name) == 30


def _revoked(api: Any, gateway: str) -> int:
    found = api.get(f"/api/v2.0/search?q=gateway:{gateway}&page[size]=100").json()["data"]
    return sum(row["attributes"]["status"] == "revoked" for row in found)


async def test_nothing_that_fits_is_said(central):
    async with browser_page(central) as page:
        await log_in(page, central)
        await page.goto("/revocations")
        await page.get_by_label("Profile").fill("no-such-profile")
        await page.get_by_role("button", name="Show what that would do").click()
        await expect(page.get_by_text("No such certificates")).to_be_visible()
