"""CRLs that were signed elsewhere: only a whole one takes the place of a whole one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from central.authority.hierarchy import store_authority
from shared.kernel.errors import UntrustedError
from shared.store import crls
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.transaction import Transaction
from tests.support.pki_hierarchy import root_authority
from tests.support.store_databases import open_database

_CA = root_authority()


def _crl(number: int, *extensions: x509.ExtensionType) -> bytes:
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
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


async def test_a_part_never_replaces_the_whole(tmp_path: Path, each_database: str) -> None:
    part = x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier("http://crl.example/1.crl")],
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_know)
        await _take_over(database, _crl(1))
        with pytest.raises(UntrustedError, match="only a part"):
            await _take_over(database, _crl(2, part))
        assert await _served(database) == 1


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
