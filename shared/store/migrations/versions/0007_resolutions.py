"""How open questions and events in quarantine ended, by whom and when."""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; what was settled before stays without them."""
    op.add_column("conflict", Column("resolution", Text, nullable=True))
    op.add_column("conflict", Column("settled_by", Text, nullable=True))
    op.add_column("conflict", Column("settled_at", Integer, nullable=True))
    op.create_index("conflict_by_state", "conflict", ["state", "id"])
    op.add_column("quarantine", Column("resolution", Text, nullable=True))
