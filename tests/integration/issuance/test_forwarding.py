"""Forwarding, both sides in one process: nothing waits in vain, nothing is issued twice."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select, update

from central.policy import books
from central.sync import directives, fleet, regaining
from central.sync.apply import Applier
from gateway import commands, taking_back
from gateway.receiving import ISSUING
from shared.issuance.ports import CertificateRecord
from shared.issuance.service import IssuanceService
from shared.kernel import cbor, limits
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    KeyReusedError,
    NotFoundError,
    PendingError,
    RefusedError,
    TokenUnavailableError,
    UnavailableError,
    UntrustedError,
)
from shared.pki import keys
from shared.policy.decide import Outcome
from shared.policy.profile import Profile
from shared.policy.request import INTERNAL
from shared.store import devices, facts
from shared.store.forwarded import SqlForwards
from shared.store.ledger import SqlLedger
from shared.store.link import LACKING
from shared.store.schema import (
    ca,
    certificate,
    forward_request,
    forwarded,
    grant_use,
    profile,
)
from shared.store.transaction import Transaction
from shared.sync.ports import Directive, Lacking
from tests.support.forwarding import FORWARD, GRANT, KEYS, NAME, Keys, Two, request
from tests.support.pki_hierarchy import leaf_plan, root_authority, subordinate
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import ListSink, open_database

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    clock, down, up = ManualClock(), ListSink(), ListSink()
    async with (
        open_database(tmp_path / "central.db", sink=down, clock=clock) as central,
        open_database(tmp_path / "box.db", sink=up, clock=clock) as box,
    ):
        made = Two(central, box, clock, down, up)
        await made.found()
        yield made


async def test_a_request_waits_without_token_and_unit_and_is_answered_once(two: Two):
    reference = await two.waits()
    assert await two.waits() == reference  # no second event
    assert [event.id for event in two.told(two.up) if event.type == "enrollment.forwarded"] == [
        reference
    ]
    two.clock.advance(4 * 3600)
    assert await two.waits() == reference  # also when it could not be asked any more
    two.rules.note_contact()
    await two.waits("D-2")
    assert await two.forwards.waiting() == 2
    assert (await two.box.read(select(grant_use.c.used)))[0].used == 0


async def test_the_answer_is_stored_told_and_given_to_every_retry(two: Two):
    reference = await two.waits()
    await two.carry()
    issued = await two.ask()
    assert issued.replayed and issued.ca_id == two.issuing.issuer.ca_id
    found = await two.forwards.find(reference)
    assert found is not None and isinstance(found.outcome, CertificateRecord)
    assert found.outcome.der == issued.der
    assert keys.spki(x509.load_der_x509_certificate(issued.der).public_key()) == KEYS["D-1"]  # type: ignore[arg-type]
    assert await two.signed() == 1
    assert (await two.central.read(select(grant_use.c.used)))[0].used == 1
    [row] = await two.box.read(select(certificate))
    assert (row.origin, row.device_id, row.grant_id) == ("_central", "D-1", None)
    [row] = await two.central.read(select(certificate))
    assert (row.principal, row.grant_id) == ("station:one", "g")
    kinds = {row.kind for row in await two.box.read(select(ca.c.kind))}
    assert kinds == {"root", "fleet", ISSUING}
    assert await two.central.read(select(forward_request)) == []
    with pytest.raises(PendingError):  # another key is another wish, a retry of the old one is not
        await two.ask("D-1", public_key=KEYS["D-2"])
    assert (await two.ask()).der == issued.der


async def test_the_same_key_with_another_content_is_refused(two: Two):
    await two.waits(idempotency_key="k")
    with pytest.raises(KeyReusedError):
        await two.ask(idempotency_key="k", validity_days=7)
    await two.carry()
    with pytest.raises(KeyReusedError):
        await two.ask(idempotency_key="k", validity_days=7)
    assert (await two.ask(idempotency_key="k")).replayed


async def test_a_refusal_of_central_is_given_again_and_then_asked_anew(two: Two):
    await two.waits()
    await two.central.writer.run(lambda tx: books.withdraw(tx, "forwarded", "a"))
    two.down.events.clear()  # the gateway has not heard of it
    await two.carry()
    first = await two.refused()
    assert (first.rule, first.value) == ("not-found", "forwarded")
    assert "no profile forwarded" in first.message and first.remedy
    two.clock.advance(14 * 60)
    again = await two.refused()
    assert (again.rule, again.message, again.remedy) == (first.rule, first.message, first.remedy)
    two.clock.advance(2 * 60)
    two.rules.note_contact()
    await two.waits()  # what was wrong may be right by now
    assert await two.signed() == 0


async def test_central_judges_by_its_own_grant(two: Two):
    references = [await two.waits(device) for device in ("D-1", "D-2", "D-3", "D-4")]
    await two.carry()
    assert await two.signed() == GRANT.quota
    outcomes = [
        (await two.forwards.find(reference)).outcome  # type: ignore[union-attr]
        for reference in references
    ]
    [refusal] = [one for one in outcomes if not isinstance(one, CertificateRecord)]
    assert isinstance(refusal, RefusedError)
    assert (refusal.rule, refusal.value) == ("grant.quota", "3")


async def test_a_gateway_whose_grant_ended_gets_nothing(two: Two):
    await two.waits()
    await two.central.writer.run(lambda tx: books.end(tx, "g", "a"))
    two.down.events.clear()
    await two.carry()
    assert (await two.refused()).rule == "grant.ended"


async def test_what_waits_is_bounded(two: Two, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "FORWARDED_WAITING_MAX", 2)
    await two.waits("D-1")
    await two.waits("D-2")
    with pytest.raises(UnavailableError, match="2 requests wait"):
        await two.ask("D-3")
    await two.waits("D-1")  # who waits already is not turned away
    await two.carry()
    await two.waits("D-3")


async def test_a_stopped_line_forwards_nothing(two: Two):
    await two.box.writer.run(lambda tx: facts.put(tx, facts.LINE, "maintenance"))
    with pytest.raises(ConflictError, match="maintenance"):
        await two.ask()
    assert await two.forwards.waiting() == 0


async def test_a_commit_whose_answer_is_lost_waits_once(two: Two):
    """The process dies after the commit: the next one finds the request waiting."""
    reference = await two.waits()
    two.service = IssuanceService(
        profiles=two.rules,
        keys=Keys(None),
        ledger=SqlLedger(two.box),
        clock=two.clock,
        random=os.urandom,
        forwards=SqlForwards(two.box),
    )
    assert await two.waits() == reference


async def test_a_central_that_dies_between_signing_and_answering_signs_once(two: Two):
    await two.waits()
    events = await two.report()
    two.begin_central(fails=True)
    with pytest.raises(UnavailableError, match="died"):
        await two.forwarding.step()
    assert await two.signed() == 1
    assert len(await two.central.read(select(forward_request))) == 1
    two.clock.advance(2 * 24 * 3600)  # longer than a request without a key is known by its content
    two.begin_central()
    await two.at_central.recover()
    await two.forwarding.step()
    await two.order()
    assert (await two.ask()).replayed
    for event in events:  # the same events once more
        await two.central.writer.run(lambda tx, e=event: Applier(NAME).apply(tx, e))
    await two.forwarding.step()
    assert await two.signed() == 1
    assert (await two.central.read(select(grant_use.c.used)))[0].used == 1
    assert [event for event in two.told(two.down) if event.type == "directive.enrollment"] == []


async def test_a_restored_central_answers_nothing_before_it_knows_what_it_had_answered(two: Two):
    await two.waits()
    events = await two.report()
    await two.forwarding.step()
    [answer] = await two.order()
    serial = (await two.ask()).serial
    # The backup was made before central answered: the certificate and its order are forgotten.
    forget = [
        certificate.delete(),
        update(grant_use).values(used=0),
        directives.directive.delete().where(directives.directive.c.kind == "enrollment"),
    ]
    for statement in forget:
        await two.central.writer.run(lambda tx, s=statement: tx.execute(s))
    await two.central.writer.run(lambda tx: facts.put(tx, LACKING + NAME, Lacking.DIRECTIVES.value))
    for event in events:
        await two.central.writer.run(lambda tx, e=event: Applier(NAME).apply(tx, e))
    await two.forwarding.step()
    assert await two.signed() == 0
    given = Directive(
        answer.body["number"], "enrollment", answer.body["reference"],
        cbor.encode(dict(answer.body)), answer.utc_us,
    )  # fmt: skip
    await two.central.writer.run(lambda tx: regaining.regain(NAME, tx, given))
    await two.central.writer.run(lambda tx: facts.put(tx, LACKING + NAME, None))
    await two.forwarding.step()
    [row] = await two.central.read(select(certificate))
    assert (row.serial, row.origin) == (serial, NAME)
    assert (await two.central.read(select(grant_use.c.used)))[0].used == 1
    assert await two.central.read(select(forward_request)) == []


async def test_a_restored_gateway_takes_back_what_waits_and_what_was_answered(two: Two):
    await two.waits()
    events = await two.report()
    await two.forwarding.step()
    [answer] = await two.order()
    issued = await two.ask()
    for table in (forwarded, certificate):  # an old copy
        await two.box.writer.run(lambda tx, t=table: tx.execute(t.delete()))
    held = directives.directive.delete().where(directives.directive.c.kind == "enrollment")
    await two.box.writer.run(lambda tx: tx.execute(held))
    for event in events:
        await two.box.writer.run(lambda tx, e=event: taking_back.reapply(tx, e))
    assert await two.waits() == answer.body["reference"]
    await two.box.writer.run(lambda tx: commands.apply(tx, answer))
    assert (await two.ask()).der == issued.der


async def test_an_answer_to_nothing_known_is_received_all_the_same(two: Two):
    await two.waits()
    await two.report()
    await two.forwarding.step()
    await two.box.writer.run(lambda tx: tx.execute(forwarded.delete()))
    await two.order()
    assert len(await two.box.read(select(certificate))) == 1
    [received] = [one for one in two.told(two.up) if one.type == "certificate.received"]
    assert received.body["ca_id"] == two.issuing.issuer.ca_id


@pytest.mark.parametrize("wrong", ["key", "root", "chain", "serial", "bytes", "no chain"])
async def test_an_answer_that_is_not_what_was_asked_for_is_not_taken(two: Two, wrong: str):
    await two.waits()
    await two.report()
    await two.forwarding.step()
    [answer] = two.told(two.down)
    body = dict(answer.body)
    issued = dict(body["issued"])
    stranger = subordinate(root_authority("Other root"), "Other CA", 0)
    plan = replace(leaf_plan(), public_key=KEYS["D-1"])
    if wrong == "key":
        await two.box.writer.run(
            lambda tx: tx.execute(update(forwarded).values(public_key=KEYS["D-2"]))
        )
    elif wrong == "root":
        der = stranger.issue(plan, int(issued["serial"], 16))
        issued |= {"der": der, "ca_id": stranger.issuer.ca_id}
        body["chain"] = list(stranger.issuer.chain)
    elif wrong == "chain":
        body["chain"] = list(stranger.issuer.chain)
    elif wrong == "serial":
        issued["serial"] = "1".zfill(32)
    elif wrong == "no chain":
        body["chain"] = []
    else:
        issued["der"], body["chain"] = b"0", [b"1"]
    event = replace(answer, body=body | {"issued": issued})
    with pytest.raises(UntrustedError):
        await two.box.writer.run(lambda tx: commands.apply(tx, event))
    assert await two.box.read(select(certificate)) == []
    await two.waits()


async def test_a_one_time_code_is_spent_at_once_and_given_back_if_central_refuses(two: Two):
    digest = b"c" * 32

    def codes(tx: Transaction) -> None:
        devices.put_code(tx, digest, "D-1", alias="*", expires_at_us=START_US * 2)

    await two.box.writer.run(codes)
    await two.central.writer.run(
        lambda tx: devices.put_code(
            tx, digest, "D-1", alias="*", expires_at_us=START_US * 2, gateway=NAME
        )
    )
    await two.waits(code=digest)
    assert (await two.refused("D-2", code=digest)).rule == "code.spent"
    await two.central.writer.run(lambda tx: tx.execute(update(profile).values(state="withdrawn")))
    await two.carry()
    await two.refused(code=digest)
    await two.central.writer.run(lambda tx: tx.execute(update(profile).values(state="active")))
    await two.waits("D-2", code=digest)
    await two.carry()
    spent = devices.one_time_code.c.spent_by
    [(by,)] = [tuple(row) for row in await two.central.read(select(spent))]
    assert by == f"{two.issuing.issuer.ca_id}/{(await two.ask('D-2', code=digest)).serial}"


async def test_what_the_gateway_can_judge_it_refuses_itself(two: Two):
    assert (await two.refused(key_made_here=True)).rule == "key.made_here"
    two.clock.advance(2 * 3600)
    assert (await two.refused()).rule == "grant.last_contact"
    two.rules.note_contact()
    rsa = keys.spki(keys.generate(keys.KeyType.ED25519).public_key())
    assert (await two.refused(public_key=rsa)).rule == "key_types"
    assert not [one for one in two.told(two.up) if one.type == "enrollment.forwarded"]
    decision = await two.service.explain(request())
    verdicts = {one.rule: (one.outcome, one.value) for one in decision.verdicts}
    assert verdicts["mode"] == (Outcome.PASSED, "forward")
    assert not {"issuer.window", "clock"} & verdicts.keys()
    with pytest.raises(TokenUnavailableError):  # a box's own page waits for no other box
        await two.ask(protocol=INTERNAL)


async def test_a_profile_that_became_local_is_not_signed_by_central(two: Two):
    await two.waits()
    local = Profile.from_document(FORWARD.to_document() | {"version": 2, "mode": "local"})

    def publish(tx: Transaction) -> None:
        books.draft(tx, local, "a")
        books.publish(tx, local.name, 2, local.sha256, "a")

    await two.central.writer.run(publish)
    two.down.events.clear()
    await two.carry()
    assert (await two.refused()).rule == "mode.forward"


async def test_a_request_that_this_version_cannot_read_is_no_request(two: Two):
    await two.waits()
    [event] = [one for one in two.told(two.up) if one.type == "enrollment.forwarded"]
    for wrong in (
        {"operation": "conjure"},
        {"csr_hash": "md5"},
        {"alt_names": [["smell", "x"]]},
        {"principal": "a\x00b"},
        {"profile": ""},
        {"replaces": "x" * 300},
    ):
        strange = replace(event, body=dict(event.body) | wrong)
        with pytest.raises(BadRequestError):
            await two.central.writer.run(lambda tx, e=strange: Applier(NAME).apply(tx, e))
    hostile = {"public_key": b"", "subject": [["x", "\x00"]], "validity_days": -(2**63)}
    for name, value in hostile.items():
        odd = replace(event, id=name, body=dict(event.body) | {name: value})
        await two.central.writer.run(lambda tx, e=odd: Applier(NAME).apply(tx, e))
    await two.forwarding.step()
    answers = [one for one in two.told(two.down) if one.type == "directive.enrollment"]
    assert len(answers) == len(hostile)
    assert all(one.body["refusal"] for one in answers)
    ended = replace(event, body=dict(event.body) | {"protocol": INTERNAL, "profile": "tls-server"})
    await two.central.writer.run(lambda tx: Applier(NAME).apply(tx, ended))
    await two.forwarding.step()  # INTERNAL opens no door at central
    [answer] = two.told(two.down)
    assert answer.body["refusal"]["rule"] in {"not-found", "grant.profiles"}


async def test_an_ended_gateway_leaves_nothing_behind(two: Two):
    await two.waits()
    await two.report()
    await two.central.writer.run(lambda tx: fleet.end(tx, NAME, "gone", "a"))
    assert await two.central.read(select(forward_request)) == []
    with pytest.raises(NotFoundError):
        two.rules.profile("nothing")


async def test_answered_requests_are_forgotten_and_waiting_ones_never(two: Two):
    await two.waits("D-1")
    await two.carry()
    await two.waits("D-2")
    two.clock.advance(31 * 24 * 3600)
    await two.forwards.purge()
    [row] = await two.box.read(select(forwarded.c.state))
    assert row.state == "waiting"
