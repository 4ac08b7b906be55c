"""Central and a gateway are compared: what differs is repaired, or shown, and nothing twice."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest
from playwright.async_api import expect

from shared.kernel import limits
from shared.store import certificates
from tests.support.central_pages import log_in
from tests.support.products import rows


def _known(central, name):
    statement = "SELECT device_id, status FROM certificate WHERE origin = ?"
    return dict(rows(central.database, statement, name))


async def _hold(puppet, count, prefix="SN"):
    """Issue, keep in the puppet's own ledger as an agent does, and report."""
    bodies = [puppet.certificate(f"{prefix}-{number}") for number in range(count)]
    await _record(puppet, bodies)
    await puppet.emit("certificate.issued", *bodies)
    await puppet.drained()
    return bodies


async def _record(puppet, bodies):
    def unit(tx):
        for body in bodies:
            certificates.record_issued(
                tx, "", body, issued_at_us=tx.now.utc_us, clock_quality="ntp"
            )

    await puppet.database.writer.run(unit)


def _forget(central, statement, *values):
    """Change the database as no software of ours would."""
    if isinstance(central.database, str):
        rows(central.database, statement, *values)
        return
    with closing(sqlite3.connect(central.database, timeout=30)) as database:
        database.execute(statement, values)
        database.commit()


async def _compare(central, name):
    told = await asyncio.to_thread(central.command, "gateway", "compare", name, "--json")
    return json.loads(told)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a puppet issued just now is compared, too."""
    monkeypatch.setattr(limits, "COMPARED_AFTER_US", -5_000_000)


async def test_equal_sides_differ_in_nothing(central, newborn, api):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        place = f"/api/v2.0/gateways/{puppet.name}"
        assert api.get(f"{place}/comparison").status_code == 404
        await _hold(puppet, 300)
        found = await _compare(central, puppet.name)
        assert (found["certificates"], found["buckets"]) == (300, 0)
        last = api.get(f"{place}/comparison").json()["data"]["attributes"]
        assert last["certificates"] == 300
    assert api.post(f"{place}/compare").status_code == 409


def _counted(central, puppet):
    """What central has counted of a gateway: its certificates, and the units of its grant."""
    found = rows(central.database, "SELECT value FROM counter WHERE name = ?",
                 f"issued/{puppet.name}")  # fmt: skip
    *_, grant = [one for one in puppet.received if one.type == "directive.grant"]
    used = rows(central.database, "SELECT used FROM grant_use WHERE grant_id = ?",
                grant.body["document"]["grant_id"])  # fmt: skip
    return found[0][0], used[0][0]


async def test_what_central_lost_comes_back_and_once(central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = await _hold(puppet, 400)
        assert _counted(central, puppet) == (400, 400)
        lost = [bodies[number]["serial"] for number in (3, 77, 200)]
        for serial in lost:
            _forget(central, "DELETE FROM certificate WHERE serial = ?", serial)
        found = await _compare(central, puppet.name)
        assert (found["repaired"], found["ordered"], found["only_here"]) == (3, 0, 0)
        assert len(_known(central, puppet.name)) == 400
        assert _counted(central, puppet) == (400, 400)
        again = await _compare(central, puppet.name)
        assert (again["buckets"], again["repaired"]) == (0, 0)


async def test_a_revocation_that_one_side_lost_is_known_to_both(central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        here, there = await _hold(puppet, 2)
        place = {"ca_id": there["ca_id"], "serial": there["serial"]}
        revocation = {**place, "reason": "key_compromise", "revoked_at_us": 1_800_000_000_000_000}
        await puppet.database.writer.run(lambda tx: certificates.record_revoked(tx, "", revocation))
        _forget(
            central,
            "UPDATE certificate SET status = 'revoked', reason = 'superseded', "
            "revoked_at = 1800000000000000 WHERE serial = ?",
            here["serial"],
        )
        found = await _compare(central, puppet.name)
        assert (found["repaired"], found["ordered"], found["only_here"]) == (1, 1, 0)
        assert set(_known(central, puppet.name).values()) == {"revoked"}
        assert (await puppet.heard("directive.revoke")).body["serial"] == here["serial"]


async def test_what_only_central_knows_is_a_question(central, newborn, api):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await _hold(puppet, 20)
        unknown = puppet.certificate("SN-unknown")
        await puppet.emit("certificate.issued", unknown)
        await puppet.drained()
        for _ in range(2):
            found = await _compare(central, puppet.name)
            assert found["only_here"] == 1
        assert found["examples"] == [f"{unknown['ca_id']}/{unknown['serial']}"]
        asked = [
            one["attributes"]
            for one in api.get("/api/v2.0/conflicts").json()["data"]
            if one["attributes"]["gateway"] == puppet.name
        ]
        assert [one["kind"] for one in asked].count("missing-at-gateway") == 1


async def test_what_was_only_ordered_is_no_loss(central, newborn, api):
    """A revocation of what central has not heard of leaves a stub: the gateway never had it."""
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await _hold(puppet, 5)
        stub = {"ca_id": puppet.authority.issuer.ca_id, "serial": "0123456789abcdef" * 2}
        _forget(
            central,
            "INSERT INTO certificate (ca_id, serial, origin, state, status, test, issued_at) "
            "VALUES (?, ?, ?, 'stub', 'revoked', 0, 1)",
            stub["ca_id"], stub["serial"], puppet.name,
        )  # fmt: skip
        found = await _compare(central, puppet.name)
        assert (found["buckets"], found["only_here"], found["repaired"]) == (1, 0, 0)
        kinds = [one["attributes"]["kind"] for one in api.get("/api/v2.0/conflicts").json()["data"]
                 if one["attributes"]["gateway"] == puppet.name]  # fmt: skip
        assert "missing-at-gateway" not in kinds


async def test_what_a_gateway_says_of_others_changes_nothing(central, newborn):
    """It cannot bring a certificate in that its CA did not sign, nor touch another gateway's."""
    other, puppet = await newborn(), await newborn()
    async with other.open(), other.online():
        await _hold(other, 5)
    async with puppet.open(), puppet.online():
        await _hold(puppet, 5)
        foreign = [other.certificate("SN-foreign")]
        foreign[0]["grant_id"] = None
        await _record(puppet, foreign)
        place = {"ca_id": foreign[0]["ca_id"], "serial": foreign[0]["serial"]}
        body = {**place, "reason": "unspecified", "revoked_at_us": 1_800_000_000_000_000}
        await puppet.database.writer.run(lambda tx: certificates.record_revoked(tx, "", body))
        with pytest.raises(AssertionError, match=r"not one of this\s+gateway"):
            await _compare(central, puppet.name)
        assert "SN-foreign" not in _known(central, puppet.name)
        assert "SN-foreign" not in _known(central, other.name)


async def test_while_events_are_unsent_nothing_is_compared(central, newborn):
    puppet = await newborn()
    async with puppet.open():
        async with puppet.online():
            await _hold(puppet, 3)
        with pytest.raises(AssertionError, match=r"not online|to send"):
            await _compare(central, puppet.name)


async def test_the_page_compares_on_demand(central, newborn, page):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await _hold(puppet, 12)
        await log_in(page, central)
        await page.goto(f"/gateways/{puppet.name}/histories")
        await expect(page.get_by_text("were not compared yet")).to_be_visible()
        await page.get_by_role("button", name="Compare now").click()
        await expect(page.get_by_text("12 certificates were compared")).to_be_visible()
        await expect(page.get_by_text("Nothing differs.")).to_be_visible()
