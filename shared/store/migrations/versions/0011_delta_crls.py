"""Delta CRLs: a scope for each CRL, what deltas build on, and changes of status."""

from alembic import op
from sqlalchemy import Column, Integer, Text, text

revision = "0011"
down_revision = "0010"

_NOT_GOOD = text("status <> 'good'")


def upgrade() -> None:
    """Create column, tables and indexes; every CRL that is here is a complete one."""
    op.add_column("crl", Column("scope", Text, nullable=False, server_default="complete"))
    op.create_table(
        "crl_base",
        Column("ca_id", Text, primary_key=True, nullable=False),
        Column("number", Integer, primary_key=True, nullable=False),
        Column("this_update", Integer, nullable=False),
        Column("through", Integer, nullable=False),
        Column("cutoff", Integer, nullable=False),
        Column("oldest_end", Integer, nullable=False),
    )
    op.create_table(
        "status_change",
        Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
        Column("ca_id", Text, nullable=False),
        Column("serial", Text, nullable=False),
        Column("at", Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("status_change_by_ca", "status_change", ["ca_id", "id"])
    op.create_index(
        "certificate_not_good_by_end", "certificate", ["ca_id", "not_after"], sqlite_where=_NOT_GOOD
    )
