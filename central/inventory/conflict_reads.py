"""Open and settled questions as they are listed: filtered, the newest first, page by page."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import select

from central.inventory.conflicts import choices, sides
from central.inventory.models import ConflictView
from shared.kernel.errors import NotFoundError
from shared.store.database import Database
from shared.store.schema import conflict

#: What questions can be filtered by; ``state`` is open or settled.
FILTERS: Final = ("state", "kind", "gateway")


class ConflictReads:
    """Reads the questions."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._read = database.read

    async def find(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        lines: Collection[str] | None = None,
        after: str = "",
        limit: int,
    ) -> tuple[list[ConflictView], str]:
        """Give a page of questions of some lines (None: all), and where the next one begins.

        Without a filter by ``state`` they are the open ones; an empty one gives both.
        """
        wanted = select(conflict).order_by(conflict.c.id.desc()).limit(limit + 1)
        for name, value in ({"state": "open"} | dict(filters or {})).items():
            if value:
                wanted = wanted.where(conflict.c[name] == value)
        if lines is not None:
            wanted = wanted.where(conflict.c.gateway.in_(sorted(lines)))
        if after:
            wanted = wanted.where(conflict.c.id < int(after))
        rows = await self._read(wanted)
        more = str(rows[limit - 1].id) if len(rows) > limit else ""
        return [_view(row) for row in rows[:limit]], more

    async def one(self, number: int) -> ConflictView:
        """Give one question; raises NotFoundError."""
        rows = await self._read(select(conflict).where(conflict.c.id == number))
        if not rows:
            raise NotFoundError(f"There is no question {number}.")
        return _view(rows[0])


def _view(row: Any) -> ConflictView:
    detail = json.loads(row.detail)
    return ConflictView(
        id=row.id,
        kind=row.kind,
        gateway=row.gateway,
        subject=row.subject,
        detail=detail,
        created_at_us=row.created_at,
        state=row.state,
        resolution=row.resolution,
        settled_by=row.settled_by,
        settled_at_us=row.settled_at,
        choices=choices(row.kind, row.subject, detail),
        sides=sides(row.kind, row.subject, detail),
    )
