"""Partitioned CRLs: a CA's partitions, what each CRL shows, and parts of several at once."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, PrimaryKeyConstraint, Text, text

revision = "0014"
down_revision = "0013"

_PARTS = "ca_id, part, number, parts, der"


def upgrade() -> None:
    """Add columns and indexes; parts that wait are of complete CRLs or deltas."""
    op.add_column("ca", Column("crl_partitions", Text))
    op.add_column("crl", Column("through", Integer, nullable=False, server_default="0"))
    op.create_index(
        "crl_by_scope", "crl", ["ca_id", "scope", "number", "this_update", "next_update", "through"]
    )
    op.create_index(
        "certificate_not_good_by_octet",
        "certificate",
        ["ca_id", text("substr(serial, length(serial) - 1)"), "id"],
        sqlite_where=text("status <> 'good'"),
    )
    op.execute("CREATE TABLE crl_part_before AS SELECT * FROM crl_part")
    op.drop_table("crl_part")
    op.create_table(
        "crl_part",
        Column("ca_id", Text, nullable=False),
        Column("scope", Text, nullable=False),
        Column("part", Integer, nullable=False),
        Column("number", Integer, nullable=False),
        Column("parts", Integer, nullable=False),
        Column("der", LargeBinary, nullable=False),
        PrimaryKeyConstraint("ca_id", "scope", "part"),
    )
    op.execute(
        f"INSERT INTO crl_part (scope, {_PARTS}) SELECT '', {_PARTS} FROM crl_part_before"  # noqa: S608
    )
    op.drop_table("crl_part_before")
