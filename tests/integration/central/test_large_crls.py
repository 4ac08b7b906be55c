"""CRLs that are too large for one event: in parts, put together and verified at central."""

import os
import random
from dataclasses import replace

import httpx
import pytest
from cryptography import x509
from sqlalchemy import select

from central.authority.hierarchy import store_authority
from central.sync.apply import Applier
from shared.issuance.crls import SignedCrl
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, UntrustedError
from shared.pki import crl
from shared.pki.crl import CrlEntry
from shared.pki.partitions import UNPARTITIONED, Partition
from shared.store import cursors
from shared.store.crls import SqlCrls
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import crl_part, outbox
from shared.sync import events
from shared.sync.events import Lane
from shared.sync.join import CENTRAL_NAME
from shared.sync.ports import Cursor
from tests.support.pki_hierarchy import Authority, root_authority, subordinate
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import open_database

_GATEWAY = subordinate(root_authority(), "Gateway CA gw-1", 0)
_STRANGER = root_authority("Stranger")
_CA_ID = _GATEWAY.issuer.ca_id
_HOUR_S = 3600
_ENTRIES = 10_000


def _crl(
    number: int,
    authority: Authority = _GATEWAY,
    entries: int = _ENTRIES,
    base: int | None = None,
    partition: Partition | None = None,
) -> bytes:
    listed = (CrlEntry(2**120 + one, START_US, "superseded") for one in range(entries))
    until_us = START_US + 30 * 24 * _HOUR_S * US_PER_SECOND
    tbs = crl.unsigned(
        authority.issuer,
        number,
        START_US,
        until_us,
        listed,
        None,
        base=base,
        partition=partition,
    )
    return crl.assemble(tbs, authority.sign(tbs), authority.issuer)


def _parts(der: bytes, number: int, size: int = 100_000) -> list[dict[str, object]]:
    pieces = [der[start : start + size] for start in range(0, len(der), size)]
    fixed = {"ca_id": _CA_ID, "number": number, "parts": len(pieces)}
    return [{**fixed, "part": part, "der": piece} for part, piece in enumerate(pieces)]


class _Central:
    """What central holds of one gateway's CA."""

    def __init__(self, database) -> None:
        self.database = database

    async def add_ca(self) -> None:
        def unit(tx) -> None:
            store_authority(
                tx,
                kind="gateway",
                name="gw-1",
                der=_GATEWAY.issuer.chain[0],
                parent_id=None,
                gateway="gw-1",
            )

        await self.database.writer.run(unit)

    async def apply(self, body) -> None:
        now = ManualClock().now()
        event = events.create("crl.part", body, actor="system", now=now, random=os.urandom)
        await self.database.writer.run(lambda tx: Applier("gw-1").apply(tx, event))

    async def served(self) -> int | None:
        row = await Reads(self.database).current_crl(_CA_ID)
        return row and row.number

    async def kept(self) -> set[int]:
        return {row.number for row in await self.database.read(select(crl_part.c.number))}


@pytest.fixture
async def inventory(tmp_path):
    async with open_database(tmp_path / "central.db") as database:
        central = _Central(database)
        await central.add_ca()
        yield central


async def test_a_large_crl_of_a_gateway_is_served_by_central(central, newborn):
    puppet = await newborn()

    der = _crl(START_US, puppet.authority)
    async with puppet.open(), puppet.online():
        ca_id = puppet.authority.issuer.ca_id
        crls = SqlCrls(puppet.database, puppet.outbox)
        await crls.save_crl(SignedCrl(ca_id, START_US, der, START_US, START_US))
        await puppet.drained()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{central.status_url}/crl/{ca_id}.crl")
    assert answer.content == der
    assert len(x509.load_der_x509_crl(answer.content)) == _ENTRIES


@pytest.mark.parametrize("entries", [1, _ENTRIES])
async def test_a_delta_of_a_gateway_is_served_beside_the_whole(central, newborn, entries):
    puppet = await newborn()
    ca_id, issuer = puppet.authority.issuer.ca_id, puppet.authority.issuer
    fresh = replace(puppet.authority, issuer=replace(issuer, delta_urls=("http://gw/",)))
    whole, delta = _crl(START_US, fresh), _crl(START_US + 1, fresh, entries, base=START_US)
    async with puppet.open(), puppet.online():
        crls = SqlCrls(puppet.database, puppet.outbox)
        await crls.save_crl(SignedCrl(ca_id, START_US, whole, START_US, START_US))
        await crls.save_crl(SignedCrl(ca_id, START_US + 1, delta, START_US, START_US, None))
        await puppet.drained()
    async with httpx.AsyncClient() as client:
        for name, der in ((f"{ca_id}.crl", whole), (f"{ca_id}-delta.crl", delta)):
            answer = await client.get(f"{central.status_url}/crl/{name}")
            assert answer.content == der
            assert answer.headers["Content-Type"] == "application/pkix-crl"
        assert (await client.get(f"{central.status_url}/crl/00-delta.crl")).status_code == 404


_SHARES = UNPARTITIONED.adopted(4).at(_GATEWAY.issuer.crl_urls)
_SHARED = replace(_GATEWAY, issuer=replace(_GATEWAY.issuer, partitions=_SHARES))


