"""The shared frame in a real browser: strict policy kept, and never a stale green."""

import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from shared.web import app
from shared.web.auth import open_to_all
from shared.web.pages import Pages

_PAGE = """
{% extends "shared.web/base.html" %}
{% from "shared.web/macros.html" import banner, facts, nothing, pill, progress, table, tile %}
{% block main %}
{{ banner("good", "Production possible.", "Go on.") }}
{{ tile("Queue", "37 events", "oldest 3 min", "warn", "/queue") }}
{{ progress("Drain", 37, 120) }}
{{ facts([("Serial", "<b>ab12</b>")]) }}
{{ table("Certificates", ["Device", "Result"], [["<i>R-1</i>", pill("bad", "refused")]], "") }}
{{ table("Holds", ["Device"], [], "Nothing is on hold.") }}
<div id="panel" hx-get="/panel" hx-trigger="every 200ms">first</div>
{% endblock %}
"""


class Site:
    """A page with a panel that counts its refreshes."""

    def __init__(self, folder: Path) -> None:
        templates = folder / "site_under_test" / "templates"
        templates.mkdir(parents=True)
        (templates.parent / "__init__.py").touch()
        (templates / "page.html").write_text(_PAGE, "utf-8")
        self.pages = Pages("site_under_test", product="TMA Test", version="1")
        self.refreshes = count()
        self.port = 0

    def serve(self):
        async def page(_request: web.Request) -> web.Response:
            return self.pages.render("site_under_test/page.html", {})

        async def panel(_request: web.Request) -> web.Response:
            return web.Response(text=f"refresh {next(self.refreshes)}", content_type="text/html")

        routes = [
            web.get("/", open_to_all(page, "test")),
            web.get("/panel", open_to_all(panel, "test")),
        ]
        application = app.create(routes, random=os.urandom, pages=self.pages)
        return app.serve([app.Endpoint(application, "127.0.0.1", self.port)])


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield await browser.new_page(viewport={"width": 1280, "height": 800})
        await browser.close()


async def test_a_page_greys_when_its_server_is_gone(tmp_path, monkeypatch, page: Page):
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(tmp_path)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    async with site.serve() as (port,):
        site.port = port
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.wait_for_selector("#panel:has-text('refresh')")
        text = await page.inner_text("main")
        assert await page.locator("body.outdated").count() == 0
    for expected in ("Production possible.", "37 of 120", "<b>ab12</b>", "<i>R-1</i>", "refused",
                     "Nothing is on hold."):  # fmt: skip
        assert expected in text
    await page.wait_for_selector("body.outdated", timeout=15_000)
    assert "outdated" in await page.inner_text("[role=alert]")
    async with site.serve():
        await page.wait_for_selector("body:not(.outdated)", timeout=15_000)
    assert not complaints


async def test_the_policy_is_enforced_and_not_needed(tmp_path, monkeypatch, page: Page):
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(tmp_path)
    violations: list[str] = []
    page.on(
        "console",
        lambda message: (
            violations.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    async with site.serve() as (port,):
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.wait_for_selector("#panel:has-text('refresh')")
        assert not violations
        injected = "const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        await page.evaluate(f"{injected} document.body.append(s)")
        assert await page.evaluate("window.owned") is None
        assert violations
