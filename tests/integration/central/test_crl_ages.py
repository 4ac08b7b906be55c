"""Old CRLs raise an alarm: at the page, by REST, in the metrics; whose fault they are is said."""

import asyncio
from pathlib import Path

from sqlalchemy import insert

from central.admin import words
from central.authority.hierarchy import store_authority
from central.inventory.crl_ages import CrlAges
from central.inventory.reads import Inventory
from central.sync.apply import Applier
from shared.store.database import Database
from shared.store.schema import crl, gateway
from shared.store.transaction import Transaction
from shared.sync import events
from tests.support.pki_hierarchy import root_authority, subordinate
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import open_database

_ROOT = root_authority()
_GATEWAY = subordinate(_ROOT, "Gateway CA gw-1", 0)
_ROOT_ID, _GATEWAY_ID = _ROOT.issuer.ca_id, _GATEWAY.issuer.ca_id
_DAY_S = 24 * 3600
_DAY_US = _DAY_S * 1_000_000


def _found(tx: Transaction) -> None:
    """A root with a fresh CRL, and a gateway's CA with a CRL of 180 days and a delta of seven."""
    named = {"gateway": "gw-1"}
    store_authority(tx, kind="root", name="Root", der=_ROOT.issuer.chain[0], parent_id=None)
    chain = _GATEWAY.issuer.chain
    store_authority(tx, kind="gateway", name="gw-1", der=chain[0], parent_id=_ROOT_ID, **named)
    row = {"name": "gw-1", "state": "active", "state_reason": "", "created_at": START_US}
    tx.execute(insert(gateway), row)
    for ca_id, number, days, scope in (
        (_ROOT_ID, 1, 3650, "complete"),
        (_GATEWAY_ID, 1, 180, "complete"),
        (_GATEWAY_ID, 2, 7, "delta"),
    ):
        times = {"this_update": START_US, "next_update": START_US + days * _DAY_US}
        tx.execute(
            insert(crl), {"ca_id": ca_id, "number": number, "der": b"", "scope": scope, **times}
        )


async def _alarms(database: Database, days: float, alarm_days: int = 14) -> dict[str, str]:
    ages = CrlAges(database, ManualClock(START_US + int(days * _DAY_US)), alarm_days)
    return {f"{one.gateway}/{one.scope}": one.alarm for one in await ages.alarms()}


async def test_the_alarm_begins_before_the_end(tmp_path: Path, each_database: str):
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_found)
        assert await _alarms(database, 1) == {}
        assert set(await _alarms(database, 3.6)) == {"gw-1/delta"}, "half of its seven days"
        assert set(await _alarms(database, 165)) == {"gw-1/delta"}
        late = await _alarms(database, 167)
        assert "ends at" in late["gw-1/complete"]
        assert "ended at" in late["gw-1/delta"]
        assert set(await _alarms(database, 160, 30)) == {"gw-1/complete", "gw-1/delta"}
        ended = gateway.update().values(state="ended")
        await database.writer.run(lambda tx: tx.execute(ended))
        assert await _alarms(database, 200) == {}, "nobody signs for a gateway that is gone"


async def test_a_missing_crl_and_one_that_is_refused(tmp_path: Path):
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_found)
        await database.writer.run(lambda tx: tx.execute(crl.delete()))
        assert await _alarms(database, 0.5) == {}
        assert (await _alarms(database, 2))["gw-1/complete"] == "There is none."
        clock = ManualClock(START_US + 2 * _DAY_US)
        ages = CrlAges(database, clock, 14, lambda: {_ROOT_ID: "too large."})
        seen = await Inventory(database, crl_ages=ages).dashboard()
        said = [remark.sentence for remark in words.questions(seen, clock.utc_us)]
        assert "The CRL of Root: It cannot be signed: too large." in said
        assert "The CRL of gw-1: There is none." in said
        lines = await Inventory(database, crl_ages=ages).dashboard(frozenset({"gw-1"}))
        assert [one.gateway for one in lines.crl_alarms] == ["gw-1"]


async def test_a_gateway_that_cannot_sign_its_crl_asks(tmp_path: Path):
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_found)
        body = {"ca_id": _GATEWAY_ID, "why": "A document to sign has at most 66,576,384 bytes."}
        now = ManualClock().now()
        event = events.create("crl.refused", body, actor="system", now=now, random=bytes)
        await database.writer.run(lambda tx: Applier("gw-1").apply(tx, event))
        [question], _ = await Inventory(database).conflicts.find(limit=9)
        assert (question.kind, question.subject) == ("crl-refused", _GATEWAY_ID)
        assert question.detail["why"] == body["why"]
        assert words.CONFLICTS[question.kind]


async def test_rest_page_and_metrics_show_the_same(central, api):
    shown = (await asyncio.to_thread(api.get, "/api/v2.0/crls")).json()["data"]
    shown = [row for row in shown if row["attributes"]["gateway"] is None]
    kinds = {row["attributes"]["kind"] for row in shown}
    assert {"root", "fleet", "issuing", "transport_root"} <= kinds
    assert all(row["attributes"]["alarm"] == "" for row in shown)
    assert all(row["attributes"]["number"] for row in shown)
    status = (await asyncio.to_thread(api.get, "/api/v2.0/status")).json()
    assert "crl_alarms" in str(status)
    told = (await asyncio.to_thread(api.get, "/metrics")).text
    for row in shown:
        ca_id = row["attributes"]["ca_id"]
        assert f'tma_crl_alarm{{ca="{ca_id}",gateway="",scope="complete"}} 0.0' in told
    refused = await asyncio.to_thread(
        api.get, "/api/v2.0/crls", headers={"Authorization": "Bearer none"}
    )
    assert refused.status_code == 401
    assert central
