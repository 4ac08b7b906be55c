"""What a person decides is done once, with its reason, and gateways are ordered to follow."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from central.authority.hierarchy import store_authority
from central.inventory import conflicts
from central.inventory.models import ConflictView
from central.inventory.reads import Inventory
from central.sync import books, quarantine
from central.sync.apply import Applier
from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError, UntrustedError
from shared.kernel.ids import serial_text
from shared.pki import keys
from shared.policy.profile import Profile
from shared.policy.shipped import FIRST
from shared.store import schema
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.sync import events
from tests.support.directive_keys import OneKey
from tests.support.pki_hierarchy import Authority, leaf_plan, root_authority, subject, subordinate
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

_ROOT = root_authority()
_GATEWAYS = {name: subordinate(_ROOT, f"CA {name}", 0) for name in ("gw-1", "gw-2")}
_WHO = "user:anna"


def _issued(authority: Authority, serial: int) -> dict[str, Any]:
    return {
        "ca_id": authority.issuer.ca_id,
        "serial": serial_text(serial),
        "der": authority.issue(leaf_plan(subject=subject("SN-1")), serial),
        "profile": "tls-server",
        "profile_version": 1,
        "purpose": "tls-server",
        "device_id": "SN-1",
        "alias": "rest",
        "protocol": "rest",
        "principal": "station:1",
        "metadata": {},
        "grant_id": "grant-1",
        "test": False,
        "replaces": None,
        "intent_id": "1",
    }


def _event(body: dict[str, Any], now: Instant | None = None) -> events.Event:
    now = now or ManualClock().now()
    return events.create("certificate.issued", body, actor="station:1", now=now, random=os.urandom)


def _know(tx: Transaction, duplicates: str = "report") -> None:
    """Two gateways with their CAs, a grant for both, and the profile that they use."""
    shipped = next(one for one in FIRST if one.name == "tls-server")
    used = Profile.from_document(
        json.dumps(json.loads(shipped.document) | {"duplicates": duplicates})
    )
    row = {"name": used.name, "version": used.version, "sha256": used.sha256}
    row |= {"document": used.document, "state": "active", "created_at": 0}
    tx.execute(insert(schema.profile), row)
    for name, authority in _GATEWAYS.items():
        der = authority.issuer.chain[0]
        store_authority(tx, kind="gateway", name=name, der=der, parent_id=None, gateway=name)
        row = {"name": name, "state": "active", "state_reason": "", "created_at": 0}
        tx.execute(insert(schema.gateway), row)
    grant = {"grant_id": "grant-1", "version": 1, "quota": 9, "used": 0, "state": "active"}
    tx.execute(insert(schema.grant_use), {**grant, "document": b""})


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Both gateways have issued for the same device."""
    sink = Outbox.of_central("1", books.enter)
    async with open_database(tmp_path / "central.db", sink=sink) as database:
        await database.writer.run(_know)
        for number, (name, authority) in enumerate(_GATEWAYS.items(), 1):
            event = _event(_issued(authority, number))
            await database.writer.run(lambda tx, n=name, e=event: Applier(n).apply(tx, e))
        yield database


async def _open(database: Database) -> list[ConflictView]:
    found, _ = await Inventory(database).conflicts.find(limit=100)
    return found


async def _statuses(database: Database) -> list[str]:
    certificate = schema.certificate
    rows = await database.read(select(certificate.c.status).order_by(certificate.c.id))
    return [row.status for row in rows]


async def _orders(database: Database) -> list[tuple[str, str]]:
    outbox = schema.outbox
    rows = await database.read(
        select(outbox.c.peer, outbox.c.type)
        .where(outbox.c.type.like("directive.%"))
        .order_by(outbox.c.peer)
    )
    return [(row.peer, row.type) for row in rows]


