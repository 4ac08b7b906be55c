"""Requests that gateways forward to central."""

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the tables of both sides."""
    op.create_table(
        "forwarded",
        Column("reference", Text, primary_key=True, nullable=False),
        Column("idempotency_key", Text, nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        Column("replay_us", Integer, nullable=False),
        Column("profile", Text, nullable=False),
        Column("principal", Text, nullable=False),
        Column("public_key", LargeBinary, nullable=False),
        Column("code", LargeBinary),
        Column("state", Text, nullable=False),
        Column("ca_id", Text),
        Column("serial", Text),
        Column("rule", Text),
        Column("value", Text),
        Column("message", Text),
        Column("remedy", Text),
        Column("created_at", Integer, nullable=False),
        Column("answered_at", Integer),
        Column("told_at", Integer),
    )
    op.create_index("forwarded_by_key", "forwarded", ["idempotency_key", "created_at"])
    op.create_index("forwarded_by_state", "forwarded", ["state", "answered_at"])
    op.create_table(
        "forward_request",
        Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
        Column("gateway", Text, nullable=False),
        Column("reference", Text, nullable=False),
        Column("document", LargeBinary, nullable=False),
        Column("received_at", Integer, nullable=False),
        UniqueConstraint("gateway", "reference", name="forward_request_once"),
    )
