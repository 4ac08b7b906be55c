"""The pages about who may enroll, in a real browser against the real server."""

import csv
import io
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.support.central_pages import log_in
from tests.support.fleet import Central
from tests.support.idevid import Manufacturer
from tests.support.products import rows


@pytest.fixture
async def admin(page: Page, central: Central) -> Page:
    await log_in(page, central)
    return page


async def test_an_alias_is_made_shown_switched_and_removed(admin: Page):
    await admin.get_by_role("link", name="Enrollment").click()
    await admin.get_by_label("Name, the label").fill("press")
    await admin.get_by_label("Issues for the profile").select_option("tls-client")
    await admin.get_by_label("a requester's password").check()
    await admin.get_by_label("Refuse devices without a record").check()
    await admin.get_by_role("button", name="Make the alias").click()
    await expect(admin.get_by_role("heading", name="Alias press")).to_be_visible()
    await admin.get_by_label("Serial number of the device").fill("SN-0815")
    await admin.get_by_role("button", name="Show for this device").click()
    request = admin.locator("pre", has_text="openssl req")
    await expect(request).to_contain_text("SN-0815")
    await expect(admin.locator("pre", has_text="/est/press/simpleenroll").first).to_be_visible()
    await admin.get_by_role("button", name="Switch off").click()
    await expect(admin.get_by_text("The alias is off")).to_be_visible()
    await admin.get_by_label("a requester's password").uncheck()
    await admin.get_by_role("button", name="Change the alias").click()
    await expect(admin.get_by_text("The alias is off")).to_be_visible()  # changing keeps it off
    await expect(admin.get_by_label("a requester's password")).not_to_be_checked()
    await admin.get_by_role("button", name="Remove the alias").click()
    await expect(admin.get_by_role("link", name="press", exact=True)).to_have_count(0)


async def test_a_profile_is_an_alias_by_itself_and_can_be_switched_off(admin: Page):
    await admin.goto("/aliases/tls-server")
    await expect(admin.get_by_text("by its profile alone")).to_be_visible()
    await admin.get_by_role("button", name="Switch off").click()
    await expect(admin.get_by_text("The alias is off")).to_be_visible()
    await admin.get_by_role("button", name="Remove the alias").click()
    await expect(admin.get_by_role("link", name="tls-server", exact=True)).to_be_visible()


async def test_a_requester_gets_his_password_once(admin: Page, central: Central):
    await admin.goto("/requesters")
    await admin.get_by_label("Name").fill("mes")
    await admin.get_by_label("Aliases").fill("press, default")
    await admin.get_by_role("button", name="Add the requester").click()
    password = await admin.get_by_label("password").inner_text()
    assert len(password) >= 20
    [(document,)] = rows(central.database, "SELECT document FROM access_rule WHERE name = 'mes'")
    assert password not in document
    await admin.get_by_role("link", name="Done").click()
    await expect(admin.get_by_role("cell", name="press, default")).to_be_visible()
    await admin.get_by_role("button", name="Remove mes").click()
    await expect(admin.get_by_text("No requester yet")).to_be_visible()


async def test_a_manufacturer_in_use_is_not_removed(admin: Page, tmp_path: Path):
    Manufacturer(tmp_path).write_ca(tmp_path / "maker.pem")
    await admin.goto("/manufacturers")
    await expect(admin.get_by_text("No manufacturer yet")).to_be_visible()
    await admin.get_by_label("Name").fill("maker")
    await admin.get_by_label("CA certificates").set_input_files(tmp_path / "maker.pem")
    await admin.get_by_role("button", name="Trust it").click()
    await expect(admin.get_by_role("cell", name="CN=Maker root")).to_be_visible()
    await admin.goto("/aliases")
    await admin.get_by_label("Name, the label").fill("onboard")
    await admin.get_by_label("a device certificate (IDevID)").check()
    await admin.get_by_label("maker", exact=True).check()
    await admin.get_by_role("button", name="Make the alias").click()
    await admin.goto("/manufacturers")
    await admin.get_by_role("button", name="Remove maker").click()
    await expect(admin.get_by_text("is used by: onboard")).to_be_visible()
    await admin.goto("/aliases/onboard")
    await admin.get_by_role("button", name="Remove the alias").click()
    await admin.goto("/manufacturers")
    await admin.get_by_role("button", name="Remove maker").click()
    await expect(admin.get_by_text("No manufacturer yet")).to_be_visible()


