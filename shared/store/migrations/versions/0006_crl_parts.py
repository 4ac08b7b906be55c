"""Parts of CRLs that are too large for one event."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, PrimaryKeyConstraint, Text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "crl_part",
        Column("ca_id", Text, nullable=False),
        Column("part", Integer, nullable=False),
        Column("number", Integer, nullable=False),
        Column("parts", Integer, nullable=False),
        Column("der", LargeBinary, nullable=False),
        PrimaryKeyConstraint("ca_id", "part"),
    )
