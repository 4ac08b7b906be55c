"""Publishing profiles, presets, rules and grants, up to what a gateway holds of them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect
from sqlalchemy import insert, select

from central.authority.hierarchy import store_authority
from central.identity.approvals import Approvals
from central.issuing import CentralProfiles
from central.policy import books
from central.policy.authoring import Authoring
from central.policy.lint import Sample
from central.sync import directives
from central.sync.apply import Applier
from gateway import commands
from shared.kernel.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.rights import Right
from shared.policy.shipped import FIRST, SHIPPED
from shared.store.database import Database
from shared.store.schema import gateway, grant_use, profile
from shared.store.transaction import Transaction
from shared.sync import events
from shared.web.auth import Principal
from tests.support.central_pages import browser_page, log_in
from tests.support.fleet import Central
from tests.support.pki_hierarchy import NOW_US, Hierarchy
from tests.support.store_clock import ManualClock
from tests.support.store_databases import ListSink, open_database

ACTOR = "user:admin"
USUAL = Sample.from_document({})
GRANT = Grant(
    grant_id="grant-1",
    version=1,
    profiles=("tls-server",),
    quota=10,
    not_before_us=NOW_US,
    not_after_us=NOW_US * 2,
)


class World:
    """Central's rows and one gateway's, with the directives between them."""

    def __init__(self, central: Database, box: Database, sink: ListSink, told: ListSink) -> None:
        self.central, self.box, self.sink, self.told = central, box, sink, told
        self.profiles = CentralProfiles(central)
        self.authoring = self.authoring_of()

    def authoring_of(self, *needed: str) -> Authoring:
        """What administrators use; these operations need a second person."""
        clock = ManualClock()
        self.approvals = Approvals(self.central, needed=frozenset(needed), hours=1, clock=clock)
        return Authoring(self.central, clock, self.profiles.refresh, self.approvals)

    async def deliver(self) -> list[str]:
        """Hand what was ordered to the gateway, and its answers to central; gives the results."""
        orders = [order for _peer, order in self.sink.events]
        self.sink.events.clear()
        for order in orders:
            await self.box.writer.run(lambda tx, order=order: commands.apply(tx, order))
        answers = [answer for _peer, answer in self.told.events]
        self.told.events.clear()
        for answer in answers:
            await self.central.writer.run(lambda tx, a=answer: Applier("gw-1").apply(tx, a))
        return [answer.body["result"] for answer in answers]

    async def held(self) -> dict[str, Profile]:
        rows = await self.box.read(select(profile).where(profile.c.state == "active"))
        return {row.name: Profile.from_document(row.document) for row in rows}


def _found(transaction: Transaction) -> None:
    """Make what `init` and a join leave, with the first versions only."""
    hierarchy = Hierarchy()
    root = store_authority(
        transaction, kind="root", name="R", der=hierarchy.root.issuer.chain[0], parent_id=None
    )
    store_authority(
        transaction,
        kind="gateway",
        name="G",
        der=hierarchy.gateway.issuer.chain[0],
        parent_id=root,
        gateway="gw-1",
    )
    row = {"name": "gw-1", "state": "active", "state_reason": "", "created_at": 0}
    transaction.execute(insert(gateway), row)
    for first in FIRST:
        books.draft(transaction, first, ACTOR)
        books.publish(transaction, first.name, first.version, first.sha256, ACTOR)
    row = {"grant_id": "grant-1", "version": 1, "quota": 10, "used": 0, "state": "active"}
    document = json.dumps(GRANT.to_document()).encode()
    transaction.execute(insert(grant_use), row | {"document": document})
    directives.order_grant(transaction, "gw-1", GRANT, ACTOR)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    sink, told = ListSink(), ListSink()
    async with (
        open_database(tmp_path / "central.db", sink=sink) as central,
        open_database(tmp_path / "box.db", sink=told) as box,
    ):
        await central.writer.run(_found)
        made = World(central, box, sink, told)
        await made.profiles.refresh()
        await made.deliver()
        yield made


def changed(**changes: Any) -> dict[str, Any]:
    document = FIRST[0].to_document() | changes
    del document["version"]
    return document


async def test_a_published_version_is_in_force_here_and_acknowledged_by_the_gateway(world: World):
    line = await world.authoring.draft(changed(title="Better"), ACTOR)
    assert (line["version"], line["state"]) == (2, "draft")
    assert world.profiles.profile("tls-server").version == 1
    await world.authoring.publish("tls-server", 2, USUAL, ACTOR)
    assert world.profiles.profile("tls-server").title == "Better"
    [sent] = await world.authoring.roll_out()
    assert not sent["applied"]
    assert await world.deliver() == ["applied"]
    assert (await world.held())["tls-server"].version == 2
    [applied] = await world.authoring.roll_out()
    assert applied["applied"] and applied["sent"] == sent["sent"]
    await world.authoring.publish("tls-server", 2, USUAL, ACTOR)
    assert not world.sink.events  # the same again changes nothing
    states = {
        line["version"]: line["state"]
        for line in await world.authoring.profiles()
        if line["name"] == "tls-server"
    }
    assert states == {1: "superseded", 2: "active", 3: "shipped"}  # ours took the number 2
    changes = await world.authoring.difference("tls-server", 1, 2)
    assert {change["field"] for change in changes} == {"title", "version"}


async def test_what_pkilint_or_the_rules_refuse_is_not_published(world: World):
    wrong = changed(key_usage=["digital_signature", "key_encipherment"])  # not with EC keys
    await world.authoring.draft(wrong, ACTOR)
    with pytest.raises(BadRequestError, match=r"pkilint refuses .* ec-p256"):
        await world.authoring.publish("tls-server", 2, USUAL, ACTOR)
    await world.authoring.draft(changed(mode="stock") | {"name": "later"}, ACTOR)
    with pytest.raises(BadRequestError, match="not issued by this version"):
        await world.authoring.publish("later", 1, USUAL, ACTOR)
    picky = {"attribute": "common_name", "required": True, "allowed_patterns": ["pump-[0-9]+"]}
    await world.authoring.draft(changed(subject=[picky]) | {"name": "picky"}, ACTOR)
    with pytest.raises(BadRequestError, match="refuse the sample"):
        await world.authoring.publish("picky", 1, USUAL, ACTOR)
    sample = Sample.from_document({"subject": {"common_name": "pump-7"}})
    await world.authoring.publish("picky", 1, sample, ACTOR)
    assert world.profiles.profile("tls-server").version == 1
    assert world.profiles.profile("picky").version == 1


async def test_a_published_version_never_changes_and_a_withdrawn_one_is_gone(world: World):
    with pytest.raises(ConflictError, match="other content"):
        await world.authoring.draft(changed(title="Other") | {"version": 1}, ACTOR)
    await world.authoring.withdraw("tls-server", ACTOR)
    await world.deliver()
    assert set(await world.held()) == {"tls-client", "idevid"}
    with pytest.raises(NotFoundError):
        world.profiles.profile("tls-server")
    with pytest.raises(NotFoundError):
        await world.authoring.withdraw("tls-server", ACTOR)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
async def test_every_shipped_profile_passes(world: World, shipped: Profile):
    findings = await world.authoring.check(shipped.name, shipped.version, USUAL)
    assert not [one for one in findings if one.severity not in {"INFO", "NOTICE"}]


async def test_a_preset_says_what_it_changes_and_changes_just_that(world: World):
    seen = await world.authoring.preset("hardened", ACTOR, apply=False)
    assert not world.sink.events
    done = await world.authoring.preset("hardened", ACTOR, apply=True)
    assert done == seen
    fields = {change["field"]: change["after"] for change in seen[0]["changes"]}
    assert fields["validity.clock_in_doubt"] == "hold"
    await world.deliver()
    assert (await world.held())["tls-server"].validity.days_max == 398
    assert await world.authoring.preset("hardened", ACTOR, apply=True) == []


async def test_rules_reach_the_gateway(world: World):
    rules = {"rules": [{"name": "none", "title": "None", "effect": "deny"}]}
    await world.authoring.put_rules(rules, ACTOR)
    await world.deliver()
    assert world.profiles.rules().rules[0].name == "none"
    rows = await world.box.read(select(profile))  # the box is open
    assert rows
    with pytest.raises(BadRequestError):
        await world.authoring.put_rules({"rules": [{"name": "x"}]}, ACTOR)


async def test_a_grant_is_topped_up_once_however_often_it_is_said(world: World):
    await world.deliver()
    for _ in range(3):
        new = await world.authoring.amend_grant("grant-1", {"quota": 500}, ACTOR)
    assert (new["version"], new["quota"]) == (2, 500)
    serials = [f"SN-{number:06}" for number in range(100_000)] + ["odd one"]
    new = await world.authoring.amend_grant("grant-1", {"serials": serials}, ACTOR)
    assert new["devices"] == {
        "listed": ["odd one"],
        "ranges": [{"prefix": "SN-", "first": "000000", "last": "099999"}],
    }
    await world.deliver()
    [line] = await world.authoring.grants()
    assert line["gateway"] == "gw-1" and line["applied"] and line["unused"] == 500
    [row] = await world.box.read(select(grant_use))
    assert (row.version, row.quota, row.used) == (3, 500, 0)
    await world.authoring.end_grant("grant-1", ACTOR)
    await world.authoring.end_grant("grant-1", ACTOR)
    with pytest.raises(ConflictError):
        await world.authoring.amend_grant("grant-1", {"quota": 1}, ACTOR)
    await world.deliver()
    [row] = await world.box.read(select(grant_use))
    ended = Grant.from_document(json.loads(row.document))
    assert ended.version == 4 and ended.not_after_us < GRANT.not_after_us


async def test_a_tampered_bundle_or_grant_is_refused_whole(world: World):
    document = FIRST[0].to_document() | {"key_types": ["rsa-1024"]}
    bundle = {"version": 9, "profiles": [document], "certificates": []}
    for kind, body in (
        ("bundle", {"document": bundle}),
        ("grant", {"document": GRANT.to_document() | {"quota": -1}}),
    ):
        order = events.create(
            f"directive.{kind}",
            body | {"incarnation": "x", "number": 99},
            actor=ACTOR,
            now=ManualClock().now(),
            random=bytes,
        )
        with pytest.raises(BadRequestError):
            await world.box.writer.run(lambda tx, order=order: commands.apply(tx, order))
    assert (await world.held())["tls-server"].version == 1


async def test_publishing_may_need_a_second_person(world: World):
    """What he agrees to is what was seen: another content under the same version is refused."""
    authoring = world.authoring_of("profile.publish")
    document = FIRST[0].to_document() | {"name": "ours", "version": 1}
    await authoring.draft(document, ACTOR)
    first = await authoring.publish("ours", 1, USUAL, ACTOR)
    assert first.approval is not None
    assert (await authoring.profile("ours"))[0] == "draft"
    await authoring.draft(document | {"title": "Another one"}, ACTOR)
    second = Principal("user:ben", (Right.of("admin"),))
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await world.approvals.decide(first.approval, second, agreed=True)
    again = await authoring.publish("ours", 1, USUAL, ACTOR)
    with pytest.raises(ForbiddenError):
        await world.approvals.decide(
            again.approval, Principal(ACTOR, (Right.of("admin"),)), agreed=True
        )
    await world.approvals.decide(again.approval, second, agreed=True)
    assert (await authoring.profile("ours"))[0] == "active"
    assert world.profiles.profile("ours").title == "Another one"


def test_by_rest_of_the_running_server(api: httpx.Client):
    base = "/api/v2.0/policy"
    states = {line["name"]: line["state"] for line in api.get(f"{base}/profiles").json()["data"]}
    assert states["opc-ua-ecc"] == "active"
    document = {"name": "opc-ua-ecc-2", "version": 1}
    [shipped] = [one for one in SHIPPED if one.name == "opc-ua-ecc"]
    drafted = api.post(f"{base}/profiles", json={"data": shipped.to_document() | document})
    assert drafted.json()["data"]["state"] == "draft"
    newer = document | {"version": 2, "title": "Another title"}
    api.post(f"{base}/profiles", json={"data": shipped.to_document() | newer})
    differs = api.get(f"{base}/profiles/opc-ua-ecc-2/diff?version=2&to=1").json()["data"]
    assert [change["field"] for change in differs] == ["title", "version"]
    assert api.get(f"{base}/profiles/opc-ua-ecc-2/diff?version=x").status_code == 400
    published = api.post(f"{base}/profiles/opc-ua-ecc-2/publish", json={"version": 1})
    assert published.status_code == 200, published.text
    wrong = api.post(f"{base}/profiles", json={"data": document})
    assert wrong.status_code == 400 and "“title”" in wrong.json()["detail"]
    explained = api.post(
        "/api/v2.0/profiles/opc-ua-ecc-2/explain",
        json={"data": {"type": "certificate", "attributes": {"cn": "plc"}}},
    ).json()["data"]["attributes"]
    assert explained["refusal"]["rule"] == "alt_names.uri"
    assert isinstance(api.get(f"{base}/grants").json()["data"], list)
    assert api.post(f"{base}/profiles/opc-ua-ecc-2/withdraw").status_code == 200
    assert "properties" in api.get("/api/v2.0/profiles/schema").json()


async def test_by_command_of_the_running_server(central: Central, tmp_path: Path):
    async def tma(*arguments: str) -> Any:
        return await asyncio.to_thread(central.command, *arguments)

    listed = json.loads(await tma("profile", "list", "--json"))
    assert {line["name"] for line in listed} >= {one.name for one in SHIPPED}
    document = json.loads(await tma("profile", "show", "dot1x-client"))
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**document, "name": "dot1x-hall-2", "version": 1}), "utf-8")
    await tma("profile", "draft", str(path))
    assert "in force" in await tma("profile", "publish", "dot1x-hall-2", "--version", "1")
    told = json.loads(await tma("profile", "explain", "dot1x-hall-2", "--cn", "press", "--json"))
    assert told["outcome"] == "issue" and told["certificate"]["subject"] == ["common_name=press"]
    told = json.loads(await tma("profile", "explain", "dot1x-hall-2", "--json"))
    assert told["refusal"]["rule"] == "subject.common_name"
    assert json.loads(await tma("preset", "preview", "hardened", "--json"))
    assert json.loads(await tma("rules", "show")) == {}
    await tma("profile", "withdraw", "dot1x-hall-2")


async def test_the_page_compares_any_two_versions(central, api):
    base = "/api/v2.0/policy/profiles"
    [shipped] = [one for one in SHIPPED if one.name == "opc-ua-ecc"]
    for version, title in ((1, "First"), (2, "Second"), (3, "Third")):
        document = shipped.to_document() | {"name": "compared", "version": version, "title": title}
        assert api.post(base, json={"data": document}).status_code == 200
    async with browser_page(central) as page:
        await log_in(page, central)
        await page.goto("/profiles/compared?version=3")
        await page.get_by_label("Compare with").select_option("version 1")
        await page.get_by_role("button", name="Compare").click()
        table = page.get_by_role("table", name="What it changes against version 1")
        await expect(table.get_by_role("row", name="title")).to_contain_text("First")
        await expect(table.get_by_role("row", name="title")).to_contain_text("Third")
