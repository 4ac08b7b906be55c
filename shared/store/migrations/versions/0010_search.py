"""Search by any attribute, and saved queries."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the tables; central's task fills in what is there already."""
    op.create_table(
        "term",
        Column("name", Text, primary_key=True, nullable=False),
        Column("value", Text, primary_key=True, nullable=False),
        Column("id", Integer, primary_key=True, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("term_by_certificate", "term", ["id"])
    op.create_table(
        "term_lacking",
        Column("id", Integer, primary_key=True, nullable=False, autoincrement=False),
    )
    op.create_table(
        "saved_query",
        Column("owner", Text, primary_key=True, nullable=False),
        Column("name", Text, primary_key=True, nullable=False),
        Column("query", Text, nullable=False),
        Column("shared", Integer, nullable=False),
        Column("created_at", Integer, nullable=False),
    )
