"""Partitioned CRLs: each says what falls into it, and a certificate names the one it is in."""

import asyncio
import random
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select, text

from shared.kernel.errors import ForbiddenError
from shared.pki.partitions import Partition
from shared.store.crls import SqlCrls
from shared.store.schema import outbox
from shared.sync import events
from tests.support.delta_crls import CA_ID, DAY_S, GATEWAY, HOUR_S, Crl, Line, Listed, line
from tests.support.lint import assert_clean_certificate, assert_clean_crl
from tests.support.openssl import Revocation
from tests.support.pki_hierarchy import Authority, leaf_plan


def _shares(listed: Listed, count: int) -> dict[Partition, Listed]:
    found: dict[Partition, Listed] = {Partition(count, index): {} for index in range(count)}
    for serial, reason in listed.items():
        found[Partition.of(serial, count)][serial] = reason
    return found


async def _assert_whole(one: Line) -> None:
    """Each partitioning lists together what the complete CRL of this moment would list."""
    now, served = await one.expected(), await one.partitions()
    for count in {partition.count for partition in one.keys.issuer.partitions.every}:
        listed = {part: crl.listed for part, crl in served.items() if part.count == count}
        assert listed == _shares(now, count)


def _leaf(one: Line, serial: int) -> bytes:
    return Authority(GATEWAY.key, one.keys.issuer).issue(leaf_plan(), serial=serial)


async def test_openssl_takes_the_partition_of_the_certificate_and_no_other(tmp_path: Path):
    openssl = Revocation(tmp_path, GATEWAY.issuer.chain)
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=False)
        await one.issue(17)
        await one.revoke(17)
        await one.service.sign_crl(CA_ID)
        [complete] = [row.der for row in [await one.reads.current_crl(CA_ID)] if row]
        before = {serial: _leaf(one, serial) for serial in (1, 17)}
        one.keys.share(16)
        for serial in (19, 35):
            await one.issue(serial)
        await one.revoke(19, "key_compromise")
        await one.hold(35)
        await one.sign_news()
        rows = {index: await _der(one, Partition(16, index)) for index in range(16)}
        leaves = {serial: _leaf(one, serial) for serial in (3, 19, 35, 4)}
        now_us = one.clock.now().utc_us + 1_000_000

        async def says(leaf: bytes, *crls: bytes) -> str:
            return await openssl.says(now_us, leaf, list(crls), "-extended_crl")

        assert await says(leaves[3], rows[3]) == "good"
        assert "certificate revoked" in await says(leaves[19], rows[3])
        assert "certificate revoked" in await says(leaves[35], rows[3])
        assert await says(leaves[4], rows[4]) == "good"
        for other in (rows[4], rows[1]):
            assert "different CRL scope" in await says(leaves[19], other)
        assert "different CRL scope" in await says(leaves[3], rows[4])
        # Certificates of before name the whole, which is served as it was; a part is not enough.
        assert await says(before[1], complete) == "good"
        assert "certificate revoked" in await says(before[17], complete)
        assert "different CRL scope" in await says(before[17], rows[1])
        await one.release(35)
        await one.sign_news()
        assert await says(leaves[35], await _der(one, Partition(16, 3))) == "good"
        assert_clean_crl(rows[3])
        assert_clean_certificate(leaves[19])


async def _der(one: Line, partition: Partition) -> bytes:
    row = await one.reads.current_partition(CA_ID, partition)
    assert row is not None
    return row.der


