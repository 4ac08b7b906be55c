"""The ledger on a real database: every promise of ``shared.issuance.ports.Ledger``."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from shared.issuance.ports import CertificateStatus, Intent
from shared.kernel.errors import (
    ConflictError,
    InProgressError,
    KeyReusedError,
    NotFoundError,
    RefusedError,
    TmaError,
)
from shared.policy.profile import Existing
from shared.store import facts, schema
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database
from tests.support.store_intents import (
    CA_ID,
    count,
    fake_der,
    issuing_database,
    make_intent,
    used,
)

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
async def database(tmp_path: Path):
    async with issuing_database(tmp_path / "gateway.db") as opened:
        yield opened


@pytest.fixture
def ledger(database: Database) -> SqlLedger:
    return SqlLedger(database)


async def issue(ledger: SqlLedger, intent: Intent) -> bytes | None:
    earlier = await ledger.intend(intent)
    return earlier.der if earlier else (await ledger.complete(intent, fake_der(intent))).der


async def emitted(database: Database, type_name: str) -> int:
    return await count(database, schema.outbox, schema.outbox.c.type == type_name)


async def test_an_intent_is_kept_whole_until_it_is_completed(database, ledger):
    intent = make_intent("SN-1")
    assert await ledger.intend(intent) is None
    assert await ledger.open_intents() == [intent]
    record = await ledger.complete(intent, fake_der(intent))
    assert (record.serial, record.der) == (intent.serial, fake_der(intent))
    assert record.status is CertificateStatus.GOOD
    assert await ledger.open_intents() == []
    row = await Reads(database).certificate(CA_ID, intent.serial)
    assert (row.der, row.subject_cn, row.metadata) == (fake_der(intent), "SN-1", {"batch": "7"})
    assert await emitted(database, "certificate.issued") == 1
    assert await used(database) == 1


async def test_a_retry_gets_the_same_certificate_and_spends_nothing(database, ledger):
    der = await issue(ledger, make_intent("SN-1", key="k:1", content="x"))
    again = make_intent("SN-1", key="k:1", content="x")
    assert (await ledger.intend(again)).der == der
    assert (await ledger.replay("k:1", again.request_hash, again.decided_at.utc_us)).der == der
    assert (await used(database), await emitted(database, "certificate.issued")) == (1, 1)


async def test_a_key_with_another_content_is_refused_whether_open_or_done(ledger):
    first = make_intent("SN-1", key="k:1", content="x")
    await ledger.intend(first)
    with pytest.raises(KeyReusedError):
        await ledger.intend(make_intent("SN-2", key="k:1", content="y"))
    await ledger.complete(first, fake_der(first))
    other = make_intent("SN-2", key="k:1", content="y")
    with pytest.raises(KeyReusedError):
        await ledger.intend(other)
    with pytest.raises(KeyReusedError):
        await ledger.replay("k:1", other.request_hash, other.decided_at.utc_us)


async def test_replay_ends_with_its_time(ledger):
    first = make_intent("SN-1", key="k:1")
    await issue(ledger, first)
    late = ManualClock(first.replay_until_us + 1).now()
    again = make_intent("SN-1", key="k:1", decided_at=late)
    assert await ledger.replay("k:1", again.request_hash, late.utc_us) is None
    assert await ledger.intend(again) is None


@pytest.mark.parametrize("ended_by", ["revoke", "hold", "expiry"])
async def test_only_a_good_certificate_is_replayed(ledger, ended_by):
    first = make_intent("SN-1", key="k:1", replay_until_us=make_intent().replay_until_us * 2)
    await issue(ledger, first)
    now = first.decided_at
    if ended_by == "revoke":
        await ledger.revoke(CA_ID, first.serial, "superseded", "user:a")
    elif ended_by == "hold":
        await ledger.hold(CA_ID, first.serial, "h", "user:a")
    else:
        now = ManualClock(first.plan.not_after_us).now()
    again = make_intent("SN-1", key="k:1", decided_at=now)
    assert await ledger.replay("k:1", again.request_hash, now.utc_us) is None
    assert await ledger.intend(again) is None


async def test_one_open_intent_per_device_profile_and_purpose(database, ledger):
    first = make_intent("SN-1")
    await ledger.intend(first)
    with pytest.raises(InProgressError):
        await ledger.intend(make_intent("SN-1"))
    assert await used(database) == 1  # the refused one's unit came back
    await ledger.complete(first, fake_der(first))
    assert await ledger.intend(make_intent("SN-1")) is None  # renewal overlaps


async def _statuses(database: Database) -> dict[str, str]:
    rows = await database.read(select(schema.certificate.c.serial, schema.certificate.c.status))
    return {row.serial: row.status for row in rows}


async def test_a_second_certificate_of_a_device_is_refused_where_its_profile_says_so(
    database, ledger
):
    first = make_intent("SN-1", existing=Existing.REFUSE)
    der = await issue(ledger, first)
    with pytest.raises(RefusedError) as refused:
        await ledger.intend(make_intent("SN-1", existing=Existing.REFUSE))
    assert (refused.value.rule, refused.value.value) == ("existing", first.serial)
    assert "Renew" in refused.value.remedy
    assert await used(database) == 1
    assert (await ledger.intend(first)).der == der  # a retry is no second one
    renewal = make_intent("SN-1", existing=Existing.REFUSE)
    renewed = replace(renewal.request, replaces=(CA_ID, first.serial))
    await issue(ledger, replace(renewal, request=renewed))
    await issue(ledger, make_intent("SN-2", existing=Existing.REFUSE))
    for serial in await _statuses(database):
        await ledger.revoke(CA_ID, serial, "superseded", "user:a")
    await issue(ledger, make_intent("SN-1", existing=Existing.REFUSE))


async def test_earlier_certificates_of_a_device_are_superseded_in_the_same_commit(database, ledger):
    early = [make_intent("SN-1"), make_intent("SN-1"), make_intent("SN-2")]
    for intent in early:
        await issue(ledger, intent)
    late = make_intent("SN-1", existing=Existing.SUPERSEDE)
    await ledger.intend(late)
    assert set((await _statuses(database)).values()) == {"good"}  # not before it is released
    await ledger.complete(late, fake_der(late))
    statuses = await _statuses(database)
    assert [statuses[one.serial] for one in (*early, late)] == [
        "revoked",
        "revoked",
        "good",
        "good",
    ]
    assert await emitted(database, "certificate.revoked") == 2


async def test_intents_without_a_device_do_not_exclude_each_other(ledger):
    for _ in range(2):
        intent = make_intent()
        object.__setattr__(intent.request, "device_id", None)
        assert await ledger.intend(intent) is None


async def test_64_parallel_equal_intents_are_one(database, ledger):
    intents = [make_intent("SN-1", key="k:1", content="x") for _ in range(64)]
    results = await asyncio.gather(*map(ledger.intend, intents), return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, InProgressError) for result in results) == 63
    winner = intents[results.index(None)]
    await ledger.complete(winner, fake_der(winner))
    answers = await asyncio.gather(*map(ledger.intend, intents))
    assert {answer.der for answer in answers} == {fake_der(winner)}
    assert await count(database, schema.certificate) == 1
    assert (await used(database), await emitted(database, "certificate.issued")) == (1, 1)


async def test_the_quota_is_never_exceeded(tmp_path):
    async with issuing_database(tmp_path / "gateway.db", quota=20) as database:
        ledger = SqlLedger(database)
        results = await asyncio.gather(
            *(issue(ledger, make_intent()) for _ in range(50)), return_exceptions=True
        )
        refusals = [result for result in results if isinstance(result, RefusedError)]
        assert (len(refusals), {refusal.rule for refusal in refusals}) == (30, {"grant.quota"})
        assert await count(database, schema.certificate) == 20 == await used(database)


async def test_an_ended_grant_refuses(database, ledger):
    end = update(schema.grant_use).values(state="ended")
    await database.writer.run(lambda tx: tx.execute(end))
    with pytest.raises(RefusedError) as refused:
        await ledger.intend(make_intent())
    assert refused.value.rule == "grant.ended"


@pytest.mark.parametrize("fence", ["line", "ca"])
async def test_a_stopped_line_or_ended_ca_fences_both_commits(database, ledger, fence):
    opened = make_intent()
    await ledger.intend(opened)

    def stop(tx):
        if fence == "line":
            facts.put(tx, facts.LINE, "The operator stopped it.")
        else:
            tx.execute(update(schema.ca).values(state="ended"))

    await database.writer.run(stop)
    with pytest.raises(ConflictError):
        await ledger.intend(make_intent())
    with pytest.raises(ConflictError):
        await ledger.complete(opened, fake_der(opened))
    assert await ledger.open_intents() == [opened]
    assert await count(database, schema.certificate) == 0
    assert await emitted(database, "certificate.issued") == 0


async def test_an_intent_is_completed_once(database, ledger):
    intent = make_intent()
    await ledger.intend(intent)
    results = await asyncio.gather(
        ledger.complete(intent, b"first"),
        ledger.complete(intent, b"second"),
        return_exceptions=True,
    )
    assert [isinstance(result, ConflictError) for result in results] == [False, True]
    assert await count(database, schema.certificate) == 1


async def test_release_gives_the_unit_back_once(database, ledger):
    intent = make_intent()
    await ledger.intend(intent)
    await ledger.release(intent)
    await ledger.release(intent)
    assert (await used(database), await ledger.open_intents()) == (0, [])


async def test_void_spends_the_unit_and_revokes_the_serial(database, ledger):
    intent = make_intent("SN-1", key="k:1")
    await ledger.intend(intent)
    await ledger.void(intent, "crash")
    await ledger.void(intent, "again")
    row = await Reads(database).certificate(CA_ID, intent.serial)
    assert (row.state, row.status, row.der) == ("voided", "revoked", None)
    assert (await used(database), await emitted(database, "certificate.voided")) == (1, 1)
    assert await ledger.intend(make_intent("SN-1", key="k:1")) is None  # a retry is a new one


async def test_void_does_not_touch_what_was_completed(database, ledger):
    intent = make_intent()
    await issue(ledger, intent)
    await ledger.void(intent, "late")
    assert (await Reads(database).certificate(CA_ID, intent.serial)).status == "good"


async def test_revocation_is_final_and_told_once(database, ledger):
    intent = make_intent()
    await issue(ledger, intent)
    for reason in ("key_compromise", "superseded"):
        record = await ledger.revoke(CA_ID, intent.serial, reason, "user:a")
        assert record.status is CertificateStatus.REVOKED
    row = await Reads(database).certificate(CA_ID, intent.serial)
    assert row.reason == "key_compromise"
    assert await emitted(database, "certificate.revoked") == 1
    with pytest.raises(ConflictError):
        await ledger.hold(CA_ID, intent.serial, "h", "user:a")


async def test_holds_are_a_set_and_a_released_one_never_holds_again(database, ledger):
    intent = make_intent()
    await issue(ledger, intent)
    status = CertificateStatus

    async def after(change, hold_id: str) -> CertificateStatus:
        return (await change(CA_ID, intent.serial, hold_id, "user:a")).status

    assert await after(ledger.hold, "one") is status.HOLD
    assert await after(ledger.hold, "two") is status.HOLD
    assert await after(ledger.release_hold, "one") is status.HOLD
    assert await after(ledger.hold, "one") is status.HOLD
    assert await after(ledger.release_hold, "two") is status.GOOD
    assert await after(ledger.hold, "one") is status.GOOD
    assert (
        await emitted(database, "certificate.held"),
        await emitted(database, "certificate.released"),
    ) == (2, 2)


@pytest.mark.parametrize("act", ["revoke", "hold", "release_hold"])
async def test_status_of_an_unknown_certificate(ledger, act):
    with pytest.raises(NotFoundError):
        await getattr(ledger, act)(CA_ID, "00", "superseded", "user:a")


async def test_a_refusal_is_an_event(database, ledger):
    await ledger.refuse(make_intent().request, "rule", "value", "why")
    assert await emitted(database, "enrollment.refused") == 1
    assert (await Reads(database).counters())["refused"] == {"": 1}


async def test_a_refused_unit_leaves_no_gap_in_the_chain(database, ledger):
    """The head in memory follows the savepoint: the peer would refuse a gap."""
    await issue(ledger, make_intent())

    def emits_and_fails(tx):
        body = {"version": "1", "recovered": 0}
        tx.emit("agent.started", body, actor="system")
        raise NotFoundError("no")

    good = [issue(ledger, make_intent()) for _ in range(5)]
    bad = [database.writer.run(emits_and_fails) for _ in range(5)]
    results = await asyncio.gather(*good, *bad, return_exceptions=True)
    assert sum(isinstance(result, TmaError) for result in results) == 5
    lane = schema.outbox.c.lane == 1
    rows = await database.read(
        schema.outbox.select().where(lane).order_by(schema.outbox.c.sequence)
    )
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == 7


async def test_what_was_issued_is_there_after_reopening(tmp_path):
    path = tmp_path / "gateway.db"
    async with issuing_database(path) as database:
        der = await issue(SqlLedger(database), make_intent("SN-1", key="k:1"))
    sink = Outbox.of_gateway("gw-01", "test")
    async with open_database(path, sink=sink) as reopened:
        assert (await SqlLedger(reopened).intend(make_intent("SN-1", key="k:1"))).der == der
