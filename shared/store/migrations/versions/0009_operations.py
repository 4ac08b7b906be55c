"""Revocations by query."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the table and its index."""
    op.create_table(
        "operation",
        Column("operation_id", Text, primary_key=True, nullable=False),
        Column("actor", Text, nullable=False),
        Column("document", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("found", Integer, nullable=False),
        Column("revoked", Integer, nullable=False),
        Column("position", Integer, nullable=False),
        Column("through", Integer, nullable=False),
        Column("created_at", Integer, nullable=False),
        Column("updated_at", Integer, nullable=False),
    )
    op.create_index("operation_by_state", "operation", ["state", "created_at"])