async def test_a_partition_says_critically_which_one_it_is(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        one.keys.share(4)
        await one.service.sign_crl(CA_ID)
        for index in range(4):
            parsed = x509.load_der_x509_crl(await _der(one, Partition(4, index)))
            found = parsed.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
            assert found.critical
            names = [name.value for name in found.value.full_name or ()]
            leaf = x509.load_der_x509_certificate(_leaf(one, 4 + index))
            [point] = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
            assert names == [name.value for name in point.full_name or ()]
            assert x509.FreshestCRL.oid not in {extension.oid for extension in parsed.extensions}


@pytest.mark.parametrize("deltas", [False, True])
async def test_a_revocation_signs_its_own_partition_only(
    tmp_path: Path, each_database: str, deltas: bool
):
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=deltas)
        one.keys.share(4)
        for serial in range(8):
            await one.issue(serial)
        await one.service.sign_crl(CA_ID)
        first = await one.partitions()
        numbers = [crl.number for crl in first.values()]
        assert len(set(numbers)) == 4
        await one.revoke(6)
        await one.sign_news()
        second = await one.partitions()
        changed = {part for part in first if first[part].number != second[part].number}
        assert changed == {Partition(4, 2)}
        assert second[Partition(4, 2)].number > max(numbers)
        assert second[Partition(4, 2)].listed == {6: "superseded"}
        await one.sign_news()
        assert await one.partitions() == second, "nothing is new"
        await _assert_whole(one)


async def test_partitions_keep_the_schedule(tmp_path: Path):
    async with line(tmp_path / "gateway.db", interval_s=DAY_S) as one:
        one.keys.share(2)
        await one.service.sign_crl(CA_ID)
        signing = asyncio.create_task(one.service.run())
        first = await one.partitions()
        await asyncio.sleep(0.05)
        assert await one.partitions() == first
        signing.cancel()
        one.clock.advance(DAY_S)
        signing = asyncio.create_task(one.service.run())
        async with asyncio.timeout(10):
            numbers = {crl.number for crl in first.values()}
            while numbers & await _numbers(one):  # noqa: ASYNC110 - it does not notify
                await asyncio.sleep(0.01)
        signing.cancel()


async def _numbers(one: Line) -> set[int]:
    return {crl.number for crl in (await one.partitions()).values()}


async def test_partitions_come_due_together(tmp_path: Path):
    """Else each would have its own hour of the day, and the complete CRL be signed at each."""
    async with line(tmp_path / "gateway.db", interval_s=DAY_S) as one:
        one.keys.turn(deltas=False)
        one.keys.share(8)
        await one.service.sign_crl(CA_ID)
        for serial in range(8):
            one.clock.advance(HOUR_S)
            await one.issue(serial)
            await one.revoke(serial)
            await one.sign_news()
        one.clock.advance(DAY_S - HOUR_S)
        before = await one.partitions()
        await one.sign_news()
        after = await one.partitions()
        assert all(after[part].number > before[part].number for part in before)


async def test_a_number_that_is_changed_breaks_no_certificate(tmp_path: Path, each_database: str):
    async with line(tmp_path / "gateway.db") as one:
        for count in (4, 16, 1, 2):
            one.keys.share(count)
            await one.issue(count + 100)
            await one.revoke(count + 100)
            await one.sign_news()
            await _assert_whole(one)
        assert {part.count for part in await one.partitions()} == {4, 16, 2}
        await one.issue(7)
        await one.hold(7)
        await one.sign_news()
        served = await one.partitions()
        for part in (Partition(4, 3), Partition(16, 7), Partition(2, 1)):
            assert served[part].listed[7] == "certificate_hold"
        await one.release(7)
        await one.sign_news()
        assert all(7 not in crl.listed for crl in (await one.partitions()).values())


async def test_what_ended_leaves_no_sooner_than_one_crl_later(tmp_path: Path):
    """RFC 5280 §3.3, in a partition that was signed long before the certificate ended."""
    async with line(tmp_path / "gateway.db", keep_expired_s=0) as one:
        one.keys.turn(deltas=False)
        one.keys.share(2)
        for serial in (2, 3):
            await one.issue(serial, days=1)
        await one.revoke(2)
        await one.sign_news()
        one.clock.advance(DAY_S - HOUR_S)
        await one.revoke(3)
        await one.sign_news()  # it has not ended yet
        end_us = one.clock.now().utc_us + HOUR_S * 1_000_000
        one.clock.advance(2 * HOUR_S)
        listed_after_end: set[int] = set()
        for step in range(8):
            await one.issue(100 + step, days=9)
            await one.revoke(100 + step)
            await one.sign_news()
            for part in one.keys.issuer.partitions.every:
                parsed = x509.load_der_x509_crl(await _der(one, part))
                if parsed.last_update_utc.timestamp() * 1_000_000 < end_us:
                    continue
                listed = Crl.of(await _der(one, part)).listed
                owed = {2, 3} - listed_after_end
                assert {serial for serial in owed if Partition.of(serial, 2) == part} <= set(listed)
                listed_after_end |= set(listed)
            one.clock.advance(8 * HOUR_S)
        assert all(not {2, 3} & set(crl.listed) for crl in (await one.partitions()).values())


