"""How the CRLs of a CA are partitioned: what its row says, and what CRLs signed elsewhere say."""

from typing import Any

from cryptography import x509
from sqlalchemy import bindparam, select, update

from shared.kernel.errors import UntrustedError
from shared.pki.partitions import Partition, Partitions
from shared.store.database import Database
from shared.store.schema import ca
from shared.store.transaction import Transaction

_KEPT = select(ca.c.crl_partitions).where(ca.c.ca_id == bindparam("ca"))
_KEEP = update(ca).where(ca.c.ca_id == bindparam("ca")).values(crl_partitions=bindparam("document"))


def of(tx: Transaction, ca_id: str) -> Partitions:
    """Tell how the CRLs of a CA are partitioned; not at all, if it is not known."""
    row: Any = tx.one(_KEPT, {"ca": ca_id})
    return Partitions.read(row and row.crl_partitions)


def keep(tx: Transaction, ca_id: str, partitions: Partitions) -> None:
    """Let the CA's row say it."""
    if partitions != of(tx, ca_id):
        tx.execute(_KEEP, {"ca": ca_id, "document": partitions.written()})


async def in_force(
    database: Database, row: Any, urls: tuple[str, ...], count: int | None = None
) -> Partitions:
    """Tell how the CRLs of a CA with this row are partitioned from now on.

    They are at the addresses that follow from ``urls`` too, and new certificates name ``count``
    partitions; None: as many as before. What is new is kept before it is used.
    """

    def changed(before: Partitions) -> Partitions:
        return before.adopted(before.in_force if count is None else count).at(urls)

    said = Partitions.read(row.crl_partitions)
    if changed(said) == said:
        return said

    def unit(tx: Transaction) -> Partitions:
        now = changed(of(tx, row.ca_id))
        keep(tx, row.ca_id, now)
        return now

    return await database.writer.run(unit)


def learn(tx: Transaction, ca_id: str, point: x509.IssuingDistributionPoint) -> Partition:
    """Take it from a CRL that its CA signed: which partition it is (RFC 5280 §5.2.5).

    So a gateway that was put back from an old copy goes on with its partitions, and central knows
    those of its gateways. Raises UntrustedError for a share of another kind.
    """
    names = point.full_name or []
    urls = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    [partition, *more] = {Partition.of_url(url)[0] for url in urls} or {None}
    plain = x509.IssuingDistributionPoint(
        point.full_name,
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    if partition is None or more or len(urls) != len(names) or point != plain:
        raise UntrustedError("The CRL lists only a part of what its CA has revoked.")
    known = of(tx, ca_id)
    if partition.count not in known.counts:
        known = known.adopted(partition.count)
    keep(tx, ca_id, known.at(tuple(Partition.of_url(url)[1] for url in urls)))
    return partition
