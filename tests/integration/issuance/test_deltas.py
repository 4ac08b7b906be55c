"""Delta CRLs: a relying party that knows an older complete CRL and the delta knows everything."""

import asyncio
import random
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select

from shared.issuance.crl_signing import CrlSigning
from shared.kernel.errors import ForbiddenError
from shared.kernel.ids import serial_text
from shared.store.schema import crl_base, status_change
from tests.support.delta_crls import CA_ID, DAY_S, GATEWAY, HOUR_S, Crl, Line, line
from tests.support.lint import assert_clean_crl
from tests.support.openssl import Revocation
from tests.support.pki_hierarchy import NOW_US, leaf_plan


async def _ders(one: Line) -> list[bytes]:
    rows = [await one.reads.current_crl(CA_ID), await one.reads.current_delta(CA_ID)]
    return [row.der for row in rows if row is not None]


async def test_openssl_takes_complete_crl_and_delta_together(tmp_path: Path):
    openssl = Revocation(tmp_path, GATEWAY.issuer.chain)
    async with line(tmp_path / "gateway.db") as one:
        for serial in (1, 2, 3, 4):
            await one.issue(serial)
        await one.hold(2)
        await one.revoke(4)
        await one.service.sign_crl(CA_ID)
        one.clock.advance(HOUR_S)
        await one.revoke(1, "key_compromise")
        await one.release(2)
        await one.hold(3)
        await one.sign_news()
        ders, now_us = await _ders(one), one.clock.now().utc_us + 1_000_000

        async def revoked(serial: int, crls: list[bytes], *options: str) -> bool:
            leaf = GATEWAY.issue(leaf_plan(), serial=serial)
            said = await openssl.says(now_us, leaf, crls, *options)
            assert said == "good" or "certificate revoked" in said, said
            return said != "good"

        deltas = ("-use_deltas", "-extended_crl")
        both = [await revoked(one, ders, *deltas) for one in (1, 2, 3, 4)]
        assert both == [True, False, True, True]
        alone = [await revoked(one, ders[:1], *deltas) for one in (1, 2, 3, 4)]
        assert alone == [False, True, False, True], "the complete CRL says what it said"
        leaf = GATEWAY.issue(leaf_plan(), serial=1)
        said = await openssl.says(now_us, leaf, ders[1:], *deltas)
        assert "unable to get certificate CRL" in said, "a delta alone is no CRL"
        for der in ders:
            assert_clean_crl(der)


async def test_a_complete_crl_names_the_address_of_deltas_and_a_delta_its_base(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        await one.service.sign_crl(CA_ID)
        complete, delta = [x509.load_der_x509_crl(der) for der in await _ders(one)]
        point = complete.extensions.get_extension_for_class(x509.FreshestCRL)
        assert not point.critical
        assert point.value[0].full_name[0].value.endswith(f"/crl/{CA_ID}-delta.crl")
        oids = {extension.oid for extension in delta.extensions}
        assert x509.FreshestCRL.oid not in oids
        number = complete.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        base = delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number
        assert base == number
        assert len(delta) == 0


async def test_a_revocation_signs_a_delta_only_and_complete_crls_keep_their_schedule(
    tmp_path: Path, each_database: str
):
    async with line(tmp_path / "gateway.db", interval_s=DAY_S) as one:
        await one.issue(1)
        await one.service.sign_crl(CA_ID)
        first, first_delta = await one.complete(), await one.delta()
        await one.revoke(1)
        await one.sign_news()
        second_delta = await one.delta()
        assert (await one.complete()).number == first.number
        assert first_delta and second_delta and second_delta.number > first_delta.number
        assert second_delta.listed == {1: "superseded"}
        one.clock.advance(DAY_S)
        await one.sign_news()
        complete, delta = await one.complete(), await one.delta()
        assert complete.listed == {1: "superseded"}
        assert delta and delta.number > complete.number
        assert delta.base == first.number, "who took the former complete CRL goes on with deltas"
        one.clock.advance(DAY_S)
        await one.sign_news()
        delta = await one.delta()
        assert delta and (delta.base, delta.listed) == (complete.number, {})
        assert len(await one.database.read(select(crl_base))) == 2
        assert await one.database.read(select(status_change)) == [], "no delta needs it any more"
        await one.issue(2)
        await one.revoke(2)  # its change must not get a number that was used before
        await one.sign_news()
        delta = await one.delta()
        assert delta and delta.listed == {2: "superseded"}


@pytest.mark.parametrize("deltas", [True, False])
async def test_what_was_revoked_before_a_crash_is_shown_after_the_start(
    tmp_path: Path, each_database: str, deltas: bool
):
    """Nobody asked for a CRL between the commit and the end of the process."""
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=deltas)
        await one.issue(1)
        await one.service.sign_crl(CA_ID)
        await one.ledger.revoke(CA_ID, serial_text(1), "superseded", "test")
        one.restart()
        running = asyncio.create_task(one.service.run())
        async with asyncio.timeout(30):
            while not await _listed(one):  # noqa: ASYNC110 - it does not notify
                await asyncio.sleep(0.01)
        running.cancel()
        signing = CrlSigning(one.keys, one.crls, one.clock, one.schedule)
        assert not await signing.due([CA_ID]), "it is signed once"