async def test_a_complete_crl_that_is_too_large_does_not_keep_partitions_back(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=False)
        one.keys.share(64)
        for serial in range(1, 40):
            await one.issue(serial)
            await one.revoke(serial)
        await one.service.sign_crl(CA_ID)
        one.keys.limit = 1_000
        await one.issue(99)
        await one.revoke(99)
        with pytest.raises(ForbiddenError):
            await one.sign_news()
        await _assert_whole(one)


async def test_each_small_partition_goes_up_as_one_event(tmp_path: Path):
    async with line(tmp_path / "gateway.db") as one:
        one.keys.turn(deltas=False)
        one.keys.share(4)
        await one.service.sign_crl(CA_ID)
        rows = await one.database.read(
            select(outbox.c.event).where(outbox.c.type == "crl.published")
        )
        ders = [events.decode(row.event).body["der"] for row in rows]
        assert ders[:4] == [await _der(one, Partition(4, index)) for index in range(4)]
        assert len(ders) == 5


@pytest.mark.parametrize("seed", range(6))
async def test_each_revoked_serial_is_in_exactly_one_partition(tmp_path: Path, seed: int):
    """Whatever happens, in whatever order, of each number that was ever in force."""
    chance = random.Random(seed)
    async with line(tmp_path / "gateway.db", keep_expired_s=chance.choice((0, DAY_S))) as one:
        serials: list[int] = []
        for _step in range(100):
            match chance.randrange(9):
                case 0 | 1:
                    serials.append(chance.getrandbits(127) + 1)
                    await one.issue(serials[-1], days=chance.randrange(1, 5))
                case 2 if serials:
                    await one.revoke(chance.choice(serials))
                case 3 if serials:
                    await one.hold(chance.choice(serials))
                case 4 if serials:
                    await one.release(chance.choice(serials))
                case 5:
                    one.keys.share(chance.choice((1, 2, 4, 8)))
                case 6:
                    one.keys.turn(deltas=chance.random() < 0.5)
                case _:
                    one.clock.advance(chance.randrange(10 * HOUR_S))
                    await one.sign_news()
                    await _assert_revocations(one)
        assert one.keys.issuer.partitions.counts


async def _assert_revocations(one: Line) -> None:
    """What is revoked and has not ended is listed once in each partitioning, and nothing else."""
    rows = await one.database.read(
        text("SELECT serial, not_after FROM certificate WHERE status <> 'good'")
    )
    now_us = one.clock.now().utc_us
    revoked = {int(row.serial, 16): row.not_after for row in rows}
    served = await one.partitions()
    for count in {part.count for part in one.keys.issuer.partitions.every}:
        lists = {part: crl.listed for part, crl in served.items() if part.count == count}
        assert len(lists) == count
        for part, listed in lists.items():
            assert all(Partition.of(serial, count) == part for serial in listed)
        together = [serial for listed in lists.values() for serial in listed]
        assert set(together) <= set(revoked)
        assert {serial for serial, end in revoked.items() if end > now_us} <= set(together)


async def test_a_partition_is_found_by_an_index(tmp_path: Path):
    statements = []
    async with line(tmp_path / "gateway.db") as one:

        class Spy:
            async def read(self, statement, parameters=None):
                statements.append(statement)
                return await one.database.read(statement, parameters)

        await SqlCrls(Spy(), None).listing(CA_ID, 0, [Partition(256, 7)])
        [statement] = [each for each in statements if "substr" in str(each)]
        sql = statement.params(ca="a", after=0, octet="07", cutoff=0)
        sql = sql.compile(compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in await one.database.read(text(f"EXPLAIN QUERY PLAN {sql}"))]
        [step] = plan
        assert "certificate_not_good_by_octet (ca_id=? AND <expr>=? AND id>?)" in step
