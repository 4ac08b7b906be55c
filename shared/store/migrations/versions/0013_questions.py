"""Questions are found by gateway; claims are listed by when they were first seen."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the index; drop the number of a claim, which said the same as its time."""
    op.create_index("conflict_by_gateway", "conflict", ["gateway", "state", "id"])
    op.drop_column("fork", "number")
