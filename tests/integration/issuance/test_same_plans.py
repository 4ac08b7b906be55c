"""The same (profile, request, clock) through both products: identical plans and certificates.

Profiles and rules are published at central and reach the gateway as its directives; each side reads
them from its own database and puts them into the issuance service as its own composition does.
"""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import insert

from central.authority.hierarchy import store_authority
from central.issuing import CentralKeys, CentralProfiles
from central.policy import books
from central.sync import directives
from gateway import commands
from gateway.ca_cache import Rules
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.service import IssuanceService
from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import RefusedError
from shared.pki import names
from shared.pki.plan import AltName, AltNameKind, NameAttribute, Plan
from shared.policy.conditions import Condition
from shared.policy.decide import Decision
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.rules import Effect, Rule, RuleSet
from shared.policy.shipped import SHIPPED
from shared.store.database import Database
from shared.store.devices import Devices
from shared.store.ledger import SqlLedger
from shared.store.schema import gateway, grant_use
from shared.store.transaction import Transaction
from tests.support import pki_keys
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy
from tests.support.policy_requests import profiles, requests
from tests.support.store_databases import ListSink, open_database

ACTOR = "user:test"
_HIERARCHY = Hierarchy()
_LEAF_PROFILES = [one for one in SHIPPED if one.ca_path_length is None]
_RULES = RuleSet(
    rules=(
        Rule(
            name="not-by-two",
            title="Not by the station two",
            effect=Effect.DENY,
            when=Condition(stations=("two",)),
        ),
    )
)


_VALUES = {
    AltNameKind.URI: "urn:host-7.example:app",
    AltNameKind.EMAIL: "host-7@plant.example",
}
_WRONG: tuple[dict[str, Any], ...] = (
    {"principal": "station:two"},
    {"public_key": b""},
    {"device_id": "a\x00b"},
    {"alt_names": (AltName(AltNameKind.REGISTERED_ID, "1.2.3.4"),)},
    {"metadata": {"a\nb": "x"}},
)


class OneClock:
    """The moment of the request that is being judged, for both sides."""

    moment = Instant(NOW_US, 0, "boot", ClockQuality.NTP)

    def now(self) -> Instant:
        return self.moment


@dataclass(frozen=True)
class Case:
    profile: Profile
    request: EnrollmentRequest
    moment: Instant


def usual() -> list[Case]:
    """Of each shipped profile what is asked for every day, for few and many days, in any doubt.

    These alone hold what the tests demand to see; what hypothesis draws depends on what is loaded.
    """
    found: list[Case] = []
    for profile in _LEAF_PROFILES:
        wished = EnrollmentRequest(
            operation=Operation.ENROLL,
            protocol="est",
            alias="line-1",
            profile=profile.name,
            principal="station:one",
            public_key=pki_keys.spki(profile.key_types[0]),
            subject=tuple(
                NameAttribute(names.BY_NAME[rule.attribute].oid.dotted_string, "host-7.example")
                for rule in profile.subject
                if rule.attribute in {"common_name", "serial_number"}
            ),
            alt_names=tuple(
                AltName(kind, _VALUES[kind])
                for kind, rule in profile.alt_name_rules.items()
                if rule.required
            ),
        )
        for number, days in enumerate((None, 5, 4_000)):
            for quality in ClockQuality:
                moment = Instant(NOW_US + (1 + number) * 100 * DAY_US, 0, "boot", quality)
                key = f"usual-{profile.name}-{days}-{quality}"
                wish = replace(wished, validity_days=days, idempotency_key=key)
                found.append(Case(profile, wish, moment))
        for number, changes in enumerate(_WRONG):
            denied = replace(wished, **changes, idempotency_key=f"wrong-{profile.name}-{number}")
            moment = Instant(NOW_US + DAY_US, 0, "boot", ClockQuality.NTP)
            found.append(Case(profile, denied, moment))
    return found


