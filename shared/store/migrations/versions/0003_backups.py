"""Backups with what they cover, and events that were deleted before they were archived."""

from alembic import op
from sqlalchemy import Column, Integer, PrimaryKeyConstraint, Text

revision = "0003"
down_revision = "0002"


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _int(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def upgrade() -> None:
    """Create the three tables."""
    place = ("peer", "segment", "lane")
    op.create_table(
        "pruned",
        _text("peer"),
        _text("segment"),
        _int("lane"),
        _int("through"),
        PrimaryKeyConstraint(*place),
    )
    op.create_table(
        "backup",
        _text("backup_id"),
        _text("path"),
        _text("state"),
        *map(_int, ("counts", "bytes", "events", "lanes", "created_at", "verified_at")),
        PrimaryKeyConstraint("backup_id"),
    )
    op.create_index("backup_by_state", "backup", ["state", "created_at"])
    op.create_table(
        "backup_cursor",
        _text("backup_id"),
        _text("peer"),
        _text("segment"),
        _int("lane"),
        _int("applied"),
        PrimaryKeyConstraint("backup_id", *place),
    )
