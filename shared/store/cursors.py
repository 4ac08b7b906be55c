"""How far each lane is: what we applied of the peer's ('in'), what it confirmed of ours ('out')."""

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from shared.store.schema import cursor
from shared.store.segments import Way
from shared.store.transaction import Transaction
from shared.sync.events import Lane
from shared.sync.ports import NOTHING, Cursor

_GET = select(cursor.c.applied, cursor.c.hash, cursor.c.archived).where(
    cursor.c.peer == bindparam("link"),
    cursor.c.direction == bindparam("way"),
    cursor.c.segment == bindparam("name"),
    cursor.c.lane == bindparam("lane_number"),
)
_INSERT = insert(cursor)
_PUT = _INSERT.on_conflict_do_update(
    index_elements=list(cursor.primary_key),
    set_={
        name: getattr(_INSERT.excluded, name)
        for name in ("applied", "archived", "hash", "updated_at")
    },
)


def get(tx: Transaction, peer: str, way: Way, name: str, lane: Lane) -> Cursor:
    """Read a cursor; ``NOTHING`` if there is none."""
    row = tx.one(_GET, {"link": peer, "way": way, "name": name, "lane_number": int(lane)})
    return NOTHING if row is None else Cursor(*row)


def put(tx: Transaction, peer: str, way: Way, place: tuple[str, Lane], moved: Cursor) -> None:
    """Write a cursor; ``place`` is segment and lane."""
    row = {
        "peer": peer,
        "direction": way,
        "segment": place[0],
        "lane": int(place[1]),
        "applied": moved.applied,
        "archived": moved.archived,
        "hash": moved.hash,
        "updated_at": tx.now.utc_us,
    }
    tx.execute(_PUT, row)
