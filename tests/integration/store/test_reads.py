"""Look-ups and CRLs on a gateway's database with 100,000 certificates."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.issuance.crls import SignedCrl
from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.pki.ocsp import State
from shared.policy.rights import Scope
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.link import SqlLink
from shared.store.outbox import Outbox
from shared.store.reads import FILTERS, Reads
from shared.sync.events import Lane
from shared.sync.ports import Cursor
from tests.support import store_large
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_intents import CA_ID, DAY_US, fake_der, issuing_database, make_intent

_CERTIFICATES = 100_000
_REVOKED = 12_000


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "gateway.db"
    asyncio.run(store_large.write(path, _CERTIFICATES, _REVOKED))
    return path


@pytest.fixture
async def opened(large: Path):
    sink = Outbox.of_gateway("gw-01", "test")
    database = await Database.open(large, sink=sink, clock=ManualClock())
    yield database, sink
    await database.close()


async def test_paging_gives_each_row_once_newest_first(opened):
    reads = Reads(opened[0])
    seen, after = [], 0
    for _ in range(30):
        page = await reads.search({"status": "revoked"}, None, after, 500)
        seen += [row.id for row in page]
        if len(page) < 500:
            break
        after = page[-1].id
    assert len(seen) == _REVOKED
    assert seen == sorted(set(seen), reverse=True)


async def test_a_page_is_bounded_and_other_filters_are_refused(opened):
    reads = Reads(opened[0])
    assert len(await reads.search({}, None, 0, 1_000_000)) == 500
    for scope, found in (("profile=tls-client", 1), ("profile=other", 0), ("*", 1), ("line=x", 0)):
        within = [Scope.parse(scope)]
        assert len(await reads.search({"device_id": "SN-77"}, within, 0, 10)) == found, scope
    assert await reads.search({"device_id": "SN-77"}, [], 0, 10) == []
    with pytest.raises(BadRequestError):
        await reads.search({"subject": "x"}, None, 0, 10)


@pytest.mark.parametrize("name", sorted(FILTERS))
async def test_every_filter_has_an_index(opened, name):
    """SQLite's plan never walks through the table, nor sorts it."""
    statements = []

    class Spy:
        async def read(self, statement, parameters=None):
            statements.append(statement)
            return []

    value = {"status": "revoked", "origin": "gw-01"}.get(name, "x")
    await Reads(Spy()).search({name: value}, None, 50_000, 10)
    sql = statements[0].compile(compile_kwargs={"literal_binds": True})
    plan = [row.detail for row in await opened[0].read(text(f"EXPLAIN QUERY PLAN {sql}"))]
    assert any("USING INDEX" in step for step in plan), plan
    assert name == "serial" or not any("TEMP B-TREE" in step for step in plan), plan


async def test_status_answers(opened):
    database, _ = opened
    reads = Reads(database)
    revoked, good = [await reads.search({}, None, after, 1) for after in (0, 100)]
    status = await reads.ocsp_status(CA_ID, revoked[0].serial, State.UNKNOWN)
    assert (status.state, status.reason) == (State.REVOKED, "superseded")
    status = await reads.ocsp_status(CA_ID, good[0].serial, State.UNKNOWN)
    assert status.state is State.GOOD
    for unlisted in (State.GOOD, State.UNKNOWN):
        assert (await reads.ocsp_status(CA_ID, "00", unlisted)).state is unlisted


async def test_a_crl_lists_all_that_are_revoked_and_not_long_expired(opened, large, tmp_path):
    database, sink = opened
    listing = await SqlCrls(database, sink).listing(CA_ID, 0)
    assert len({serial for serial, _, _ in listing.entries}) == len(listing.entries) == _REVOKED
    shutil.copy(large, copy := tmp_path / "copy.db")
    later = await Database.open(copy, sink=sink, clock=ManualClock())
    crls, at_us = SqlCrls(later, sink), START_US + 125 * DAY_US
    for number, days, listed in ((1, 0, _REVOKED), (2, 200, _REVOKED), (3, 32, 0)):
        listing = await crls.listing(CA_ID, days * DAY_US)
        assert len(listing.entries) == listed, "one CRL after the end lists them, at least"
        await crls.save_crl(SignedCrl(CA_ID, number, b"crl", at_us, at_us, listing))
    await later.close()


