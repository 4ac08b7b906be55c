"""What gateways ask to be certified anew: identities on the link, and their CA's next period."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, PrimaryKeyConstraint, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "renewal",
        Column("gateway", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("document", LargeBinary, nullable=False),
        Column("requested_at", Integer, nullable=False),
        PrimaryKeyConstraint("gateway", "kind"),
    )
    op.add_column("gateway", Column("next_event_key", LargeBinary, nullable=True))
    op.add_column("gateway", Column("next_exchange_key", LargeBinary, nullable=True))
    op.add_column("gateway", Column("next_transport_serial", Text, nullable=True))