@pytest.mark.parametrize(
    ("choice", "statuses", "orders"),
    [
        ("keep", ["good", "good"], []),
        ("", ["good", "good"], []),
        ("hold-both", ["hold", "hold"], [("gw-1", "hold"), ("gw-2", "hold")]),
        ("revoke-earlier", ["revoked", "good"], [("gw-1", "revoke")]),
        ("revoke-later", ["good", "revoked"], [("gw-2", "revoke")]),
    ],
)
async def test_a_device_at_two_gateways(database: Database, choice, statuses, orders):
    [question] = await _open(database)
    assert (question.kind, question.gateway) == ("device-at-two-gateways", "gw-2")
    offered = {one.name for one in question.choices}
    assert offered == {"keep", "hold-both", "revoke-earlier", "revoke-later"}
    await database.writer.run(lambda tx: conflicts.settle(tx, question.id, choice, _WHO))
    assert await _statuses(database) == statuses
    assert await _orders(database) == [(peer, f"directive.{kind}") for peer, kind in orders]
    assert await _open(database) == []
    with pytest.raises(ConflictError):
        await database.writer.run(
            lambda tx: conflicts.settle(tx, question.id, "revoke-later", _WHO)
        )
    assert await _statuses(database) == statuses
    [row] = await database.read(select(schema.conflict))
    assert (row.state, row.resolution, row.settled_by) == ("settled", choice or "keep", _WHO)
    told = await database.read(select(schema.audit.c["action", "actor"]))
    assert ("conflict.settled", _WHO) in {tuple(one) for one in told}


@pytest.mark.parametrize(
    ("rule", "statuses", "orders"),
    [
        ("report", ["good", "good"], []),
        ("hold_both", ["hold", "hold"], [("gw-1", "hold"), ("gw-2", "hold")]),
        ("revoke_earlier", ["revoked", "good"], [("gw-1", "revoke")]),
    ],
)
@pytest.mark.parametrize("backlog", [False, True])
async def test_the_rule_of_the_profile_settles_it(tmp_path, rule, statuses, orders, backlog):
    """With ``backlog`` the earlier certificate is reported last: its gateway was offline."""
    later = ManualClock().now()
    earlier = replace(later, utc_us=later.utc_us - 1)
    reports = [("gw-1", 1, earlier), ("gw-2", 2, later)]
    async with open_database(
        tmp_path / "central.db", sink=Outbox.of_central("1", books.enter)
    ) as database:
        await database.writer.run(lambda tx: _know(tx, rule))
        for name, serial, now in reversed(reports) if backlog else reports:
            event = _event(_issued(_GATEWAYS[name], serial), now)
            await database.writer.run(lambda tx, n=name, e=event: Applier(n).apply(tx, e))
        rows = await database.read(
            select(schema.certificate.c.status).order_by(schema.certificate.c.serial)
        )
        assert [row.status for row in rows] == statuses
        assert await _orders(database) == [(who, f"directive.{kind}") for who, kind in orders]
        [kept] = await database.read(select(schema.conflict))
        by = (None, None) if rule == "report" else (rule.replace("_", "-"), "profile:tls-server/1")
        assert (kept.resolution, kept.settled_by) == by


@pytest.mark.parametrize("unsure", ["gw-1", "gw-2"])
async def test_a_rule_decides_nothing_when_a_clock_is_in_doubt(tmp_path, unsure):
    sink = Outbox.of_central("1", books.enter)
    async with open_database(tmp_path / "central.db", sink=sink) as database:
        await database.writer.run(lambda tx: _know(tx, "revoke_earlier"))
        for serial, (name, authority) in enumerate(_GATEWAYS.items(), 1):
            quality = ClockQuality.UNKNOWN if name == unsure else ClockQuality.NTP
            event = _event(
                _issued(authority, serial), replace(ManualClock().now(), quality=quality)
            )
            await database.writer.run(lambda tx, n=name, e=event: Applier(n).apply(tx, e))
        assert await _statuses(database) == ["good", "good"]
        assert "device-at-two-gateways" in {one.kind for one in await _open(database)}


