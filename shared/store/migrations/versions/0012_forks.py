"""Histories of a second box of one name, kept until a person decides, and after."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "fork",
        Column("peer", Text, primary_key=True, nullable=False),
        Column("fork", Text, primary_key=True, nullable=False),
        Column("number", Integer, nullable=False),
        Column("segment", Text, nullable=False),
        Column("heads", LargeBinary, nullable=False),
        Column("state", Text, nullable=False),
        Column("boot_id", Text, nullable=False),
        Column("version", Text, nullable=False),
        Column("backlog", Integer, nullable=False),
        Column("of_trunk", Integer, nullable=False),
        Column("revoke", Integer, nullable=False),
        Column("reached", LargeBinary, nullable=False),
        Column("complete", Integer, nullable=False),
        Column("taken", Integer, nullable=False),
        Column("first_seen", Integer, nullable=False),
        Column("last_seen", Integer, nullable=False),
    )
    op.create_table(
        "fork_event",
        Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
        Column("peer", Text, nullable=False),
        Column("fork", Text, nullable=False),
        Column("segment", Text, nullable=False),
        Column("lane", Integer, nullable=False),
        Column("sequence", Integer, nullable=False),
        Column("type", Text, nullable=False),
        Column("hash", LargeBinary, nullable=False),
        Column("event", LargeBinary, nullable=False),
        Column("received_at", Integer, nullable=False),
        UniqueConstraint("peer", "fork", "segment", "lane", "sequence", "hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("fork_event_by_fork", "fork_event", ["peer", "fork", "id"])
