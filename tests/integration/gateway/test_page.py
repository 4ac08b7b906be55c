"""The technician page in Chromium: one screen, no errors, grey when the gateway is gone."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, async_playwright

from gateway.snapshot import Snapshot, TokenState, TokenView
from gateway.web import page
from shared.web import app
from shared.web.pages import Pages
from tests.support.gateway_snapshots import HEALTHY


@asynccontextmanager
async def shown(snapshot: list[Snapshot]) -> AsyncGenerator[tuple[Page, list[str]]]:
    """Serve ``snapshot[-1]`` and open the page; gives it and what the browser complained about."""

    async def read() -> Snapshot:
        return snapshot[-1]

    pages = Pages("gateway.web", product="TMA Edge", version="0.1.0")
    application = app.create(page.routes(pages, read), random=os.urandom, pages=pages)
    async with (
        app.serve([app.Endpoint(application, "127.0.0.1", 0)]) as [port],
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        screen = await browser.new_page(viewport={"width": 1280, "height": 800})
        complaints: list[str] = []
        screen.on("console", lambda message: complaints.append(message.text))
        screen.on("pageerror", lambda error: complaints.append(str(error)))
        await screen.goto(f"http://127.0.0.1:{port}/")
        yield screen, complaints
        await browser.close()


async def test_a_healthy_line_fits_on_one_screen(tmp_path):
    async with shown([HEALTHY]) as (screen, complaints):
        assert await screen.inner_text(".banner .sentence") == "Production possible"
        for text in ("gw-07", "SN-0000013", "Gateway CA gw-07", "87,655 of 100,000"):
            assert text in await screen.inner_text("body")
        size = await screen.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert size[0] <= 1280
        assert size[1] <= 800
        assert complaints == []


async def test_the_page_follows_and_greys_out_when_the_gateway_is_lost():
    snapshots = [HEALTHY]
    async with shown(snapshots) as (screen, complaints):
        snapshots.append(replace(HEALTHY, token=TokenView(TokenState.ABSENT)))
        await screen.wait_for_selector("text=Production stopped", timeout=10_000)
        assert "Plug the token in" in await screen.inner_text(".banner")
        assert complaints == []
        await screen.context.set_offline(offline=True)
        await screen.wait_for_selector("body.outdated", timeout=15_000)
        assert await screen.locator(".stale").is_visible()
        await screen.context.set_offline(offline=False)
        await screen.wait_for_selector("body:not(.outdated)", timeout=15_000)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
async def test_what_a_requester_sent_is_text_and_nothing_else(hostile: str):
    row = replace(HEALTHY.recent[0], device=hostile, why=hostile)
    async with shown([replace(HEALTHY, recent=(row,))]) as (screen, complaints):
        assert hostile in await screen.inner_text("tbody")
        assert await screen.locator("tbody img, tbody script").count() == 0
        assert complaints == []


async def test_the_page_keeps_nobody_out():
    async with shown([HEALTHY]) as (screen, _complaints):
        results = await Axe().run(screen)
        assert [one["id"] for one in results.response["violations"]] == []
