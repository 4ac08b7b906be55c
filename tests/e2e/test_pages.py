"""Both pages in a browser show what the databases hold."""

import asyncio
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.fleet import Fleet
from tests.support.processes import program, wait_until
from tests.support.products import gateway_ledger, inventory
from tests.support.rest import Line, connect, devices

_DEVICES = 9


@pytest.fixture(scope="module", autouse=True)
def enrolled(fleet: Fleet) -> None:
    [gateway] = fleet.gateways

    async def enroll() -> None:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            await Line(rest).enroll(devices("device", _DEVICES))

    asyncio.run(enroll())
    wait_until(
        lambda: gateway_ledger(fleet, "gw-01") == inventory(fleet, "gw-01"),
        what="central knows what the gateway knows",
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when a script fails or the policy blocks something."""
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert not problems


def test_technician_page(fleet: Fleet, page: Page):
    [gateway] = fleet.gateways
    page.goto(f"{gateway.web_url}/")
    assert page.locator(".banner .sentence").inner_text()
    assert page.locator(".banner.good").count() == 1
    rows = page.locator("tbody tr").all_inner_texts()
    assert sum("device-" in row and "issued" in row for row in rows) == _DEVICES
    tiles = " ".join(page.locator(".tiles").all_inner_texts())
    assert "Central knows every certificate." in tiles


def test_central_page(fleet: Fleet, page: Page):
    central = fleet.central
    page.goto(f"{central.web_url}/")
    page.get_by_label("name").fill("admin")
    page.get_by_label("password").fill(central.admin_password)
    page.get_by_role("button").first.click()
    page.wait_for_url(f"{central.web_url}/")
    text = page.inner_text("main")
    assert "gw-01" in text
    assert f"{len(inventory(fleet, 'gw-01')):,}" in text
