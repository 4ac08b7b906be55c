"""The tables of people at central: users, what they may, how they get in, approvals."""

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: People and programs. An empty password_hash: no login by password (a program, or card only).
user = Table(
    "user",
    metadata,
    _key("name"),
    _text("password_hash"),
    _int("must_change"),  # 1: the password is a first one that somebody else knows
    _int("failed_logins"),
    _int("locked_until", null=True),
    _int("created_at"),
    _int("disabled_at", null=True),
    _int("last_login", null=True),
)

#: Roles beside those of shared.policy.rights; permissions is a JSON list.
role = Table("role", metadata, _key("name"), _text("permissions"), _int("created_at"))

#: Who has which role where; scope as ``Scope.text`` writes it.
assignment = Table(
    "assignment",
    metadata,
    _key("user"),
    _key("role"),
    _key("scope"),
    _int("created_at"),
    ForeignKeyConstraint(["user"], ["user.name"]),
)

#: Tokens of users: each may at most what its user may, narrowed by permissions and scope.
api_token = Table(
    "api_token",
    metadata,
    _key("id"),
    _text("user"),
    _text("name"),
    _blob("token_hash"),
    _text("permissions", null=True),  # JSON list; null: all that the user may
    _text("scope"),
    _int("created_at"),
    _int("expires_at"),
    _int("revoked_at", null=True),
    ForeignKeyConstraint(["user"], ["user.name"]),
    UniqueConstraint("token_hash", name="api_token_once"),
    Index("api_token_by_user", "user"),
)

#: Client certificates and cards of users, each bound by the SHA-256 of its DER.
user_certificate = Table(
    "user_certificate",
    metadata,
    _key("sha256"),
    _text("user"),
    _text("subject"),
    _int("not_after"),
    _int("created_at"),
    ForeignKeyConstraint(["user"], ["user.name"]),
    Index("user_certificate_by_user", "user"),
)

session = Table(
    "session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True, nullable=False),
    _text("id"),  # names it in lists; worthless to whoever reads it
    _text("user"),
    _text("how"),  # password, card
    _text("address"),
    _text("agent"),
    _int("created_at"),
    _int("seen_at"),
    _int("expires_at"),
    ForeignKeyConstraint(["user"], ["user.name"]),
    Index("session_by_user", "user"),
)

#: What the card port hands to the port of the pages: works once, for seconds.
login_ticket = Table(
    "login_ticket",
    metadata,
    Column("ticket_hash", LargeBinary, primary_key=True, nullable=False),
    _text("user"),
    _int("expires_at"),
)

#: What waits for a second person. content is the canonical JSON that is carried out as it stands.
approval = Table(
    "approval",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _text("kind"),
    _text("subject"),
    _text("permission"),
    _text("scope"),  # the place, as Scope.text writes it
    _text("content"),
    _blob("content_hash"),
    _text("state"),  # pending, done, refused, expired
    _text("requested_by"),
    _int("requested_at"),
    _int("expires_at"),
    _text("decided_by", null=True),
    _int("decided_at", null=True),
    _text("remark", null=True),
    Index("approval_by_state", "state", "id"),
)

#: Heads of the audit log, signed by the directive key: what is missing at the end shows.
audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("audit_id", Integer, primary_key=True, autoincrement=False, nullable=False),
    _blob("envelope"),
    _int("created_at"),
)
