"""The tables of version 1, as they were then: this module never follows schema.py."""

from alembic import op
from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    _create_issuing()
    _create_rules()
    _create_replication()
    _create_box()
    _create_central()


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _int(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _blob(name: str, *, null: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=null)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _create_issuing() -> None:
    op.create_table(
        "ca",
        _text("ca_id"),
        _text("name"),
        _text("kind"),
        _text("parent_id", null=True),
        _text("gateway", null=True),
        _blob("der"),
        _text("key_uri", null=True),
        _text("state"),
        _int("issue_until", null=True),
        _int("not_after"),
        _int("crl_number"),
        _int("created_at"),
        PrimaryKeyConstraint("ca_id"),
    )
    op.create_index("ca_by_gateway", "ca", ["gateway"])
    op.create_table(
        "intent",
        _text("idempotency_key"),
        _text("intent_id"),
        _text("ca_id"),
        _text("serial"),
        _blob("request_hash"),
        _text("device_id", null=True),
        _text("profile"),
        _text("purpose"),
        _blob("document"),
        _int("created_at"),
        PrimaryKeyConstraint("idempotency_key"),
        UniqueConstraint("device_id", "profile", "purpose", name="intent_one_per_device"),
    )
    _create_certificate()
    op.create_table(
        "hold",
        _text("ca_id"),
        _text("serial"),
        _text("hold_id"),
        _text("actor"),
        _int("held_at"),
        _int("released_at", null=True),
        PrimaryKeyConstraint("ca_id", "serial", "hold_id"),
    )
    op.create_table(
        "crl",
        _text("ca_id"),
        _int("number"),
        _blob("der"),
        _int("this_update"),
        _int("next_update"),
        PrimaryKeyConstraint("ca_id", "number"),
    )
    op.create_table(
        "grant_use",
        _text("grant_id"),
        _int("version"),
        _int("quota"),
        _int("used"),
        _text("state"),
        _blob("document"),
        PrimaryKeyConstraint("grant_id"),
    )


def _create_rules() -> None:
    op.create_table(
        "profile",
        _text("name"),
        _int("version"),
        _text("sha256"),
        _text("document"),
        _text("state"),
        _int("created_at"),
        PrimaryKeyConstraint("name", "version"),
    )
    op.create_table(
        "directive",
        _text("peer"),
        _text("kind"),
        _text("subject"),
        _text("incarnation"),
        _int("number"),
        _blob("envelope"),
        _int("created_at"),
        PrimaryKeyConstraint("peer", "kind", "subject"),
    )


def _create_replication() -> None:
    op.create_table(
        "segment",
        _text("peer"),
        _text("direction"),
        _text("segment"),
        _int("number"),
        _text("parent", null=True),
        _blob("parent_heads", null=True),
        _int("start_counter"),
        _text("boot_id"),
        _text("version"),
        _text("state"),
        _int("opened_at"),
        PrimaryKeyConstraint("peer", "direction", "segment"),
    )
    op.create_index("segment_by_parent", "segment", ["peer", "direction", "parent"])
    op.create_index("segment_by_state", "segment", ["peer", "direction", "state", "number"])
    op.create_table(
        "outbox",
        _text("peer"),
        _text("segment"),
        _int("lane"),
        _int("sequence"),
        _text("type"),
        _int("created_at"),
        _blob("hash"),
        _blob("event"),
        PrimaryKeyConstraint("peer", "segment", "lane", "sequence"),
    )
    op.create_table(
        "inbox_event",
        _text("peer"),
        _text("segment"),
        _int("lane"),
        _int("sequence"),
        _text("type"),
        _int("received_at"),
        _blob("hash"),
        _blob("event"),
        PrimaryKeyConstraint("peer", "segment", "lane", "sequence"),
    )
    op.create_table(
        "cursor",
        _text("peer"),
        _text("direction"),
        _text("segment"),
        _int("lane"),
        _int("applied"),
        _int("archived"),
        _blob("hash"),
        _int("updated_at"),
        PrimaryKeyConstraint("peer", "direction", "segment", "lane"),
    )
    op.create_table(
        "quarantine",
        _text("peer"),
        _text("segment"),
        _int("lane"),
        _int("sequence"),
        _text("reason"),
        _blob("event"),
        _int("created_at"),
        _int("resolved_at", null=True),
        PrimaryKeyConstraint("peer", "segment", "lane", "sequence"),
    )


def _create_box() -> None:
    op.create_table(
        "key_envelope",
        _text("name"),
        _int("version"),
        _blob("envelope"),
        _int("created_at"),
        _int("expires_at", null=True),
        PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "station",
        _text("name"),
        _text("role"),
        _blob("token_hash", null=True),
        _text("cert_sha256", null=True),
        _text("profiles"),
        _int("created_at"),
        _int("expires_at", null=True),
        _int("revoked_at", null=True),
        PrimaryKeyConstraint("name"),
        UniqueConstraint("cert_sha256", name="station_certificate_once"),
        UniqueConstraint("token_hash", name="station_token_once"),
    )
    op.create_table(
        "idempotency",
        _text("principal"),
        _text("route"),
        _text("key"),
        _blob("body_hash"),
        _int("http_status"),
        _blob("body"),
        _int("created_at"),
        PrimaryKeyConstraint("principal", "route", "key"),
    )
    op.create_table(
        "fact",
        _text("name"),
        _text("value"),
        PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counter",
        _text("name"),
        _int("value"),
        PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )


def _create_central() -> None:
    op.create_table(
        "gateway",
        _text("name"),
        _text("state"),
        _text("state_reason"),
        _blob("join_secret_hash", null=True),
        _int("join_expires_at", null=True),
        _blob("join_request_hash", null=True),
        _blob("join_answer", null=True),
        _blob("event_key", null=True),
        _blob("exchange_key", null=True),
        _text("transport_serial", null=True),
        _text("version", null=True),
        _text("link", null=True),
        _int("link_since", null=True),
        _int("last_contact", null=True),
        _int("backlog", null=True),
        _int("created_at"),
        PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "conflict",
        _id(),
        _text("kind"),
        _text("gateway"),
        _text("subject"),
        _text("detail"),
        _text("state"),
        _int("created_at"),
    )
    op.create_table(
        "user",
        _text("name"),
        _text("password_hash"),
        _text("role"),
        _int("failed_logins"),
        _int("locked_until", null=True),
        _int("created_at"),
        PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "session",
        _text("token_hash"),
        _text("user"),
        _int("created_at"),
        _int("seen_at"),
        _int("expires_at"),
        PrimaryKeyConstraint("token_hash"),
        ForeignKeyConstraint(["user"], ["user.name"]),
    )
    op.create_table(
        "audit",
        _id(),
        _int("at"),
        _text("actor"),
        _text("action"),
        _text("subject"),
        _text("detail"),
        _blob("hash"),
    )


def _create_certificate() -> None:
    op.create_table(
        "certificate",
        _id(),
        _text("ca_id"),
        _text("serial"),
        _text("origin"),
        _text("state"),
        _text("status"),
        _blob("der", null=True),
        _text("sha256", null=True),
        _text("subject_cn", null=True),
        _text("device_id", null=True),
        _text("profile", null=True),
        _int("profile_version", null=True),
        _text("purpose", null=True),
        _text("principal", null=True),
        _text("protocol", null=True),
        _text("alias", null=True),
        _text("grant_id", null=True),
        _text("clock_quality", null=True),
        _int("test"),
        _int("not_before", null=True),
        _int("not_after", null=True),
        _int("issued_at"),
        _int("revoked_at", null=True),
        _text("reason", null=True),
        _text("replaces", null=True),
        _text("metadata", null=True),
        _text("idempotency_key", null=True),
        _blob("request_hash", null=True),
        _int("replay_until", null=True),
        UniqueConstraint("serial", "ca_id", name="certificate_serial_once"),
    )
    op.create_index("certificate_by_ca", "certificate", ["ca_id", "id"])
    op.create_index(
        "certificate_by_cn",
        "certificate",
        ["subject_cn", "id"],
        sqlite_where=text("subject_cn IS NOT NULL"),
    )
    op.create_index(
        "certificate_by_device",
        "certificate",
        ["device_id", "id"],
        sqlite_where=text("device_id IS NOT NULL"),
    )
    op.create_index(
        "certificate_by_key",
        "certificate",
        ["idempotency_key"],
        sqlite_where=text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "certificate_by_origin", "certificate", ["origin", "id"], sqlite_where=text("origin <> ''")
    )
    op.create_index("certificate_by_profile", "certificate", ["profile", "id"])
    op.create_index("certificate_by_sha256", "certificate", ["sha256"])
    op.create_index(
        "certificate_not_good_by_status",
        "certificate",
        ["status", "id"],
        sqlite_where=text("status <> 'good'"),
    )
    op.create_index(
        "certificate_not_good_of_ca",
        "certificate",
        ["ca_id", "id"],
        sqlite_where=text("status <> 'good'"),
    )
