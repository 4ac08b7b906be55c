"""Tables of search at central: what objects may be found by, and queries that people keep."""

from sqlalchemy import Column, Index, Integer, Table

from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: What certificates can be found by besides the columns of their row (central.inventory.terms):
#: values are case-folded. Written behind the row by a task of its own: issuing does not pay for it.
term = Table(
    "term",
    metadata,
    _key("name"),
    _key("value"),
    Column("id", Integer, primary_key=True, nullable=False),  # of ``certificate``
    Index("term_by_certificate", "id"),
    sqlite_with_rowid=False,
)

#: Rows of ``certificate`` that were filled in after the task had passed them.
term_lacking = Table(
    "term_lacking",
    metadata,
    Column("id", Integer, primary_key=True, nullable=False, autoincrement=False),
)

#: What people say of CAs, gateways and other objects (central.metadata); ids are of their kind.
object_metadata = Table(
    "object_metadata",
    metadata,
    _key("kind"),
    _key("id"),
    _key("name"),
    _text("value"),
    Index("object_metadata_by_pair", "kind", "name", "value", "id"),
    sqlite_with_rowid=False,
)

#: Queries that somebody keeps; a shared one is offered to all.
saved_query = Table(
    "saved_query",
    metadata,
    _key("owner"),
    _key("name"),
    _text("query"),
    _int("shared"),
    _int("created_at"),
)