async def _listed(one: Line) -> dict[int, str]:
    complete, delta = await one.complete(), await one.delta()
    return complete.with_delta(delta) if delta else complete.listed


async def test_what_ended_is_removed_but_first_stands_on_a_complete_crl(tmp_path: Path):
    async with line(tmp_path / "gateway.db", keep_expired_s=0) as one:
        for serial in (1, 2):
            await one.issue(serial, days=1)
        await one.revoke(1)
        await one.service.sign_crl(CA_ID)
        one.clock.advance(DAY_S + HOUR_S)
        await one.sign_news()  # a complete CRL after the end of 1
        await one.revoke(2)  # it ended already, and no complete CRL lists it
        await one.sign_news()
        complete, delta = await one.complete(), await one.delta()
        assert complete.listed == {1: "superseded"}
        assert delta and delta.listed == {1: "remove_from_crl", 2: "superseded"}
        one.clock.advance(DAY_S)
        await one.sign_news()
        assert (await one.complete()).listed == {2: "superseded"}
        one.clock.advance(DAY_S)
        await one.sign_news()
        assert (await one.complete()).listed == {}


async def test_deltas_end_with_the_setting(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        await one.service.sign_crl(CA_ID)
        assert await one.delta() is not None
        one.keys.turn(deltas=False)
        one.restart()
        signing = asyncio.create_task(one.service.run())
        async with asyncio.timeout(10):
            while await one.delta() is not None:  # noqa: ASYNC110 - it does not notify
                await asyncio.sleep(0.01)
        signing.cancel()
        row = await one.reads.current_crl(CA_ID)
        assert row is not None
        parsed = x509.load_der_x509_crl(row.der)
        assert x509.FreshestCRL.oid not in {extension.oid for extension in parsed.extensions}


async def test_deltas_begin_with_a_complete_crl_that_they_can_build_on(tmp_path: Path):
    """A database of before the deltas has a CRL, but not what it lists."""
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=False)
        await one.service.sign_crl(CA_ID)
        before = await one.complete()
        await one.database.writer.run(lambda tx: tx.execute(crl_base.delete()))
        one.keys.turn(deltas=True)
        await one.sign_news()
        complete, delta = await one.complete(), await one.delta()
        assert complete.number > before.number
        assert delta and delta.base == complete.number


async def test_a_complete_crl_that_is_too_large_does_not_keep_deltas_back(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        for serial in range(1, 40):
            await one.issue(serial)
            await one.revoke(serial)
        await one.service.sign_crl(CA_ID)
        before = await one.complete()
        one.keys.limit = 1_000
        await one.issue(99)
        await one.revoke(99)
        one.clock.advance(DAY_S)
        with pytest.raises(ForbiddenError):
            await one.sign_news()
        delta = await one.delta()
        assert delta and delta.listed == {99: "superseded"}
        assert (await one.complete()).number == before.number


@pytest.mark.parametrize("seed", range(6))
async def test_base_and_delta_are_what_a_complete_crl_would_say(tmp_path: Path, seed: int):
    """Whatever happens, in whatever order, from every base that the delta allows."""
    chance = random.Random(seed)
    async with line(tmp_path / "gateway.db", keep_expired_s=chance.choice((0, DAY_S))) as one:
        known: list[Crl] = []
        serials: list[int] = []
        for _step in range(120):
            match chance.randrange(8):
                case 0 | 1:
                    serials.append(len(serials) + 1)
                    await one.issue(serials[-1], days=chance.randrange(1, 5))
                case 2 if serials:
                    await one.revoke(chance.choice(serials))
                case 3 if serials:
                    await one.hold(chance.choice(serials))
                case 4 if serials:
                    await one.release(chance.choice(serials))
                case 5:
                    one.restart(keep_expired_s=chance.choice((0, DAY_S, 3 * DAY_S)))
                    await _compare(one, known)
                case _:
                    one.clock.advance(chance.randrange(10 * HOUR_S))
                    await _compare(one, known)
        assert len(known) > 3


async def _compare(one: Line, known: list[Crl]) -> None:
    await one.sign_news()
    complete, delta = await one.complete(), await one.delta()
    if not known or known[-1].number != complete.number:
        known.append(complete)
    assert delta is not None
    fitting = [crl for crl in known if crl.number >= (delta.base or 0)]
    assert fitting
    now = await one.expected()
    for crl in fitting:
        assert crl.with_delta(delta) == now
    assert one.clock.now().utc_us >= NOW_US
