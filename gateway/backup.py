"""The gateway's backups: with the agent, without it, and putting one back as a restored copy."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.config import GatewaySettings
from gateway.history import JUDGEMENT
from gateway.identity import joined_name
from gateway.link import GatewayOutbox
from gateway.snapshot import HistoryState
from gateway.version import VERSION
from shared.kernel.clock import Clock
from shared.kernel.ids import Random
from shared.pki.keywrap import Keyring
from shared.store import facts
from shared.store.backup import Header, Progress, header_of
from shared.store.backups import Backups, Origin, Rules
from shared.store.database import Database
from shared.store.restoring import Restoring, restore
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.system.clock import SystemClock
from shared.system.files import private_directory
from shared.system.processes import hold_lock
from shared.web.pages import utc_text

_PRODUCT = "gateway"


def of_gateway(
    settings: GatewaySettings,
    name: str,
    database: Database,
    keyring: Keyring,
    *,
    clock: Clock,
    random: Random,
) -> Backups:
    """Make what backs up this gateway; central's watermarks do not depend on it."""
    origin = Origin(_PRODUCT, name, VERSION, settings.database_path)
    return Backups(database, keyring, origin, Rules.of(settings.backup), clock=clock, random=random)


def make_offline(settings: GatewaySettings, target: Path, progress: Progress) -> Mapping[str, Any]:
    """Back up a gateway whose agent does not run; gives the row of the backup."""
    name = joined_name(settings.database_path)
    return _locked(settings, _make_offline(settings, name, target, progress))


def put_back(
    settings: GatewaySettings, path: Path, ask_secret: Callable[[], str], progress: Progress
) -> str:
    """Restore onto this box; gives what the administrator must know."""
    return _locked(settings, _put_back(settings, path, ask_secret, progress))


async def _make_offline(
    settings: GatewaySettings, name: str, target: Path, progress: Progress
) -> Mapping[str, Any]:
    clock = SystemClock()
    outbox = GatewayOutbox.of_gateway(name, VERSION)
    database = await Database.open(settings.database_path, sink=outbox, clock=clock)
    try:
        vault = await Vault.open(database, box_path=settings.box_slot_path, random=os.urandom)
        backups = of_gateway(
            settings, name, database, vault.keyring, clock=clock, random=os.urandom
        )
        backups.observe = progress
        return asdict(await backups.make(target))
    finally:
        await database.close()


async def _put_back(
    settings: GatewaySettings, path: Path, ask_secret: Callable[[], str], progress: Progress
) -> str:
    name = (await asyncio.to_thread(header_of, path)).name
    to = Restoring(
        product=_PRODUCT,
        database=settings.database_path,
        box_path=settings.box_slot_path,
        clock=SystemClock(),
        random=os.urandom,
        sink=GatewayOutbox.of_gateway(name, VERSION),
        ask_recovery=ask_secret,
        settle=_settle,
    )
    header, _manifest = await restore(path, to, progress)
    return (
        f"Gateway {header.name} is as it was at {utc_text(header.created_at_us)} UTC.\n"
        "It is a restored copy: it issues nothing until central has seen it and given back what "
        "it lacks.\nNever let the former box run again under this name.\n"
        "Next: plug in its token, start tma-hsmd, then `tma-gateway run`."
    )


def _settle(tx: Transaction, _header: Header) -> None:
    """Say that this is an old copy: on a new box there is no witness that could tell."""
    facts.put(tx, JUDGEMENT, HistoryState.RESTORED.value)


def _locked(settings: GatewaySettings, work: Any) -> Any:
    """Run while no agent can."""
    private_directory(settings.state)
    settings.lock_path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = hold_lock(settings.lock_path)
    try:
        return asyncio.run(work)
    finally:
        os.close(lock)
