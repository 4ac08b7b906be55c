"""Every page of central, judged by axe-core (WCAG 2.2 A and AA): nothing is left."""

import pytest

from tests.support.central_pages import browser_page, log_in, violations

_PAGES = [
    "/",
    "/certificates?q=meta.line:7",
    "/certificates?q=colour:red",
    "/devices",
    "/codes",
    "/aliases",
    "/requesters",
    "/manufacturers",
    "/gateways",
    "/quarantine",
    "/conflicts",
    "/backups",
    "/revocations",
    "/profiles",
    "/profiles/tls-server",
    "/presets/industrial",
    "/authorities",
    "/users",
    "/users/admin",
    "/roles",
    "/approvals",
    "/audit",
    "/account",
    "/account/password",
    "/nowhere",
]


@pytest.fixture
async def filled(newborn, central):
    """A gateway with metadata, a certificate, an event in quarantine and a question; its name."""
    puppet = await newborn()
    central.command("metadata", "set", "gateway", puppet.name, "site", "Nordhausen")
    async with puppet.open(), puppet.online():
        poison = puppet.certificate("SN-poison") | {"ca_id": "00" * 20}
        unsure = puppet.certificate("SN-unsure") | {"grant_id": "of-another-central"}
        await puppet.emit("certificate.issued", unsure, poison)
        await puppet.drained()
    return puppet.name, f"{unsure['ca_id']}/{unsure['serial']}"


async def test_no_page_keeps_anybody_out(central, filled):
    gateway, certificate = filled
    authority = f"/authorities/{certificate.split('/')[0]}"
    found: dict[str, list[str]] = {}
    async with browser_page(central, bypass_csp=True) as page:
        for path in (
            "/login",
            *_PAGES,
            f"/gateways/{gateway}",
            f"/gateways/{gateway}/histories",
            f"/certificates/{certificate}",
            authority,
        ):
            if path == _PAGES[0]:
                await log_in(page, central)
            await page.goto(path)
            if told := await violations(page):
                found[path] = told
    assert not found
