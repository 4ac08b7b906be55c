"""Tables of status: CRLs on their way, and revocations by query."""

from sqlalchemy import Column, Index, Integer, Table

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: Parts of a gateway's CRL that is not complete here yet; of each scope one number, the newest. The
#: scope is that of a partition, or empty.
crl_part = Table(
    "crl_part",
    metadata,
    _key("ca_id"),
    _key("scope"),
    Column("part", Integer, primary_key=True, nullable=False),
    _int("number"),
    _int("parts"),
    _blob("der"),
)

#: Complete CRLs that the next delta may build on, and what they list: changes of status up to
#: ``through``, without certificates that ended before ``cutoff`` unless their revocation was new;
#: the first end of all that it lists is ``oldest_end``. Only of CAs whose key is here.
crl_base = Table(
    "crl_base",
    metadata,
    _key("ca_id"),
    Column("number", Integer, primary_key=True, nullable=False),
    _int("this_update"),
    _int("through"),
    _int("cutoff"),
    _int("oldest_end"),
)

#: Changes of status since the oldest base: what a delta lists. An id never comes twice, also not
#: after its row is gone.
status_change = Table(
    "status_change",
    metadata,
    Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
    _text("ca_id"),
    _text("serial"),
    _int("at"),
    Index("status_change_by_ca", "ca_id", "id"),
    sqlite_autoincrement=True,
)

#: Revocations by query (shared.issuance.mass_revocation). state: waiting (for a
#: second person), running, done, cancelled.
operation = Table(
    "operation",
    metadata,
    _key("operation_id"),
    _text("actor"),
    _text("document"),  # JSON: selection, reason, scopes
    _text("state"),
    _int("found"),
    _int("revoked"),
    _int("position"),  # the last row of ``certificate`` that was dealt with
    _int("through"),  # the last one that is meant: later ones are not
    _int("created_at"),
    _int("updated_at"),
    Index("operation_by_state", "state", "created_at"),
)
