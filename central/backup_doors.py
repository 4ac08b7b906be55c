"""Backups by REST and on the page: seen, made into the configured directory, read back.

Whoever is not at the box names no file of it: another target, and putting one back, are for the
console (``shared.web.backup_console``).
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from central.identity.doors import Door
from central.inventory import audit
from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission
from shared.store.backups import BackupRow, Backups
from shared.store.database import Database
from shared.web.auth import Principal
from shared.web.pages import utc_text

SEE, RUN = Permission.STATUS_READ, Permission.BACKUP_RUN


class BackupActs:
    """What people do with backups; each act is in the audit log."""

    def __init__(self, backups: Backups, database: Database) -> None:
        """Take what makes backups, and where the audit log is."""
        self._backups = backups
        self._database = database
        self.standing = backups.standing
        self.directory = backups.rules.directory

    async def begin(self, actor: str) -> str:
        """Start one in the background; gives its id.

        Raises BadRequestError (no directory is configured, or another database than SQLite),
        NotFoundError (it is not mounted), ConflictError (one runs).
        """
        backup_id = self._backups.begin(None)
        await self._note(actor, "backup.begun", backup_id)
        return backup_id

    async def verify(self, backup_id: str, actor: str) -> BackupRow:
        """Read one back as a whole; one that is damaged counts no more.

        Raises NotFoundError, IntegrityError.
        """
        row = await self._one(backup_id)
        await self._note(actor, "backup.verified", backup_id)
        await self._backups.verify(Path(row.path))
        return await self._one(backup_id)

    async def _one(self, backup_id: str) -> BackupRow:
        rows = (await self.standing()).backups
        found = next((row for row in rows if row.backup_id == backup_id), None)
        if found is None:
            raise NotFoundError(f"There is no backup {backup_id[:64]}.")
        return found

    async def _note(self, actor: str, action: str, backup_id: str) -> None:
        await self._database.writer.run(lambda tx: audit.add(tx, actor, action, backup_id, {}))


def doors(acts: BackupActs) -> list[Door]:
    """Give what REST has."""

    async def listed(_request: web.Request, _who: Principal) -> Any:
        standing = await acts.standing()
        return {
            "id": "central",
            "overdue": standing.overdue,
            "failure": standing.failure,
            "running": standing.running and asdict(standing.running),
            "directory": acts.directory and str(acts.directory),
            "backups": [_shown(row) for row in standing.backups],
        }

    async def begin(_request: web.Request, who: Principal) -> Any:
        return {"id": await acts.begin(who.name)}

    async def verify(request: web.Request, who: Principal) -> Any:
        return _shown(await acts.verify(request.match_info["id"], who.name))

    return [
        Door(SEE, "GET", "/backups", "backups", listed),
        Door(RUN, "POST", "/backups", "backup", begin, created=True),
        Door(RUN, "POST", "/backups/{id}/verify", "backup", verify),
    ]


def _shown(row: BackupRow) -> dict[str, Any]:
    return {
        "id": row.backup_id,
        "file": row.path,
        "state": row.state,
        "counts": row.counts,
        "bytes": row.bytes,
        "events": row.events,
        "lanes": row.lanes,
        "created_at": utc_text(row.created_at_us),
        "verified_at": utc_text(row.verified_at_us),
    }