def corpus() -> list[Case]:
    """Two hundred cases more: shipped profiles and such at random, under own names."""
    found: list[Case] = []

    @some.composite
    def cases(draw: some.DrawFn) -> Case:
        drawn = draw(some.sampled_from(_LEAF_PROFILES) | profiles())
        moment = Instant(
            NOW_US + draw(some.integers(0, 400)) * DAY_US + draw(some.integers(0, 10**6)),
            0,
            "boot",
            draw(some.sampled_from(ClockQuality)),
        )
        principal = draw(some.sampled_from(["station:one", "station:two", "cert:x"]))
        return Case(drawn, replace(draw(requests(drawn)), principal=principal), moment)

    @given(cases())
    @settings(
        max_examples=200, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def collect(case: Case) -> None:
        name = case.profile.name
        if name == "random":
            name = f"random-{len(found)}"
        profile = case.profile.model_copy(update={"name": name})
        request = replace(case.request, profile=name, idempotency_key=f"corpus-{len(found)}")
        found.append(Case(profile, request, case.moment))

    collect()
    return found


class World:
    """Central's and a gateway's composition over one CA."""

    def __init__(self, central: Database, box: Database) -> None:
        self.clock = OneClock()
        self.profiles, self.rules = CentralProfiles(central), Rules(box, self.clock)
        authority = _HIERARCHY.gateway
        key = SoftwareIssuingKey(authority.issuer, authority.key)
        hierarchy: Any = SimpleNamespace(issuing=key, of=lambda _ca_id: key)
        own: Any = SimpleNamespace(active=lambda _profile: key, of=lambda _ca_id: key)
        self.central = self._service(central, self.profiles, CentralKeys(hierarchy, self.profiles))
        self.gateway = self._service(box, self.rules, own)

    def _service(self, database: Database, known: Any, keys: Any) -> IssuanceService:
        return IssuanceService(
            profiles=known,
            keys=keys,
            ledger=SqlLedger(database),
            clock=self.clock,
            random=os.urandom,
            devices=Devices(database),
        )

    async def both(self, case: Case) -> tuple[Decision, Decision]:
        self.clock.moment = case.moment
        return await self.central.explain(case.request), await self.gateway.explain(case.request)


def _found(transaction: Transaction, published: list[Profile]) -> None:
    tiers = (("root", _HIERARCHY.root, None), ("gateway", _HIERARCHY.gateway, "gw-1"))
    for kind, authority, name in tiers:
        store_authority(
            transaction, kind=kind, name=kind, der=authority.issuer.chain[0], parent_id=None,
            gateway=name,
        )  # fmt: skip
    row = {"name": "gw-1", "state": "active", "state_reason": "", "created_at": 0}
    transaction.execute(insert(gateway), row)
    granted = Grant(
        grant_id="grant-1",
        version=1,
        profiles=tuple(profile.name for profile in published),
        quota=10_000,
        not_before_us=0,
        not_after_us=1 << 52,
        last_contact_max_s=None,
    )
    use = {"grant_id": "grant-1", "version": 1, "quota": 10_000, "used": 0, "state": "active"}
    document = json.dumps(granted.to_document()).encode()
    transaction.execute(insert(grant_use), use | {"document": document})
    directives.order_grant(transaction, "gw-1", granted, ACTOR)
    for profile in published:
        books.draft(transaction, profile, ACTOR)
        books.publish(transaction, profile.name, profile.version, profile.sha256, ACTOR)
    books.put_rules(transaction, _RULES, ACTOR)


@cache
def everything() -> list[Case]:
    return [*usual(), *corpus()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    orders = ListSink()
    published = {case.profile.name: case.profile for case in everything()}
    kept = dict(list(published.items())[:100])  # so many a grant may name
    async with (
        open_database(tmp_path / "central.db", sink=orders) as central,
        open_database(tmp_path / "box.db") as box,
    ):
        await central.writer.run(lambda tx: _found(tx, list(kept.values())))
        await box.writer.run(
            lambda tx: store_authority(
                tx, kind="gateway", name="own", der=_HIERARCHY.gateway.issuer.chain[0],
                parent_id=None,
            )
        )  # fmt: skip
        for _peer, order in orders.events:
            await box.writer.run(lambda tx, order=order: commands.apply(tx, order))
        made = World(central, box)
        await made.profiles.refresh()
        await made.rules.load()
        assert {one.name for one in made.rules.profiles} == set(kept)
        yield made


def known(world: World) -> list[Case]:
    names = {profile.name for profile in world.profiles.all}
    return [case for case in everything() if case.profile.name in names]


async def test_both_decide_alike_rule_by_rule(world: World):
    plans = refusals = 0
    rules: set[str] = set()
    for case in known(world):
        central, own = await world.both(case)
        assert own.outcome == central.outcome, case
        said = [one for one in own.verdicts if not one.rule.startswith("grant")]
        assert said == [one for one in central.verdicts if not one.rule.startswith("grant")], case
        if isinstance(central.outcome, Plan):
            plans += 1
        else:
            refusals += 1
            rules.add(central.outcome.rule)
    assert plans >= 80, (plans, refusals)  # else the corpus proves nothing
    assert len(rules) >= 5, rules
    assert "rules.not-by-two" in rules


async def test_both_issue_the_same_certificate_but_for_its_serial(world: World):
    issued = 0
    for case in known(world):
        world.clock.moment = case.moment
        results: list[Any] = []
        for service in (world.central, world.gateway):
            try:
                results.append(_content((await service.issue(case.request)).der))
            except RefusedError as refused:
                results.append((refused.rule, refused.value, refused.message, refused.remedy))
        assert results[0] == results[1], case
        issued += isinstance(results[0], dict)
    assert issued >= 80


def _content(der: bytes) -> dict[str, Any]:
    """Everything that is signed, but the serial number."""
    one = x509.load_der_x509_certificate(der)
    return {
        "issuer": one.issuer.public_bytes(),
        "subject": one.subject.public_bytes(),
        "times": (one.not_valid_before_utc, one.not_valid_after_utc),
        "key": one.public_key(),
        "extensions": [(x.oid, x.critical, x.value.public_bytes()) for x in one.extensions],
    }
