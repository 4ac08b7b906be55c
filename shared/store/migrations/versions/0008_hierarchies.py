"""Cross-certificates, and CAs that wait for a foreign CA's certificate."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, PrimaryKeyConstraint, Text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "cross_certificate",
        Column("sha256", Text, nullable=False),
        Column("ca_id", Text, nullable=False),
        Column("issuer_id", Text, nullable=False),
        Column("der", LargeBinary, nullable=False),
        Column("created_at", Integer, nullable=False),
        PrimaryKeyConstraint("sha256"),
    )
    op.create_index("cross_certificate_by_ca", "cross_certificate", ["ca_id"])
    op.create_table(
        "ca_request",
        Column("ca_id", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("tenant", Text, nullable=False),
        Column("csr", LargeBinary, nullable=False),
        Column("created_at", Integer, nullable=False),
        PrimaryKeyConstraint("ca_id"),
    )