@pytest.mark.parametrize("entries", [1, _ENTRIES])
async def test_partitions_of_a_gateway_are_served_beside_the_whole(central, newborn, entries):
    puppet = await newborn()
    issuer = puppet.authority.issuer
    shares = UNPARTITIONED.adopted(2).at((f"http://gw/crl/{issuer.ca_id}.crl",))
    authority = replace(puppet.authority, issuer=replace(issuer, partitions=shares))
    ders = {
        number: _crl(START_US + number, authority, entries, partition=Partition(2, number))
        for number in (0, 1)
    }
    async with puppet.open(), puppet.online():
        crls = SqlCrls(puppet.database, puppet.outbox)
        for number, der in ders.items():
            signed = SignedCrl(issuer.ca_id, START_US + number, der, START_US, START_US)
            await crls.save_crl(replace(signed, partition=Partition(2, number)))
        await puppet.drained()
    async with httpx.AsyncClient() as client:
        for number, der in ders.items():
            answer = await client.get(f"{central.status_url}/crl/{issuer.ca_id}-2-{number}.crl")
            assert answer.content == der
            assert answer.headers["Content-Type"] == "application/pkix-crl"
        for name in ("", "-4-0", "-2-2", "-2"):
            answer = await client.get(f"{central.status_url}/crl/{issuer.ca_id}{name}.crl")
            assert answer.status_code == 404


async def test_sets_of_several_partitions_do_not_disturb_each_other(inventory):
    """Two segments drain side by side, so that their sets come mixed."""
    both = [
        [
            {**body, "scope": f"4-{index}"}
            for body in _parts(_crl(number, _SHARED, partition=Partition(4, index)), number)
        ]
        for index, number in ((1, 5), (3, 6))
    ]
    for pair in zip(*both, strict=True):
        for body in pair:
            await inventory.apply(body)
    assert await inventory.kept() == set()
    reads = Reads(inventory.database)
    for index, number in ((1, 5), (3, 6)):
        row = await reads.current_partition(_CA_ID, Partition(4, index))
        assert row is not None and row.number == number
    assert await inventory.served() is None
    for body in both[0]:
        await inventory.apply(body)
    assert await inventory.kept() == set(), "what is served already is not collected again"


async def test_parts_make_a_crl_in_any_order_and_leave_nothing(inventory):
    parts = _parts(_crl(5), 5)
    random.Random(7).shuffle(parts)
    for body in [parts[0], *parts[:-1]]:  # one twice
        await inventory.apply(body)
        assert await inventory.served() is None
    await inventory.apply(parts[-1])
    assert await inventory.served() == 5
    assert await inventory.kept() == set()
    for body in parts:
        await inventory.apply(body)
    assert await inventory.kept() == set(), "what is served already is not collected again"


async def test_a_newer_number_replaces_an_incomplete_set(inventory):
    older, newer = _parts(_crl(5), 5), _parts(_crl(6), 6)
    await inventory.apply(older[0])
    await inventory.apply(newer[0])
    for body in older[1:]:
        await inventory.apply(body)
    assert await inventory.kept() == {6}
    for body in newer[1:]:
        await inventory.apply(body)
    assert (await inventory.served(), await inventory.kept()) == (6, set())


async def test_what_the_gateways_ca_did_not_sign_is_refused(inventory):
    *first, last = _parts(_crl(5, _STRANGER), 5)
    for body in first:
        await inventory.apply(body)
    with pytest.raises(UntrustedError):
        await inventory.apply(last)
    assert await inventory.served() is None


async def test_parts_that_disagree_are_refused(inventory):
    first, second, *_ = _parts(_crl(5), 5)
    await inventory.apply(first)
    with pytest.raises(BadRequestError):
        await inventory.apply(second | {"parts": 511})
    with pytest.raises(BadRequestError):
        await inventory.apply(second | {"part": 511})
    with pytest.raises(UntrustedError):
        await inventory.apply(second | {"ca_id": _STRANGER.issuer.ca_id})


async def test_sets_of_parts_are_daily_and_one_at_a_time(tmp_path):
    sink, clock = Outbox.of_gateway("gw-1", "test"), ManualClock()
    async with open_database(tmp_path / "gateway.db", sink=sink, clock=clock) as database:

        async def published(hours: int) -> int:
            """Publish a large CRL so many hours later; tells how many sets have been sent."""
            clock.advance(hours * _HOUR_S)
            now_us = clock.now().utc_us
            der = b"c" * 300_000
            await SqlCrls(database, sink).save_crl(SignedCrl(_CA_ID, now_us, der, now_us, now_us))
            sent = outbox.c.type == "crl.part"
            rows = await database.read(select(outbox.c.event).where(sent))
            bodies = [events.decode(row.event).body for row in rows]
            return len({body["number"] for body in bodies})

        def confirm(tx) -> None:
            opened = sink.heads(tx, CENTRAL_NAME)
            assert opened is not None
            segment, heads = opened
            head = heads[Lane.NORMAL]
            place = (segment.name, Lane.NORMAL)
            cursors.put(tx, CENTRAL_NAME, "out", place, Cursor(head.sequence, head.hash, 0))

        assert await published(0) == 1
        assert await published(48) == 1, "central has not applied the first set"
        await database.writer.run(confirm)
        assert await published(1) == 2
        await database.writer.run(confirm)
        assert await published(1) == 2, "at most daily"
        assert await published(23) == 3
