"""People: roles by scope, API tokens, cards, approvals, audit checkpoints.

A user's one role becomes an assignment that holds everywhere; sessions end (people log in again).
"""

from alembic import op
from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
)

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables, and carry over who may do what."""
    op.add_column("ca", _text("tenant", null=True))
    _rebuild_users()
    _create_rights()
    _create_logins()
    _create_approval()
    for column in ("actor", "action", "subject"):
        op.create_index(f"audit_by_{column}", "audit", [column, "id"])
    op.create_table(
        "audit_checkpoint",
        Column("audit_id", Integer, primary_key=True, autoincrement=False, nullable=False),
        _blob("envelope"),
        _int("created_at"),
    )


def _rebuild_users() -> None:
    op.drop_table("session")
    op.rename_table("user", "user_before")
    op.create_table(
        "user",
        _text("name"),
        _text("password_hash"),
        _int("must_change"),
        _int("failed_logins"),
        _int("locked_until", null=True),
        _int("created_at"),
        _int("disabled_at", null=True),
        _int("last_login", null=True),
        PrimaryKeyConstraint("name"),
    )
    op.execute(
        'INSERT INTO "user" (name, password_hash, must_change, failed_logins, locked_until, '
        "created_at) SELECT name, password_hash, 0, failed_logins, locked_until, created_at "
        "FROM user_before"
    )


def _create_rights() -> None:
    op.create_table(
        "role",
        _text("name"),
        _text("permissions"),
        _int("created_at"),
        PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "assignment",
        _text("user"),
        _text("role"),
        _text("scope"),
        _int("created_at"),
        PrimaryKeyConstraint("user", "role", "scope"),
        ForeignKeyConstraint(["user"], ["user.name"]),
    )
    op.execute(
        'INSERT INTO assignment ("user", role, scope, created_at) '
        "SELECT name, role, '*', created_at FROM user_before"
    )
    op.drop_table("user_before")


def _create_logins() -> None:
    op.create_table(
        "api_token",
        _text("id"),
        _text("user"),
        _text("name"),
        _blob("token_hash"),
        _text("permissions", null=True),
        _text("scope"),
        _int("created_at"),
        _int("expires_at"),
        _int("revoked_at", null=True),
        PrimaryKeyConstraint("id"),
        ForeignKeyConstraint(["user"], ["user.name"]),
        UniqueConstraint("token_hash", name="api_token_once"),
    )
    op.create_index("api_token_by_user", "api_token", ["user"])
    op.create_table(
        "user_certificate",
        _text("sha256"),
        _text("user"),
        _text("subject"),
        _int("not_after"),
        _int("created_at"),
        PrimaryKeyConstraint("sha256"),
        ForeignKeyConstraint(["user"], ["user.name"]),
    )
    op.create_index("user_certificate_by_user", "user_certificate", ["user"])
    op.create_table(
        "session",
        _blob("token_hash"),
        _text("id"),
        _text("user"),
        _text("how"),
        _text("address"),
        _text("agent"),
        _int("created_at"),
        _int("seen_at"),
        _int("expires_at"),
        PrimaryKeyConstraint("token_hash"),
        ForeignKeyConstraint(["user"], ["user.name"]),
    )
    op.create_index("session_by_user", "session", ["user"])
    op.create_table(
        "login_ticket",
        _blob("ticket_hash"),
        _text("user"),
        _int("expires_at"),
        PrimaryKeyConstraint("ticket_hash"),
    )


def _create_approval() -> None:
    op.create_table(
        "approval",
        Column("id", Integer, primary_key=True, autoincrement=True, nullable=False),
        _text("kind"),
        _text("subject"),
        _text("permission"),
        _text("scope"),
        _text("content"),
        _blob("content_hash"),
        _text("state"),
        _text("requested_by"),
        _int("requested_at"),
        _int("expires_at"),
        _text("decided_by", null=True),
        _int("decided_at", null=True),
        _text("remark", null=True),
    )
    op.create_index("approval_by_state", "approval", ["state", "id"])


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _int(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _blob(name: str, *, null: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=null)
