"""A real browser before central's pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, async_playwright, expect

from tests.support.fleet import Central

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@asynccontextmanager
async def browser_page(central: Central, *, bypass_csp: bool = False) -> AsyncIterator[Page]:
    """Open an empty page; whatever the page's console says is a failure.

    ``bypass_csp`` lets a test put scripts of its own into the page.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        context = await browser.new_context(
            ignore_https_errors=True,
            bypass_csp=bypass_csp,
            base_url=central.web_url,
            viewport={"width": 1280, "height": 800},
        )
        opened = await context.new_page()
        problems: list[str] = []
        opened.on("console", lambda said: problems.append(said.text))
        opened.on("pageerror", lambda error: problems.append(str(error)))
        yield opened
        await browser.close()
    assert not (told := [text for text in problems if "status of" not in text]), told


async def violations(page: Page) -> list[str]:
    """Have axe-core judge the page that is open (WCAG 2.2 A and AA); it needs ``bypass_csp``."""
    results = await Axe().run(page, options=_RULES)
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]}"
        for one in results.response["violations"]
        for node in one["nodes"]
    ]


async def log_in(page: Page, central: Central) -> None:
    """Log in as the first administrator."""
    await page.goto("/login")
    await page.get_by_label("Name").fill("admin")
    await page.get_by_label("Password").fill(central.admin_password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
