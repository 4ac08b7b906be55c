"""Commands that need no running server: the birth of central, and the broker's directory."""

import asyncio
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select

from central import core
from central.authority import hierarchy
from central.authority.hierarchy import Founder, KeyTypes
from central.config import CentralSettings
from central.core import Core
from central.identity import people
from central.inventory import audit
from central.sync import directive_keys, directives
from central.sync.listener import Storage
from shared.kernel.clock import Clock
from shared.pki import formats
from shared.policy.rights import EVERYWHERE
from shared.policy.shipped import SHIPPED
from shared.store.schema import ca, fact, profile, user
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.system.clock import SystemClock
from shared.web import passwords

_PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True)
class Founded:
    """What ``init`` did; password and recovery secret are there only when they are new."""

    admin: str
    password: str | None
    recovery_secret: str | None
    root_sha256: str
    root_path: str


def found(settings: CentralSettings, admin: str, kinds: KeyTypes) -> Founded:
    """Make what is missing of a central; done again, it changes nothing."""
    return asyncio.run(_found(settings, admin, kinds))


def write_broker(settings: CentralSettings, directory: Path) -> Path:
    """Write the broker's directory; gives the path of mosquitto.conf."""
    return asyncio.run(_write_broker(settings, directory.absolute()))


async def _found(settings: CentralSettings, admin: str, kinds: KeyTypes) -> Founded:
    clock = SystemClock()
    async with core.opened_storage(settings, clock) as storage:
        revealed = await _make_authorities(settings, storage, clock, kinds)
        vault = await Vault.open(
            storage.database, box_path=settings.box_slot_path, random=os.urandom
        )
        await vault.key_or_new(directive_keys.FIRST)
        central = await core.unlock(settings, storage, clock, vault)
        await _sign_first_crls(central)
        password = await _make_admin(storage, admin)
        root = central.hierarchy.root.issuer.chain[0]
        settings.root_path.write_text(formats.pem([root]), "ascii")
        digest = hashlib.sha256(root).hexdigest()
        return Founded(admin, password, revealed, digest, str(settings.root_path))


async def _make_authorities(
    settings: CentralSettings, storage: Storage, clock: Clock, kinds: KeyTypes
) -> str | None:
    """Make keyring and CAs, if there are none; gives the recovery secret of a new keyring.

    A keyring without CAs is what a crash left: nobody has seen its recovery secret, and nothing
    lies under it, so it is made anew.
    """
    database = storage.database
    if await database.read(select(ca.c.ca_id).limit(1)):
        return None
    drop = delete(fact).where(fact.c.name == "keyring")
    await database.writer.run(lambda transaction: transaction.execute(drop))
    revealed: list[str] = []
    vault = await Vault.create(
        database, box_path=settings.box_slot_path, random=os.urandom, reveal=revealed.append
    )
    organization = settings.authority.organization
    now_us = clock.now().utc_us
    founder = Founder(organization, settings.status_url, now_us, os.urandom, kinds)
    made = await founder.found()

    def unit(transaction: Transaction) -> None:
        hierarchy.store_new(transaction, vault, made)
        directives.incarnation(transaction)
        for shipped in SHIPPED:
            transaction.execute(insert(profile), _profile_row(shipped, transaction.now.utc_us))
        audit.add(transaction, "system", "central.founded", organization, {})

    await database.writer.run(unit)
    return revealed[-1]


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


async def _make_admin(storage: Storage, name: str) -> str | None:
    """Make the first administrator, if there is no user; gives his password."""
    if await storage.database.read(select(user.c.name).limit(1)):
        return None
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    encoded = passwords.encode(password)

    def unit(transaction: Transaction) -> None:
        # Only who runs `init` has seen it: it need not be changed.
        people.add_user(transaction, name, encoded, "system", must_change=False)
        people.assign(transaction, name, "admin", EVERYWHERE, "system")

    await storage.database.writer.run(unit)
    return password


async def _write_broker(settings: CentralSettings, directory: Path) -> Path:
    async with core.opened(settings) as central:
        return (await central.write_broker(directory)).configuration
