"""The generations of a CA: how they are named, which one issues, what roots say of each other."""

from typing import Any

from cryptography import x509
from sqlalchemy import select

from central.authority import hierarchy as kinds
from central.authority.hierarchy import Hierarchy
from shared.kernel.errors import ConflictError
from shared.store.database import Database
from shared.store.schema import cross_certificate

_CROSSED = select(cross_certificate.c.der)


def next_name(name: str) -> str:
    """Count the generations: a CA, a CA G2, a CA G3."""
    stem, _, last = name.rpartition(" G")
    return f"{stem} G{int(last) + 1}" if stem and last.isdecimal() else f"{name} G2"


def in_force(hierarchy: Hierarchy, ca_id: str) -> str:
    """Give this CA or the generation of it that issues now; raises ConflictError."""
    by_name = {row.name: row for row in hierarchy.rows.values()}
    row: Any = hierarchy.rows[ca_id]
    while row is not None and row.state != kinds.ACTIVE:
        row = by_name.get(next_name(row.name))
    if row is None:
        raise ConflictError("The CA above issues no more.", remedy="Make one below another.")
    return row.ca_id


async def links(database: Database) -> list[bytes]:
    """Give the certificates by which generations of a root vouch for each other, DER.

    They are self-issued (RFC 4210 §4.4), which no other cross-certificate is.
    """
    ders = [row.der for row in await database.read(_CROSSED)]
    parsed = map(x509.load_der_x509_certificate, ders)
    return [der for one, der in zip(parsed, ders, strict=True) if one.subject == one.issuer]
