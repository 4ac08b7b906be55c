"""Putting a backup back onto a box that has no database, by its box slot or the recovery secret."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, ConflictError, UntrustedError
from shared.kernel.ids import Random
from shared.pki.keywrap import Keyring, recovery_secret
from shared.store import backup as files
from shared.store import facts, vault
from shared.store.backup import Header, Manifest, Progress
from shared.store.database import Database
from shared.store.transaction import EventSink, Transaction
from shared.store.upgrade import upgrade
from shared.system.files import sync_directory


@dataclass(frozen=True, slots=True)
class Restoring:
    """Where to, and by which secrets.

    ``ask_recovery`` asks a person for the recovery secret, only where this box's own secret does
    not open the backup. ``settle`` is what the product writes into its restored database.
    """

    product: str
    database: Path
    box_path: Path
    clock: Clock
    random: Random
    sink: EventSink
    ask_recovery: Callable[[], str]
    settle: Callable[[Transaction, Header], None]


async def restore(path: Path, to: Restoring, progress: Progress) -> tuple[Header, Manifest]:
    """Put a backup back; the database appears whole, migrated and settled, or not at all.

    Raises ConflictError (there is a database), NotFoundError, BadRequestError (no backup of this
    product, or a mistyped secret), UntrustedError (the wrong secret), IncompatibleError (a newer
    version made it), IntegrityError (damaged).
    """
    if to.database.exists():
        raise ConflictError(
            f"There is a database at {to.database}; it is never overwritten.",
            remedy="Move it away first if it is really to be replaced.",
        )
    header = await asyncio.to_thread(files.header_of, path)
    if header.product != to.product:
        raise BadRequestError(f"This is a backup of a {header.product}, not of a {to.product}.")
    keyring = _opened(header, to)
    draft = to.database.with_name(f".{to.database.name}.restoring")
    try:
        key = files.data_key(header, keyring)
        manifest = await asyncio.to_thread(files.read_back, path, key, draft, progress)
        await asyncio.to_thread(upgrade, draft)
        await _settle(draft, header, keyring, to)
        draft.rename(to.database)
        sync_directory(to.database.parent)
    finally:
        for left in to.database.parent.glob(f"{draft.name}*"):
            left.unlink()
    return header, manifest


async def _settle(draft: Path, header: Header, keyring: Keyring, to: Restoring) -> None:
    database = await Database.open(draft, sink=to.sink, clock=to.clock, reserve_bytes=1)

    def unit(tx: Transaction) -> None:
        facts.put(tx, vault.KEYRING, keyring.document().hex())
        to.settle(tx, header)

    try:
        await database.writer.run(unit)
    finally:
        await database.close()


def _opened(header: Header, to: Restoring) -> Keyring:
    """Open the backup's keyring by this box's secret, else by the recovery secret."""
    box_secret = vault.box_secret(to.box_path, to.random)
    try:
        return Keyring.open(header.keyring, box_secret=box_secret, random=to.random)
    except UntrustedError:
        secret = recovery_secret(to.ask_recovery())
    return Keyring.recover(
        header.keyring, recovery_secret=secret, box_secret=box_secret, random=to.random
    )
