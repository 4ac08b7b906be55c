"""Directives in a real database: the newest is in force, an older one changes nothing."""

import os
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update

from gateway import commands
from gateway.ca_cache import Rules
from shared.kernel.errors import BadRequestError, NotFoundError, UnavailableError, UntrustedError
from shared.pki import crl
from shared.policy.bundle import Bundle
from shared.policy.grant import Grant
from shared.policy.shipped import SHIPPED
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.schema import ca, certificate, grant_use
from shared.sync import events
from tests.support.pki_hierarchy import DAY_US, NOW_US, Authority, root_authority
from tests.support.store_clock import ManualClock
from tests.support.store_databases import ListSink, open_database

CLOCK = ManualClock()


class World:
    """A gateway's database and what it told central."""

    def __init__(self, database: Database, sink: ListSink) -> None:
        self.database = database
        self.sink = sink
        self.rules = Rules(database, CLOCK)
        self.reads = Reads(database)

    async def order(
        self, kind: str, body: dict[str, Any], number: int, incarnation: str = "one"
    ) -> str:
        """Apply a directive; gives what central is told."""
        event = events.create(
            f"directive.{kind}",
            {**body, "incarnation": incarnation, "number": number},
            actor="user:admin",
            now=CLOCK.now(),
            random=os.urandom,
        )
        before = len(self.sink.events)
        await self.database.writer.run(lambda tx: commands.apply(tx, event))
        await self.rules.load()
        answers = [event.body for _peer, event in self.sink.events[before:]]
        assert [answer["kind"] for answer in answers] == [kind]
        return answers[0]["result"]

    async def grant(self, number: int, **changes: Any) -> str:
        fields = {
            "grant_id": "g1",
            "version": number,
            "profiles": ("tls-client",),
            "quota": 10,
            "not_before_us": NOW_US,
            "not_after_us": NOW_US + DAY_US,
        }
        document = Grant(**(fields | changes)).to_document()
        return await self.order("grant", {"document": document}, number)

    async def bundle(self, number: int, *profiles: str, incarnation: str = "one") -> str:
        kept = tuple(profile for profile in SHIPPED if profile.name in profiles)
        document = Bundle(version=number, profiles=kept, certificates=()).to_document()
        return await self.order("bundle", {"document": document}, number, incarnation)

    async def status(self, serial: str) -> str:
        rows = await self.database.read(
            select(certificate.c.status).where(certificate.c.serial == serial)
        )
        return rows[0].status


@pytest_asyncio.fixture
async def world(tmp_path) -> AsyncGenerator[World]:
    sink = ListSink()
    async with open_database(tmp_path / "gateway.db", sink=sink, clock=CLOCK) as database:
        yield World(database, sink)


async def test_only_the_profiles_of_the_newest_bundle_are_in_force(world: World):
    assert await world.bundle(2, "tls-server", "tls-client") == "applied"
    assert world.rules.profile("tls-server").name == "tls-server"
    assert await world.bundle(3, "tls-client") == "applied"
    with pytest.raises(NotFoundError, match="known: tls-client"):
        world.rules.profile("tls-server")
    assert await world.bundle(2, "tls-server") == "ignored"
    assert await world.bundle(3, "tls-server") == "ignored"
    with pytest.raises(NotFoundError):
        world.rules.profile("tls-server")
    # A restored central counts from the beginning, under another incarnation.
    assert await world.bundle(1, "tls-server", incarnation="two") == "applied"
    assert world.rules.profile("tls-server") == SHIPPED[0]


async def test_a_new_grant_ends_the_old_one_and_what_was_used_stays_used(world: World):
    with pytest.raises(UnavailableError, match="no grant"):
        world.rules.grant()
    await world.grant(1)
    await world.database.writer.run(lambda tx: tx.execute(update(grant_use).values(used=7)))
    assert await world.grant(2, quota=20) == "applied"
    used = await world.database.read(select(grant_use.c.used, grant_use.c.quota))
    assert used == [(7, 20)]
    assert world.rules.grant().quota == 20
    await world.grant(3, grant_id="g2")
    assert world.rules.grant().grant_id == "g2"
    states = await world.database.read(select(grant_use.c.grant_id, grant_use.c.state))
    assert dict(map(tuple, states)) == {"g1": "ended", "g2": "active"}


async def test_central_revokes_what_this_gateway_issued_or_will_hear_of(world: World):
    place = {"ca_id": "ab" * 20, "serial": "12".zfill(32)}
    assert await world.order("hold", place | {"hold_id": "h"}, 1) == "applied"
    assert await world.status(place["serial"]) == "hold"
    assert await world.order("release", place | {"hold_id": "h"}, 2) == "applied"
    assert await world.status(place["serial"]) == "good"
    assert await world.order("revoke", place | {"reason": "superseded"}, 3) == "applied"
    assert await world.status(place["serial"]) == "revoked"
    assert await world.order("revoke", place | {"reason": "superseded"}, 3) == "ignored"


async def test_a_parents_crl_is_served_if_the_parent_signed_it(world: World):
    root, stranger = root_authority(), root_authority("Stranger")
    ca_id = root.issuer.ca_id
    row = {
        "ca_id": ca_id,
        "name": "root",
        "kind": "root",
        "parent_id": None,
        "gateway": None,
        "der": root.issuer.chain[0],
        "key_uri": None,
        "state": "active",
        "issue_until": None,
        "not_after": root.issuer.limits.not_after_us,
        "crl_number": 0,
        "created_at": 0,
    }
    await world.database.writer.run(lambda tx: tx.execute(insert(ca), row))
    newer, older = crl_of(root, 5), crl_of(root, 4)
    assert await world.order("crl", {"ca_id": ca_id, "der": newer}, 1) == "applied"
    assert await world.order("crl", {"ca_id": ca_id, "der": older}, 2) == "applied"
    served = await world.reads.current_crl(ca_id)
    assert served is not None
    assert served.der == newer
    with pytest.raises(UntrustedError):
        await world.order("crl", {"ca_id": ca_id, "der": crl_of(stranger, 6)}, 3)
    with pytest.raises(NotFoundError):
        await world.order("crl", {"ca_id": "cd" * 20, "der": newer}, 4)


async def test_what_cannot_be_read_is_not_applied_in_part(world: World):
    await world.grant(1)
    with pytest.raises(BadRequestError, match="version"):
        await world.order("grant", {"document": {"grant_id": "g1", "quota": -1}}, 2)
    assert world.rules.grant().version == 1
    assert await world.grant(2) == "applied"


async def test_the_last_contact_survives_a_restart(world: World):
    await world.rules.load()
    assert world.rules.last_contact_us() is None
    world.rules.note_contact()
    await world.rules.step()
    again = Rules(world.database, CLOCK)
    await again.load()
    assert again.last_contact_us() == world.rules.last_contact_us()


def crl_of(authority: Authority, number: int) -> bytes:
    tbs = crl.unsigned(authority.issuer, number, NOW_US, NOW_US + DAY_US, [], None)
    return crl.assemble(tbs, authority.sign(tbs), authority.issuer)