async def test_the_queue_and_what_exists_only_here(opened):
    reads = Reads(opened[0])
    queue = await reads.queue("_central")
    assert queue.waiting == _CERTIFICATES + 2  # and the opening event of both lanes
    assert queue.oldest_us == START_US
    assert await reads.certificates_only_here() == _CERTIFICATES
    assert (await reads.queue("nobody")).waiting == 0


async def test_what_exists_only_here_follows_what_the_peer_confirms(tmp_path):
    sink = Outbox.of_gateway("gw-01", "test")
    async with issuing_database(tmp_path / "gateway.db", sink=sink) as database:
        ledger, reads = SqlLedger(database), Reads(database)
        link = SqlLink(database.writer, sink, "_central", lambda _tx, _event: None)
        for _ in range(4):
            intent = make_intent()
            await ledger.intend(intent)
            await ledger.complete(intent, fake_der(intent))

        def confirm(store, through: int) -> None:
            segment = store.out_segments(0)[0].segment.name
            digest = store.out_hash(segment, Lane.NORMAL, through)
            store.set_out_cursor(segment, Lane.NORMAL, Cursor(through, digest, 0))

        for through, only_here in ((1, 4), (3, 2), (5, 0), (2, 3)):
            await link.run(lambda store, through=through: confirm(store, through))
            assert await reads.certificates_only_here() == only_here
            assert (await reads.queue("_central")).waiting == 6 - through
            assert await link.run(lambda store: store.backlog()) == 6 - through
        await link.run(lambda store: store.rewind())
        assert await reads.certificates_only_here() == 4


async def test_a_crl_is_published_once_and_its_number_never_falls(tmp_path):
    sink = Outbox.of_gateway("gw-01", "test")
    async with issuing_database(tmp_path / "gateway.db", sink=sink) as database:
        crls, reads = SqlCrls(database, sink), Reads(database)
        assert (await crls.number(CA_ID), await reads.current_crl(CA_ID)) == (0, None)
        assert await crls.chain_heads() is None
        for number in (5, 9):
            der = b"crl %d" % number
            await crls.save_crl(SignedCrl(CA_ID, number, der, START_US, START_US + 1))
        assert (await crls.number(CA_ID), (await reads.current_crl(CA_ID)).der) == (
            9,
            b"crl 9",
        )
        assert (await crls.standing(CA_ID)).complete_us == START_US
        heads = cbor.decode(await crls.chain_heads(), limit=1000)["heads"]
        assert {name: head[0] for name, head in heads.items()} == {"urgent": 1, "normal": 3}
        intent = make_intent()
        ledger = SqlLedger(database)
        await ledger.intend(intent)
        await ledger.complete(intent, fake_der(intent))
        assert cbor.decode(await crls.chain_heads(), limit=1000)["heads"]["normal"][0] == 4


def test_a_large_database_opens_in_little_memory(large: Path):
    """Start to first commit in a fresh process; its memory, not its time, can be judged here."""
    script = f"""
import asyncio
from pathlib import Path
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.link import SqlLink
from shared.store.outbox import Outbox
from tests.support.store_clock import ManualClock
from tests.support.store_intents import fake_der, make_intent
async def main():
    sink = Outbox.of_gateway("gw-01", "test")
    database = await Database.open(Path({str(large)!r}), sink=sink, clock=ManualClock())
    intent = make_intent()
    await SqlLedger(database).intend(intent)
    await SqlLedger(database).release(intent)
    await database.close()
    # Not ru_maxrss: that one remembers the memory of the process that forked this one.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
asyncio.run(main())
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(outcome.stdout) < 150
