"""Who may enroll: aliases, requesters and manufacturers, device records, one-time codes."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, PrimaryKeyConstraint, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "device",
        Column("serial", Text, primary_key=True, nullable=False),
        Column("product", Text, nullable=False),
        Column("order_no", Text, nullable=False),
        Column("line", Text, nullable=False),
        Column("metadata", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("previous_line", Text),
        Column("revision", Integer, nullable=False),
        Column("updated_at", Integer, nullable=False),
    )
    op.create_index("device_by_revision", "device", ["revision"])
    op.create_index("device_by_product", "device", ["product", "serial"])
    op.create_index("device_by_order", "device", ["order_no", "serial"])
    op.create_index("device_by_line", "device", ["line", "serial"])
    op.create_table(
        "one_time_code",
        Column("digest", LargeBinary, primary_key=True, nullable=False),
        Column("serial", Text, nullable=False),
        Column("alias", Text, nullable=False),
        Column("gateway", Text, nullable=False),
        Column("spent_by", Text),
        Column("revision", Integer, nullable=False),
        Column("expires_at", Integer, nullable=False),
        Column("created_at", Integer, nullable=False),
    )
    op.create_index("one_time_code_by_serial", "one_time_code", ["serial"])
    op.create_index("one_time_code_by_gateway", "one_time_code", ["gateway", "revision"])
    op.create_table(
        "access_rule",
        Column("kind", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("document", Text, nullable=False),
        Column("updated_at", Integer, nullable=False),
        PrimaryKeyConstraint("kind", "name"),
    )
    op.create_table(
        "gateway_line",
        Column("gateway", Text, nullable=False),
        Column("line", Text, nullable=False),
        PrimaryKeyConstraint("gateway", "line"),
    )
