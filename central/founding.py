"""What needs no running server: the birth of central, and the broker's directory."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select

from central import core
from central.authority import hierarchy
from central.authority.hierarchy import Founder
from central.config import CentralSettings
from central.core import Core
from central.first_order import FirstOrder
from central.identity import people
from central.inventory import audit
from central.sync import directive_keys, directives
from central.sync.listener import Storage
from shared.kernel.clock import Clock
from shared.pki import formats
from shared.policy.rights import EVERYWHERE
from shared.policy.shipped import SHIPPED
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import assignment, ca, fact, profile, user
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.system.clock import SystemClock
from shared.system.files import private_directory, remove
from shared.system.processes import hold_lock
from shared.web import passwords

_PASSWORD_BYTES = 15
_UNCONFIRMED = "founding"  # fact: nobody has said yet that he saw the secrets


class Stage(Enum):
    """How far a central has come."""

    NOTHING = "nothing"
    UNCONFIRMED = "unconfirmed"  # its CAs are made; what is shown once is made anew if asked for
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Founded:
    """What was founded; password and recovery secret are there only when they are new."""

    admin: str
    password: str | None
    recovery_secret: str | None
    root_sha256: str
    root_path: str


def found(settings: CentralSettings, order: FirstOrder, show: Callable[[Founded], None]) -> None:
    """Make what is missing of a central; done again, it changes nothing.

    What ``show`` was given counts as seen. Raises ConflictError while a server runs that is to be
    founded by its page.
    """
    asyncio.run(_found_by_command(settings, order, show))


def write_broker(settings: CentralSettings, directory: Path) -> Path:
    """Write the broker's directory; gives the path of mosquitto.conf."""
    return asyncio.run(_write_broker(settings, directory.absolute()))


async def _found_by_command(
    settings: CentralSettings, order: FirstOrder, show: Callable[[Founded], None]
) -> None:
    with ExitStack() as stack:
        is_new = await stage(settings) is not Stage.DONE
        if is_new:
            private_directory(settings.state)
            stack.callback(os.close, hold_lock(settings.lock_path))
        show(await found_here(settings, order))
        if is_new:
            await confirm(settings)


async def stage(settings: CentralSettings) -> Stage:
    """Tell how far this central has come; an SQLite file is not made by that."""
    if not settings.database.url and not settings.database_path.exists():
        return Stage.NOTHING
    async with core.opened_storage(settings, SystemClock()) as storage:
        return await _stage(storage.database)


async def confirm(settings: CentralSettings) -> None:
    """Note that somebody has seen what is shown once: from now on nothing is made anew."""
    async with core.opened_storage(settings, SystemClock()) as storage:
        await storage.database.writer.run(
            lambda transaction: facts.put(transaction, _UNCONFIRMED, None)
        )
    remove(settings.setup_code_path)


async def found_here(settings: CentralSettings, order: FirstOrder) -> Founded:
    """Found in the process that holds the lock.

    Until ``confirm`` a repetition makes anew what is shown once, and the administrator; the CAs
    stay as they are. Raises BadRequestError for a poor password.
    """
    if order.password is not None:
        passwords.require_good(order.password, order.admin)
    clock = SystemClock()
    async with core.opened_storage(settings, clock) as storage:
        before = await _stage(storage.database)
        if before is Stage.NOTHING:
            await _make_authorities(settings, storage, clock, order)
        vault = await Vault.open(
            storage.database, box_path=settings.box_slot_path, random=os.urandom
        )
        await vault.key_or_new(directive_keys.FIRST)
        central = await core.unlock(settings, storage, clock, vault)
        await _sign_first_crls(central)
        password = await _make_admin(storage, order, before)
        root = central.hierarchy.root.issuer.chain[0]
        settings.root_path.write_text(formats.pem([root]), "ascii")
        secret = None if before is Stage.DONE else await vault.renew_recovery(os.urandom)
        digest = hashlib.sha256(root).hexdigest()
        return Founded(order.admin, password, secret, digest, str(settings.root_path))


async def _stage(database: Database) -> Stage:
    if not await database.read(select(ca.c.ca_id).limit(1)):
        return Stage.NOTHING
    unconfirmed = await database.read(select(fact.c.name).where(fact.c.name == _UNCONFIRMED))
    return Stage.UNCONFIRMED if unconfirmed else Stage.DONE


async def _make_authorities(
    settings: CentralSettings, storage: Storage, clock: Clock, order: FirstOrder
) -> None:
    """Make keyring and CAs.

    A keyring without CAs is what a crash left: nothing lies under it, so it is made anew. The
    recovery secret that it begins with is nobody's: the last step replaces it by the one shown.
    """
    database = storage.database
    drop = delete(fact).where(fact.c.name == "keyring")
    await database.writer.run(lambda transaction: transaction.execute(drop))
    vault = await Vault.create(
        database, box_path=settings.box_slot_path, random=os.urandom, reveal=lambda _text: None
    )
    founder = Founder(order, settings.status_url, clock.now().utc_us, os.urandom)
    made = await founder.found()

    def unit(transaction: Transaction) -> None:
        hierarchy.store_new(transaction, vault, made)
        directives.incarnation(transaction)
        for shipped in SHIPPED:
            transaction.execute(insert(profile), _profile_row(shipped, transaction.now.utc_us))
        facts.put(transaction, _UNCONFIRMED, "")
        if order.organization != settings.authority.organization:
            facts.put(transaction, core.ORGANIZATION, order.organization)
        audit.add(transaction, "system", "central.founded", order.organization, {})

    await database.writer.run(unit)


def _profile_row(shipped: Any, now_us: int) -> dict[str, Any]:
    return {
        "name": shipped.name,
        "version": shipped.version,
        "sha256": shipped.sha256,
        "document": shipped.document,
        "state": "active",
        "created_at": now_us,
    }


async def _sign_first_crls(central: Core) -> None:
    """Give each CA its (empty) CRL from birth on; the broker needs that of the transport."""
    for key in central.hierarchy.own:
        ca_id = key.issuer.ca_id
        if await central.reads.current_crl(ca_id) is None:
            service = (
                central.transport_status if key is central.hierarchy.transport else central.status
            )
            await service.sign_crl(ca_id)


async def _make_admin(storage: Storage, order: FirstOrder, before: Stage) -> str | None:
    """Make the first administrator, or make him anew; gives his password if it is made here.

    Before anybody confirmed, there are no other users than those of earlier attempts.
    """
    if before is Stage.DONE and await storage.database.read(select(user.c.name).limit(1)):
        return None
    made = None if order.password else secrets.token_urlsafe(_PASSWORD_BYTES)
    encoded = await asyncio.to_thread(passwords.encode, order.password or made or "")

    def unit(transaction: Transaction) -> None:
        transaction.execute(delete(assignment))
        transaction.execute(delete(user))
        # Only who founds has seen it: it need not be changed.
        people.add_user(transaction, order.admin, encoded, "system", must_change=False)
        people.assign(transaction, order.admin, "admin", EVERYWHERE, "system")

    await storage.database.writer.run(unit)
    return made


async def _write_broker(settings: CentralSettings, directory: Path) -> Path:
    async with core.opened(settings) as central:
        return (await central.write_broker(directory)).configuration
