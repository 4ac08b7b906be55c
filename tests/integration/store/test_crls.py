"""CRLs that were signed elsewhere: each takes the place of one of its own scope only."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select

from central.authority.hierarchy import store_authority
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import UntrustedError
from shared.pki.partitions import Partition, Partitions
from shared.store import crls, partitions, schema
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.transaction import Transaction
from tests.support.pki_hierarchy import root_authority
from tests.support.store_databases import open_database

_CA = root_authority()
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _crl(number: int, *extensions: x509.ExtensionType) -> bytes:
    begin = _BEGIN + timedelta(days=number)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_CA.issuer.certificate.subject)
        .last_update(begin)
        .next_update(begin + timedelta(days=7))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for extension in extensions:
        critical = not isinstance(extension, x509.FreshestCRL)
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(_CA.key, SHA256()).public_bytes(Encoding.DER)


def _know(tx: Transaction) -> None:
    store_authority(tx, kind="root", name="Root", der=_CA.issuer.chain[0], parent_id=None)


async def _take_over(database: Database, der: bytes) -> None:
    await database.writer.run(lambda tx: crls.take_over(tx, _CA.issuer.ca_id, der))


async def _served(database: Database) -> int | None:
    found = await Reads(database).current_crl(_CA.issuer.ca_id)
    return found and found.number


def _part(*urls: str, **changes: bool) -> x509.IssuingDistributionPoint:
    fields = {
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url) for url in urls],
        relative_name=None,
        only_some_reasons=None,
        **fields | changes,
    )


_ADDRESS = "http://crl.example/crl/1-16-3.crl"


@pytest.mark.parametrize(
    "part",
    [
        _part("http://crl.example/1.crl"),
        _part("http://crl.example/1-3-2.crl"),
        _part(_ADDRESS, "http://crl.example/1-16-4.crl"),
        _part(_ADDRESS, "http://crl.example/1.crl"),
        _part(_ADDRESS, only_contains_user_certs=True),
        _part(_ADDRESS, only_contains_ca_certs=True),
        _part(_ADDRESS, indirect_crl=True),
    ],
)
async def test_a_part_of_another_kind_is_refused(
    tmp_path: Path, part: x509.IssuingDistributionPoint
) -> None:
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_know)
        await _take_over(database, _crl(1))
        with pytest.raises(UntrustedError, match="only a part"):
            await _take_over(database, _crl(2, part))
        with pytest.raises(UntrustedError, match="delta to a part"):
            await _take_over(database, _crl(2, _part(_ADDRESS), x509.DeltaCRLIndicator(1)))
        assert await _served(database) == 1


async def test_a_partition_stands_beside_the_whole_and_is_known_from_then_on(
    tmp_path: Path, each_database: str
) -> None:
    ca_id, one = _CA.issuer.ca_id, Partition(16, 3)
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_know)

        async def served(der: bytes) -> tuple[int | None, int | None]:
            await _take_over(database, der)
            row = await Reads(database).current_partition(ca_id, one)
            return await _served(database), row and row.number

        assert await served(_crl(1)) == (1, None)
        assert await served(_crl(3, _part(_ADDRESS, "http://old/crl/1-16-3.crl"))) == (1, 3)
        assert await served(_crl(2, _part(_ADDRESS))) == (1, 3), "an older one"
        assert await served(_crl(2)) == (2, 3), "numbers are compared within a scope"
        assert await served(_crl(9)) == (9, 3)
        assert await served(_crl(5, _part(_ADDRESS))) == (9, 5)
        assert await served(_crl(6, _part("http://crl.example/crl/1-4-0.crl"))) == (9, 5)
        known = await database.writer.run(lambda tx: partitions.of(tx, ca_id))
        urls = ("http://crl.example/crl/1.crl", "http://old/crl/1.crl")
        assert known == Partitions((16, 4), urls)
        assert await Reads(database).crl_ends(ca_id) == {
            scope: utc_us_of(_BEGIN + timedelta(days=number + 7))
            for scope, number in (("complete", 9), ("partitions-16", 5), ("partitions-4", 6))
        }


async def test_addresses_and_numbers_are_kept_when_they_change(tmp_path: Path) -> None:
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_know)

        async def now(url: str, count: int | None) -> Partitions:
            [row] = await database.read(select(schema.ca))
            return await partitions.in_force(database, row, (url,), count)

        assert await now("http://a/1.crl", None) == Partitions()
        assert await now("http://a/1.crl", 1) == Partitions()
        assert await now("http://b/1.crl", 8) == Partitions((8,), ("http://b/1.crl",))
        both = ("http://b/1.crl", "http://a/1.crl")
        assert await now("http://a/1.crl", None) == Partitions((8,), both)
        assert await now("http://a/1.crl", 1) == Partitions((8, 1), both)
        assert await now("http://b/1.crl", 8) == Partitions((1, 8), both)


async def test_a_delta_stands_beside_the_whole_until_deltas_end(
    tmp_path: Path, each_database: str
) -> None:
    freshest = x509.FreshestCRL(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://d/")], None, None, None)]
    )
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_know)

        async def served(der: bytes) -> tuple[int | None, int | None]:
            await _take_over(database, der)
            delta = await Reads(database).current_delta(_CA.issuer.ca_id)
            return await _served(database), delta and delta.number

        assert await served(_crl(1, freshest)) == (1, None)
        assert await served(_crl(3, x509.DeltaCRLIndicator(1))) == (1, 3)
        assert await served(_crl(2, x509.DeltaCRLIndicator(1))) == (1, 3), "an older delta"
        assert await served(_crl(2, freshest)) == (2, 3), "a complete one of before the delta"
        assert await served(_crl(4, freshest)) == (4, 3)
        assert await served(_crl(4, x509.DeltaCRLIndicator(1))) == (4, 3)
        assert await served(_crl(5)) == (5, None), "it names no deltas any more"
