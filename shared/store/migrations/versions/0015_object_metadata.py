"""Metadata of CAs, gateways, stations, profiles and users."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the table, and the index by which objects are found."""
    op.create_table(
        "object_metadata",
        Column("kind", Text, primary_key=True, nullable=False),
        Column("id", Text, primary_key=True, nullable=False),
        Column("name", Text, primary_key=True, nullable=False),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("object_metadata_by_pair", "object_metadata", ["kind", "name", "value", "id"])
