"""Two boxes under one name: an administrator sees both histories and decides, by every door."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack

from playwright.async_api import expect

from tests.support.central_pages import log_in
from tests.support.central_puppet import Puppet
from tests.support.products import rows


def _gateway(central, name):
    [row] = rows(central.database, "SELECT state FROM gateway WHERE name = ?", name)
    return row[0]


def _known(central, name):
    statement = "SELECT device_id, status FROM certificate WHERE origin = ?"
    return dict(rows(central.database, statement, name))


async def _eventually(probe):
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(probe):  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.2)


async def _fight(central, newborn, stack, offline=30):
    """Give a gateway and its copy, both stopped; each has issued what the other does not know."""
    first = await newborn()
    async with first.open():
        pass
    copy = Puppet(
        first.name, first.folder.with_name(f"{first.name}-copy"), first.keys, first.answer
    )
    shutil.copytree(first.folder, copy.folder)
    await stack.enter_async_context(first.open())
    await stack.enter_async_context(first.online())
    await first.emit("certificate.issued", first.certificate("SN-known"))
    await first.drained()
    copy.received = list(first.received)
    await stack.enter_async_context(copy.open())
    bodies = [copy.certificate(f"SN-copy-{number}") for number in range(offline)]
    await copy.emit("certificate.issued", *bodies)
    await stack.enter_async_context(copy.online())
    await copy.stopped()
    await _eventually(lambda: _gateway(central, first.name) == "cloned")
    await first.emit("certificate.issued", first.certificate("SN-late"))
    return first, copy


async def _other(central, name, issued):
    """Wait until all that the copy wrote is kept, and give its id."""

    def listed():
        return json.loads(central.command("gateway", "histories", name, "--json"))

    await _eventually(lambda: [one for one in listed() if one["issued"] == issued])
    [here, other] = await asyncio.to_thread(listed)
    assert (here["id"], other["state"], other["complete"]) == ("here", "open", True)
    return other["id"]


async def test_the_box_that_central_knows_goes_on(central, newborn):
    async with AsyncExitStack() as stack:
        first, copy = await _fight(central, newborn, stack)
        other = await _other(central, first.name, 30)
        assert list(_known(central, first.name)) == ["SN-known"]
        decide = ("gateway", "decide", first.name, "--keep", "here", "--reason", "The real one")
        told = await asyncio.to_thread(central.command, *decide, "--revoke")
        assert "here" in told
        await first.drained()
        await _eventually(lambda: len(_known(central, first.name)) == 32)
        assert _gateway(central, first.name) == "active"
        known = _known(central, first.name)
        assert {status for device, status in known.items() if "copy" in device} == {"revoked"}
        assert known["SN-known"] == known["SN-late"] == "good"
        assert (await first.heard("directive.revoke")).body["reason"] == "privilege_withdrawn"
        await copy.emit("certificate.issued", copy.certificate("SN-never"))
        await asyncio.sleep(1)
        assert not await copy._is_drained()
        assert not any(event.type == "directive.revoke" for event in copy.received)
        assert _gateway(central, first.name) == "active"
    [(detail,)] = rows(central.database, "SELECT detail FROM audit WHERE action = ? AND "
                       "subject = ?", "gateway.decided", first.name)  # fmt: skip
    assert json.loads(detail) == {
        "keep": "here", "set_aside": [other], "revoke": True, "reason": "The real one",
    }  # fmt: skip


async def test_the_other_box_goes_on_behind_it(central, newborn, api):
    async with AsyncExitStack() as stack:
        first, copy = await _fight(central, newborn, stack)
        other = await _other(central, first.name, 30)
        place = f"/api/v2.0/gateways/{first.name}"
        order = {"keep": "0" * 16, "reason": "It stands at the line"}
        assert api.post(f"{place}/decide", json=order).status_code == 404
        answer = api.post(f"{place}/decide", json={**order, "keep": other})
        assert answer.status_code == 200, answer.text
        await copy.drained()
        await copy.emit("certificate.issued", copy.certificate("SN-after"))
        await copy.drained()
        await _eventually(lambda: len(_known(central, first.name)) == 33)
        await _eventually(lambda: _gateway(central, first.name) == "active")
        assert set(_known(central, first.name).values()) == {"good"}
        states = [
            one["attributes"]["state"] for one in api.get(f"{place}/histories").json()["data"]
        ]
        assert states.count("done") == 1
        assert api.post(f"{place}/decide", json={**order, "keep": other}).status_code == 409


async def test_the_page_shows_both_and_asks_why(central, newborn, page):
    async with AsyncExitStack() as stack:
        first, copy = await _fight(central, newborn, stack, offline=7)
        await _other(central, first.name, 7)
        await log_in(page, central)
        await page.goto(f"/gateways/{first.name}")
        await page.get_by_role("link", name="Its histories").click()
        await expect(page.get_by_text("Two boxes speak under this name")).to_be_visible()
        row = page.get_by_role("row").filter(has_text="it waits for a decision")
        await expect(row.get_by_role("cell").nth(5)).to_contain_text("7 certificates")
        await page.get_by_label("the box whose history is held here").check()
        await page.get_by_label("Why").fill("It is bolted to the line")
        await page.get_by_role("button", name="Decide").click()
        await expect(page.get_by_text("It is decided who goes on.")).to_be_visible()
        await first.drained()
        await _eventually(lambda: len(_known(central, first.name)) == 9)
        assert set(_known(central, first.name).values()) == {"good"}
        assert copy.stops


async def test_nothing_is_to_be_decided_of_one_box(central, newborn, api):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await puppet.emit("certificate.issued", puppet.certificate("SN-only"))
        await puppet.drained()
    place = f"/api/v2.0/gateways/{puppet.name}"
    assert api.get(f"{place}/histories").json()["data"] == []
    answer = api.post(f"{place}/decide", json={"keep": "here", "reason": "why not"})
    assert answer.status_code == 409
    assert "invite" in answer.text
    assert api.get("/api/v2.0/gateways/no-such/histories").json()["data"] == []
    assert _gateway(central, puppet.name) == "active"