async def test_a_choice_that_is_not_offered_changes_nothing(database: Database):
    [question] = await _open(database)
    with pytest.raises(BadRequestError) as refused:
        await database.writer.run(lambda tx: conflicts.settle(tx, question.id, "burn", _WHO))
    assert "hold-both" in refused.value.remedy
    assert len(await _open(database)) == 1
    with pytest.raises(NotFoundError):
        await database.writer.run(lambda tx: conflicts.settle(tx, 999, "keep", _WHO))


def test_a_question_about_no_certificate_is_only_seen():
    [choice] = conflicts.choices("history-gap", "gw-1", {"detail": "x"})
    assert (choice.name, choice.effects) == ("seen", ())


async def test_a_profile_that_was_withdrawn_meanwhile_is_asked_about(database: Database):
    await database.writer.run(
        lambda tx: tx.execute(update(schema.profile).values(state="withdrawn"))
    )
    event = _event(_issued(_GATEWAYS["gw-1"], 77) | {"device_id": None})
    await database.writer.run(lambda tx: Applier("gw-1").apply(tx, event))
    newest, *_ = await _open(database)
    assert newest.kind == "profile-withdrawn"


async def _quarantine(database: Database, sequence: int, event: events.Event) -> str:
    row = {
        "peer": "gw-1",
        "segment": "0" * 32,
        "lane": 1,
        "sequence": sequence,
        "reason": "not known to this version",
        "event": events.encode(event),
        "created_at": sequence,
        "resolved_at": None,
    }
    await database.writer.run(lambda tx: tx.execute(insert(schema.quarantine), row))
    return f"gw-1/{'0' * 32}/normal/{sequence}"


async def test_what_is_discarded_is_never_applied_and_the_reason_stays(database: Database):
    good, bad = _event(_issued(_GATEWAYS["gw-1"], 5)), _event(_issued(_GATEWAYS["gw-2"], 6))
    applied = await _quarantine(database, 2, good)
    given_up = await _quarantine(database, 3, bad)  # another gateway's CA
    listed = await quarantine.listed(database)
    assert [one["place"] for one in listed] == [applied, given_up]
    assert listed[0]["type"] == "certificate.issued"
    assert await quarantine.drive_again(database) == 1
    await database.writer.run(lambda tx: quarantine.discard(tx, given_up, "a test box", _WHO))
    for place in (applied, given_up):
        with pytest.raises(NotFoundError):
            await database.writer.run(lambda tx, p=place: quarantine.discard(tx, p, "x", _WHO))
    assert await quarantine.drive_again(database) == 0
    assert await quarantine.listed(database) == []
    assert len(await _statuses(database)) == 3
    rows = await database.read(
        select(schema.quarantine.c.resolution).order_by(schema.quarantine.c.sequence)
    )
    assert [row.resolution for row in rows] == ["applied", "discarded: a test box"]
    with pytest.raises(BadRequestError):
        await database.writer.run(lambda tx: quarantine.discard(tx, "nonsense", "x", _WHO))


async def test_an_exported_event_is_taken_back_once(database: Database) -> None:
    signer = OneKey(keys.generate())
    poison = _event(_issued(_GATEWAYS["gw-1"], 5) | {"ca_id": "00" * 20})
    place = await _quarantine(database, 2, poison)
    assert (await quarantine.shown(database, place))["body"]["device_id"] == "SN-1"
    data = await quarantine.exported(database, place, signer)
    for stranger in (OneKey(keys.generate()), OneKey(keys.generate())):
        with pytest.raises(UntrustedError):
            await database.writer.run(
                lambda tx, by=stranger: quarantine.imported(tx, data, by, _WHO)
            )
    await database.writer.run(lambda tx: quarantine.discard(tx, place, "a test", _WHO))
    assert await quarantine.listed(database) == []
    for _ in range(2):
        taken = await database.writer.run(lambda tx: quarantine.imported(tx, data, signer, _WHO))
        assert taken == place
        assert [row["place"] for row in await quarantine.listed(database)] == [place]
    rows = await database.read(select(schema.audit.c.action))
    assert [row.action for row in rows].count("quarantine.imported") == 2
