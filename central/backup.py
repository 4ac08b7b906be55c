"""Central's backups: with the server, without it, and putting one back as a new incarnation."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from central import core
from central.config import CentralSettings
from central.core import VERSION, Core
from central.inventory import audit
from central.sync import books, directives, regaining
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import ConflictError
from shared.kernel.ids import Random
from shared.store.backup import Header, Progress
from shared.store.backups import Archived, Backups, Origin, Rules
from shared.store.outbox import Outbox
from shared.store.restoring import Restoring, restore
from shared.store.schema import session
from shared.store.transaction import Transaction
from shared.system.clock import SystemClock
from shared.system.files import private_directory
from shared.system.processes import hold_lock
from shared.web.pages import utc_text

_PRODUCT = "central"


def of_central(
    central: Core, random: Random, archived: Callable[[Archived], Awaitable[None]] | None = None
) -> Backups:
    """Make what backs up this central; ``archived`` is told which watermarks rose."""
    settings = central.settings
    return Backups(
        central.storage.database,
        central.vault.keyring,
        Origin(
            _PRODUCT,
            settings.host,
            VERSION,
            None if settings.database.url else settings.database_path,
        ),
        Rules.of(settings.backup),
        clock=central.clock,
        random=random,
        archived=archived,
    )


def alarm(settings: CentralSettings, clock: Clock, newest_us: int | None) -> str:
    """Say what is wrong with the age of the newest backup that counts; '' if nothing is."""
    if newest_us is None:
        return "There is no backup of central that counts; gateways delete nothing."
    hours = (clock.now().utc_us - newest_us) // (3600 * US_PER_SECOND)
    if hours < settings.backup.alarm_hours:
        return ""
    return f"The newest backup of central is {hours} hours old."


def make_offline(settings: CentralSettings, target: Path, progress: Progress) -> Mapping[str, Any]:
    """Back up a central that does not run; gives the row of the backup."""
    core.require_founded(settings)
    return _locked(settings, _make_offline(settings, target, progress))


def put_back(
    settings: CentralSettings, path: Path, ask_secret: Callable[[], str], progress: Progress
) -> str:
    """Restore onto this box; gives what the administrator must know."""
    if settings.database.url:
        raise ConflictError(
            "A backup is put back as an SQLite file; `database.url` names another database.",
            remedy="Take `database.url` out of the configuration for it.",
        )
    private_directory(settings.state)
    return _locked(settings, _put_back(settings, path, ask_secret, progress))


async def _make_offline(
    settings: CentralSettings, target: Path, progress: Progress
) -> Mapping[str, Any]:
    async with core.opened(settings) as central:
        backups = of_central(central, os.urandom)
        backups.observe = progress
        return asdict(await backups.make(target))


async def _put_back(
    settings: CentralSettings, path: Path, ask_secret: Callable[[], str], progress: Progress
) -> str:
    outbox = Outbox.of_central(VERSION, books.enter)
    to = Restoring(
        product=_PRODUCT,
        database=settings.database_path,
        box_path=settings.box_slot_path,
        clock=SystemClock(),
        random=os.urandom,
        sink=outbox,
        ask_recovery=ask_secret,
        settle=partial(_settle, outbox),
    )
    header, manifest = await restore(path, to, progress)
    return (
        f"Central is as it was at {utc_text(header.created_at_us)} UTC, as a new incarnation.\n"
        f"{manifest.events:,} events of {len(manifest.peers):,} gateways are in it; what came "
        "later the gateways give back; until then OCSP answers `tryLater` for them.\n"
        "Next: `tma-central broker config DIR`, start mosquitto, then `tma-central run`."
    )


def _settle(outbox: Outbox, tx: Transaction, header: Header) -> None:
    """Begin another life of this database: nobody stays logged in, gateways give back."""
    former = directives.renew_incarnation(tx)
    regaining.begin(tx, outbox)
    tx.execute(delete(session))
    detail = {"backup_id": header.backup_id, "made_at_us": header.created_at_us, "former": former}
    audit.add(tx, "system", "central.restored", header.name, detail)


def _locked(settings: CentralSettings, work: Any) -> Any:
    """Run while no server can."""
    lock = hold_lock(settings.lock_path)
    try:
        return asyncio.run(work)
    finally:
        os.close(lock)
