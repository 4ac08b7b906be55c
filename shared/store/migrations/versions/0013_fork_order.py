"""Claims are listed by when they were first seen; a number of their own said the same twice."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Drop the number."""
    op.drop_column("fork", "number")