async def test_devices_come_by_file_and_get_codes(admin: Page, tmp_path: Path, newborn):
    puppet = await newborn()
    file = tmp_path / "devices.csv"
    file.write_text(
        "serial,product,order,line,colour\n"
        f"P/1,mixer,A1,{puppet.name},red\nP-2,mixer,A1\nP-3,pump,A1,,\n"
    )
    await admin.get_by_role("link", name="Devices").click()
    for button in ("Check only", "Import"):
        await admin.goto("/devices")
        await admin.get_by_label("File").set_input_files(file)
        await admin.get_by_role("button", name=button).click()
        await expect(admin.get_by_text("1 of 3 rows are refused.")).to_be_visible()
        await expect(admin.get_by_text("The row has 3 columns")).to_be_visible()
    await admin.get_by_role("link", name="P/1").click()
    await expect(admin.get_by_role("heading", name="Device P/1")).to_be_visible()
    await expect(admin.get_by_text("red", exact=True)).to_be_visible()
    await expect(admin.get_by_text("This device has no certificate yet.")).to_be_visible()
    await admin.get_by_role("link", name="Make a one-time code").click()
    await admin.get_by_label("To be spent at").select_option(puppet.name)
    async with admin.expect_download() as download:
        await admin.get_by_role("button", name="Make and download").click()
    path = await (await download.value).path()
    [code] = csv.DictReader(io.StringIO(path.read_text()))
    assert (code["serial"], len(code["code"])) == ("P/1", 23)
    await admin.goto("/codes?serial=P/1")
    await expect(admin.get_by_role("cell", name="open")).to_be_visible()
    await admin.goto("/devices?metadata=blue")
    await expect(admin.get_by_text("is no name=value")).to_be_visible()
    await admin.goto("/devices?metadata=colour%3Dblue")
    await expect(admin.get_by_text("Nothing is found.")).to_be_visible()
    await admin.get_by_label("Metadata").fill("colour=red")
    await admin.get_by_role("button", name="Search").click()
    await admin.get_by_role("link", name="P/1").click()
    await admin.get_by_role("button", name="Forget this device").click()
    await admin.goto("/devices?serial=P/1")
    await expect(admin.get_by_text("Nothing is found.")).to_be_visible()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/aliases/nowhere", "There is no alias nowhere."),
        ("/devices/nowhere", "The device nowhere is not known."),
        ("/codes?number=x", "not a number"),
        ("/codes?serial=nothing", "Nothing is found"),
    ],
)
async def test_what_is_not_there_is_said(admin: Page, path: str, sentence: str):
    await admin.goto(path)
    await expect(admin.get_by_text(sentence)).to_be_visible()


async def test_narrow_screens_need_no_sideways_scrolling(admin: Page):
    await admin.set_viewport_size({"width": 390, "height": 800})
    for path in ("/aliases", "/aliases/tls-client", "/requesters", "/manufacturers", "/devices",
                 "/codes"):  # fmt: skip
        await admin.goto(path)
        wide = await admin.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, path


def test_strangers_see_and_change_nothing(central: Central):
    with httpx.Client(verify=False, base_url=central.web_url) as client:
        for path in ("/aliases", "/requesters", "/manufacturers", "/devices/import", "/codes"):
            assert client.post(path, data={"name": "x"}).status_code == 401
            assert client.post(path, files={"file": b"serial"}).status_code == 401
        for path in ("/aliases", "/requesters", "/manufacturers", "/devices", "/codes"):
            assert client.get(path).status_code == 401
