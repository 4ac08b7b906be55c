"""Tables of requests that a gateway forwards to central (design.md §4, mode ``forward``)."""

from sqlalchemy import Column, Index, Integer, Table, UniqueConstraint

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: At the gateway. state: waiting, issued, refused. The newest row of a key counts.
forwarded = Table(
    "forwarded",
    metadata,
    _key("reference"),  # the id of the event that told central
    _text("idempotency_key"),
    _blob("request_hash"),
    _int("replay_us"),  # how long its certificate is given again
    _text("profile"),
    _text("principal"),
    _blob("public_key"),
    _blob("code", null=True),  # the one-time code that was spent for it
    _text("state"),
    _text("ca_id", null=True),
    _text("serial", null=True),
    _text("rule", null=True),
    _text("value", null=True),
    _text("message", null=True),
    _text("remedy", null=True),
    _int("created_at"),
    _int("answered_at", null=True),
    _int("told_at", null=True),  # when somebody first heard of the refusal
    Index("forwarded_by_key", "idempotency_key", "created_at"),
    Index("forwarded_by_state", "state", "answered_at"),
)

#: At central: what is not answered yet. What was answered is a directive.
forward_request = Table(
    "forward_request",
    metadata,
    Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
    _text("gateway"),
    _text("reference"),
    _blob("document"),  # CBOR: the body of ``enrollment.forwarded``
    _int("received_at"),
    UniqueConstraint("gateway", "reference", name="forward_request_once"),
)
