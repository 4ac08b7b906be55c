"""Tables of histories that stand beside the one that is held of a gateway (shared.sync.forks)."""

from sqlalchemy import Column, Index, Integer, Table, UniqueConstraint

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: Boxes of one name. state: trunk, open, outcast, heir, done (``shared.sync.ports.ClaimState``).
fork = Table(
    "fork",
    metadata,
    _key("peer"),
    _key("fork"),
    _text("segment"),
    _blob("heads"),
    _text("state"),
    _text("boot_id"),
    _text("version"),
    _int("backlog"),
    _int("of_trunk"),
    _int("revoke"),
    _blob("reached"),  # CBOR: how far its events were fetched; empty before the first
    _int("complete"),
    _int("taken"),  # the last row of ``fork_event`` that was taken in
    _int("first_seen"),
    _int("last_seen"),
)

#: Raw events of such a box that are not in the inbox: kept for ever, as those are.
fork_event = Table(
    "fork_event",
    metadata,
    Column("id", Integer, primary_key=True, nullable=False, autoincrement=True),
    _text("peer"),
    _text("fork"),
    _text("segment"),
    _int("lane"),
    _int("sequence"),
    _text("type"),
    _blob("hash"),
    _blob("event"),
    _int("received_at"),
    UniqueConstraint("peer", "fork", "segment", "lane", "sequence", "hash"),
    Index("fork_event_by_fork", "peer", "fork", "id"),
    sqlite_autoincrement=True,
)
