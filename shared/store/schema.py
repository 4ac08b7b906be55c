"""The tables. Columns are INTEGER, TEXT and BLOB only, so that the writer needs no bind processors.

Times are UTC µs. ``peer`` is the other side of a link: ``_central`` at a gateway, the gateway's
name at central. Serials are lower-case hex. Both products have every table of the first part.
"""

from sqlalchemy import (
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text
from shared.store.schema_authority import (
    access_rule,
    ca_request,
    cross_certificate,
    gateway_line,
    renewal,
)
from shared.store.schema_forward import forward_request, forwarded
from shared.store.schema_people import (
    api_token,
    approval,
    assignment,
    audit_checkpoint,
    login_ticket,
    role,
    session,
    user,
    user_certificate,
)
from shared.store.schema_search import object_metadata, saved_query, term, term_lacking
from shared.store.schema_status import crl_base, crl_part, operation, status_change
from shared.store.schema_sync import fork, fork_event

#: Tables that stand in files of their own and are imported from here like all others.
AUTHORITY = (access_rule, ca_request, cross_certificate, gateway_line, renewal)
PEOPLE = (
    api_token,
    approval,
    assignment,
    audit_checkpoint,
    login_ticket,
    role,
    session,
    user,
    user_certificate,
)
FORWARD = (forward_request, forwarded)
STATUS = (crl_base, crl_part, operation, status_change)
SEARCH = (object_metadata, saved_query, term, term_lacking)
SYNC = (fork, fork_event)


def _partial_index(name: str, column: str, *more: str) -> Index:
    """Index the rows that have the column: the others cost nothing at each issue."""
    return Index(name, column, *more, sqlite_where=text(f"{column} IS NOT NULL"))


#: The condition of the index of what a CRL lists. SQLite uses a partial index only for queries
#: that say exactly this.
NOT_GOOD = text("status <> 'good'")
#: The condition of the index by origin: a gateway, where all is its own, does not pay for it.
REPORTED = text("origin <> ''")

#: CAs this box knows. kind: root, sub, fleet, issuing, gateway, transport_root, or foreign: it is
#: trusted, but its key is elsewhere. state: active, retired, ended.
ca = Table(
    "ca",
    metadata,
    _key("ca_id"),
    _text("name"),
    _text("kind"),
    _text("parent_id", null=True),
    _text("gateway", null=True),
    _blob("der"),
    _text("key_uri", null=True),  # where the private key is; null: not here
    _text("state"),
    _int("issue_until", null=True),
    _int("not_after"),
    _int("crl_number"),
    _int("created_at"),
    _text("tenant", null=True),  # whose it is; null: the installation's
    _text("crl_partitions", null=True),  # JSON (shared.pki.partitions); null: never had any
    Index("ca_by_gateway", "gateway"),
)

#: Open intents only: completing or voiding deletes the row.
intent = Table(
    "intent",
    metadata,
    _key("idempotency_key"),
    _text("intent_id"),
    _text("ca_id"),
    _text("serial"),
    _blob("request_hash"),
    _text("device_id", null=True),
    _text("profile"),
    _text("purpose"),
    _blob("document"),  # JSON of the whole intent with its TBS: what a crash leaves is finished
    _int("created_at"),
    UniqueConstraint("device_id", "profile", "purpose", name="intent_one_per_device"),
)

#: Every certificate, own (origin '') or reported by a gateway (origin = its name): the ledger of
#: the gateway and the inventory of central are one table, so that search, CRL and OCSP are one
#: code path. state: issued, voided, stub. der is null for voided serials and stubs.
certificate = Table(
    "certificate",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _text("ca_id"),
    _text("serial"),
    _text("origin"),
    _text("state"),
    _text("status"),  # good, hold, revoked
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
    _text("replaces", null=True),  # "ca_id/serial"
    _text("metadata", null=True),  # JSON object of text pairs
    _text("idempotency_key", null=True),
    _blob("request_hash", null=True),
    _int("replay_until", null=True),
    UniqueConstraint("serial", "ca_id", name="certificate_serial_once"),
    _partial_index("certificate_by_key", "idempotency_key"),
    _partial_index("certificate_by_device", "device_id", "id"),
    _partial_index("certificate_by_cn", "subject_cn", "id"),
    Index("certificate_by_sha256", "sha256"),
    Index("certificate_by_origin", "origin", "id", sqlite_where=REPORTED),
    Index("certificate_by_ca", "ca_id", "id"),
    Index("certificate_by_profile", "profile", "id"),
    Index("certificate_not_good_of_ca", "ca_id", "id", sqlite_where=NOT_GOOD),
    Index("certificate_not_good_by_status", "status", "id", sqlite_where=NOT_GOOD),
    Index("certificate_not_good_by_end", "ca_id", "not_after", sqlite_where=NOT_GOOD),
)

#: The last octet of a serial number in hex: it decides the partition (shared.pki.partitions).
LAST_OCTET = func.substr(
    certificate.c.serial, func.length(certificate.c.serial) - text("1"), type_=Text()
)
Index(
    "certificate_not_good_by_octet",
    certificate.c.ca_id,
    LAST_OCTET,
    certificate.c.id,
    sqlite_where=NOT_GOOD,
)

#: Holds are a set of hold ids: a released id stays, so that a replayed hold never holds again.
hold = Table(
    "hold",
    metadata,
    _key("ca_id"),
    _key("serial"),
    _key("hold_id"),
    _text("actor"),
    _int("held_at"),
    _int("released_at", null=True),
)

#: Scopes of CRLs: all that is revoked, or what changed (RFC 5280 §5.2.4). Those of partitions are
#: written as ``shared.pki.partitions.Partition`` is.
COMPLETE, DELTA = "complete", "delta"
#: The newest CRL of each scope. All scopes of a CA share its numbers, so that a delta is always
#: younger than the complete CRL that was signed before it. ``through``: the last change of status
#: that it surely shows; only where the CA's key is.
crl = Table(
    "crl",
    metadata,
    _key("ca_id"),
    Column("number", Integer, primary_key=True, nullable=False),
    _blob("der"),
    _int("this_update"),
    _int("next_update"),
    Column("scope", Text, nullable=False, server_default=COMPLETE),
    Column("through", Integer, nullable=False, server_default="0"),
    # Whatever is asked but the DER, which SQLite would else go through, page by page, to what is
    # behind it: with 64 partitions of 700 kB that took most of the time of saving each.
    Index("crl_by_scope", "ca_id", "scope", "number", "this_update", "next_update", "through"),
)

grant_use = Table(
    "grant_use",
    metadata,
    _key("grant_id"),
    _int("version"),
    _int("quota"),
    _int("used"),
    _text("state"),  # active, ended
    _blob("document"),
)

profile = Table(
    "profile",
    metadata,
    _key("name"),
    Column("version", Integer, primary_key=True, nullable=False),
    _text("sha256"),
    _text("document"),
    _text("state"),  # draft, active, superseded, withdrawn
    _int("created_at"),
)

#: Signed directives held (gateway) or given (central); newest per kind is in force.
directive = Table(
    "directive",
    metadata,
    _key("peer"),
    _key("kind"),
    _key("subject"),  # what it is about: '' for the bundle, a grant id, "ca_id/serial"
    _text("incarnation"),
    _int("number"),
    _blob("envelope"),
    _int("created_at"),
)

#: One row per (peer, direction, segment). state of ours: open, sealed (no more events), drained
#: (sealed, and all of it applied by the peer), archived (and all of it in a backup of the peer);
#: of theirs: open, ended (by a join).
segment = Table(
    "segment",
    metadata,
    _key("peer"),
    _key("direction"),  # out: ours; in: theirs
    _key("segment"),
    _int("number"),  # in the order in which they came
    _text("parent", null=True),
    _blob("parent_heads", null=True),  # CBOR {lane: [sequence, hash]}
    _int("start_counter"),
    _text("boot_id"),
    _text("version"),
    _text("state"),
    _int("opened_at"),
    Index("segment_by_parent", "peer", "direction", "parent"),
    Index("segment_by_state", "peer", "direction", "state", "number"),
)

outbox = Table(
    "outbox",
    metadata,
    _key("peer"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),  # 0 urgent, 1 normal
    Column("sequence", Integer, primary_key=True, nullable=False),  # from 1, no gaps
    _text("type"),
    _int("created_at"),
    _blob("hash"),
    _blob("event"),  # last: what stands before it is read without it
)

#: Raw events as received, in order: all effects can be computed again from them.
inbox_event = Table(
    "inbox_event",
    metadata,
    _key("peer"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),
    Column("sequence", Integer, primary_key=True, nullable=False),
    _text("type"),
    _int("received_at"),
    _blob("hash"),
    _blob("event"),
)

#: How far each lane is: direction in = contiguously applied here; out = confirmed by the peer.
cursor = Table(
    "cursor",
    metadata,
    _key("peer"),
    _key("direction"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),
    _int("applied"),
    _int("archived"),
    _blob("hash"),
    _int("updated_at"),
)

quarantine = Table(
    "quarantine",
    metadata,
    _key("peer"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),
    Column("sequence", Integer, primary_key=True, nullable=False),
    _text("reason"),
    _blob("event"),
    _int("created_at"),
    _int("resolved_at", null=True),
    _text("resolution", null=True),  # applied, or "discarded: " and why
)

#: Events of ours that were deleted although the peer had them in no backup: the opt-in rule of
#: ``shared.store.pruning``. The row goes once the peer has archived ``through``.
pruned = Table(
    "pruned",
    metadata,
    _key("peer"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),
    _int("through"),
)

#: Backups that were made and read back. state: held, missing, damaged, dropped. counts: 1 if it
#: takes part in rotation and moves the archived watermark.
backup = Table(
    "backup",
    metadata,
    _key("backup_id"),
    _text("path"),
    _text("state"),
    _int("counts"),
    _int("bytes"),
    _int("events"),
    _int("lanes"),
    _int("created_at"),
    _int("verified_at"),
    Index("backup_by_state", "state", "created_at"),
)

#: What a held backup covers that was not archived before it.
backup_cursor = Table(
    "backup_cursor",
    metadata,
    _key("backup_id"),
    _key("peer"),
    _key("segment"),
    Column("lane", Integer, primary_key=True, nullable=False),
    _int("applied"),
)

#: Secrets at rest, wrapped (shared.pki.keywrap): AAD binds table, name and version.
key_envelope = Table(
    "key_envelope",
    metadata,
    _key("name"),
    _int("version"),
    _blob("envelope"),
    _int("created_at"),
    _int("expires_at", null=True),
)

#: Places and programs that may ask: stations with a token or a client certificate, API users.
station = Table(
    "station",
    metadata,
    _key("name"),
    _text("role"),  # station, admin, auditor
    _blob("token_hash", null=True),
    _text("cert_sha256", null=True),
    _text("profiles"),  # JSON list; ["*"] for all
    _int("created_at"),
    _int("expires_at", null=True),
    _int("revoked_at", null=True),
    UniqueConstraint("token_hash", name="station_token_once"),
    UniqueConstraint("cert_sha256", name="station_certificate_once"),
)

#: Device records. ``revision`` counts changes at central; a gateway keeps the directive's number.
device = Table(
    "device",
    metadata,
    _key("serial"),
    _text("product"),
    _text("order_no"),
    _text("line"),
    _text("metadata"),  # JSON object of text pairs
    _text("state"),  # active, removed
    _text("previous_line", null=True),  # central: where it was known before it moved
    _int("revision"),
    _int("updated_at"),
    Index("device_by_revision", "revision"),
    Index("device_by_product", "product", "serial"),
    Index("device_by_order", "order_no", "serial"),
    Index("device_by_line", "line", "serial"),
)

#: One-time codes, by hash. ``gateway`` is where it may be spent; '' at a gateway: here.
one_time_code = Table(
    "one_time_code",
    metadata,
    Column("digest", LargeBinary, primary_key=True, nullable=False),
    _text("serial"),
    _text("alias"),  # "*": any
    _text("gateway"),
    _text("spent_by", null=True),  # the idempotency key of the request that spent it
    _int("revision"),
    _int("expires_at"),
    _int("created_at"),
    Index("one_time_code_by_serial", "serial"),
    Index("one_time_code_by_gateway", "gateway", "revision"),
)

#: Answers to POSTs that issue nothing, by Idempotency-Key.
idempotency = Table(
    "idempotency",
    metadata,
    _key("principal"),
    _key("route"),
    _key("key"),
    _blob("body_hash"),
    _int("http_status"),
    _blob("body"),
    _int("created_at"),
)

#: Small facts: line state, last contact, incarnation, start counter, clock ratchet.
fact = Table("fact", metadata, _key("name"), _text("value"), sqlite_with_rowid=False)

#: Maintained counters: no page ever counts rows.
counter = Table("counter", metadata, _key("name"), _int("value"), sqlite_with_rowid=False)

# --- central only -----------------------------------------------------------------------------

gateway = Table(
    "gateway",
    metadata,
    _key("name"),
    _text("state"),  # invited, active, cloned, restored, ended
    _text("state_reason"),
    _blob("join_secret_hash", null=True),
    _int("join_expires_at", null=True),
    _blob("join_request_hash", null=True),
    _blob("join_answer", null=True),
    _blob("event_key", null=True),  # SPKI of the event-signing key
    _blob("exchange_key", null=True),
    _text("transport_serial", null=True),
    _text("version", null=True),
    _text("link", null=True),  # online, offline
    _int("link_since", null=True),
    _int("last_contact", null=True),
    _int("backlog", null=True),  # events the gateway said it still holds unsent
    _int("created_at"),
    _blob("next_event_key", null=True),  # asked for and certified, not adopted yet
    _blob("next_exchange_key", null=True),
    _text("next_transport_serial", null=True),
)

conflict = Table(
    "conflict",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _text("kind"),
    _text("gateway"),
    _text("subject"),
    _text("detail"),  # JSON
    _text("state"),  # open, settled
    _int("created_at"),
    _text("resolution", null=True),  # the name of the choice
    _text("settled_by", null=True),
    _int("settled_at", null=True),
    Index("conflict_by_state", "state", "id"),
    Index("conflict_by_gateway", "gateway", "state", "id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _int("at"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    _text("detail"),
    _blob("hash"),
    Index("audit_by_actor", "actor", "id"),
    Index("audit_by_action", "action", "id"),
    Index("audit_by_subject", "subject", "id"),
)
