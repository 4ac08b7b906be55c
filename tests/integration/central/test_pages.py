"""The pages in a real browser, against the real server."""

import httpx
import pytest
from playwright.async_api import expect

from tests.support.central_pages import log_in
from tests.support.products import rows


async def test_login_leads_back_and_says_what_is_wrong(page, central):
    await page.goto("/gateways")
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await page.get_by_label("Name").fill("admin")
    await page.get_by_label("Password").fill("not the password")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert").filter(has_text="is wrong")).to_be_visible()
    await page.get_by_label("Password").fill(central.admin_password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Gateways", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await page.goto("/")
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


async def test_story_from_enrollment_to_revocation(page, central, newborn):
    puppet = await newborn()
    await log_in(page, central)
    issued = page.locator(".tile", has_text="Certificates issued").locator(".value")
    before = int((await issued.inner_text()).replace(",", ""))
    async with puppet.open(), puppet.online():
        body = puppet.certificate("SN-story")
        await puppet.emit("certificate.issued", body)
        await puppet.drained()
        await expect(issued).to_have_text(f"{before + 1:,}")  # it refreshes by itself
        await page.goto("/certificates")
        await page.get_by_role("searchbox").fill(f"SN-story gateway:{puppet.name}")
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("link", name="SN-story.example").click()
        await expect(page.get_by_text("Requested by station:puppet")).to_be_visible()
        await expect(page.get_by_text(f"Gateway CA {puppet.name}")).to_be_visible()
        await page.get_by_label("Reason").select_option("key_compromise")
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.get_by_text("key compromise.")).to_be_visible()
        assert (await puppet.heard("directive.revoke")).body["serial"] == body["serial"]
    actors = rows(central.database, "SELECT actor FROM audit WHERE action = 'certificate.revoked' "
                  "AND subject LIKE ?", f"%{body['serial']}")  # fmt: skip
    assert actors == [("user:admin",)]


async def test_gateway_is_invited_seen_and_ended(page, central):
    await log_in(page, central)
    await page.get_by_role("link", name="Gateways", exact=True).first.click()
    await page.get_by_label("Name").fill("line-9")
    await page.get_by_role("button", name="Invite").click()
    token = await page.get_by_label("Join token").input_value()
    assert token.startswith("tma-join-1.")
    await page.get_by_role("link", name="Done").click()
    await expect(page.get_by_text("it has not joined yet")).to_be_visible()
    await page.get_by_label("Why").fill("never built")
    await page.get_by_role("button", name="End for good").click()
    await expect(page.get_by_text("Ended: never built")).to_be_visible()
    await page.goto("/audit")
    await expect(page.get_by_role("cell", name="gateway.ended").first).to_be_visible()


async def test_open_question_is_to_do_until_it_is_settled(page, central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        body = puppet.certificate("SN-ungranted") | {"grant_id": "of-another-central"}
        await puppet.emit("certificate.issued", body)
        await puppet.drained()
    await log_in(page, central)
    sentence = f"{puppet.name}: Issued without a grant"
    await page.get_by_role("link", name=sentence).click()
    await page.get_by_label("Nothing is done").check()
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_text("Settled by user:admin: keep.")).to_be_visible()
    await expect(page.get_by_role("button", name="Settle")).to_have_count(0)
    await page.goto("/")
    await expect(page.get_by_role("link", name=sentence)).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/certificates?q=nothing-has-this-name", "Nothing is found"),
        ("/gateways/nowhere", "There is no gateway nowhere."),
        ("/certificates/00/00", "No certificate with serial number 00"),
        ("/certificates?after=-1", "not the address of a page"),
        ("/nowhere", "nothing at this address"),
    ],
)
async def test_empty_and_wrong_places_say_so(page, central, path, sentence):
    await log_in(page, central)
    await page.goto(path)
    await expect(page.get_by_text(sentence).first).to_be_visible()


async def test_pages_fit_a_narrow_screen(page, central):
    await log_in(page, central)
    await page.set_viewport_size({"width": 390, "height": 800})
    for path in ("/", "/certificates", "/gateways", "/audit"):
        await page.goto(path)
        wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, path


def test_other_sites_and_strangers_change_nothing(central):
    with httpx.Client(verify=False, base_url=central.web_url) as client:
        for path in ("/gateways", "/gateways/x/end", "/certificates/0/0/revoke"):
            assert client.post(path, data={"name": "x"}).status_code == 401
            foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
            assert client.post(path, data={"name": "x"}, headers=foreign).status_code == 403
        login = client.get("/login?next=//evil.example")
        assert 'value="/"' in login.text


async def test_profiles_are_shown_compared_and_published(page, central):
    await log_in(page, central)
    await page.get_by_role("link", name="Profiles").click()
    await page.get_by_role("row", name="S/MIME").get_by_role("link").click()
    await expect(page.get_by_role("heading", name="smime, version 1")).to_be_visible()
    await page.get_by_role("button", name="Withdraw smime").click()
    await expect(page.get_by_role("row", name="S/MIME").get_by_text("withdrawn")).to_be_visible()
    await page.get_by_role("link", name="smime").click()
    await page.get_by_role("button", name="Publish version 1").click()
    await expect(page.get_by_text("in force").or_(page.get_by_text("active"))).to_be_visible()
    await page.goto("/profiles/tls-client")
    await page.get_by_label("Common name").fill("pump.example")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_text("It would be issued.")).to_be_visible()
    await expect(page.get_by_text("common_name=pump.example")).to_be_visible()
    await page.goto("/presets/hardened")
    await expect(page.get_by_role("table", name="tls-server")).to_contain_text("398")
    await page.goto("/presets/paranoid")
    await expect(page.get_by_text("There is no preset paranoid")).to_be_visible()
