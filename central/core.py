"""What every command of central that touches its state begins with: database, keys, CAs."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import select

from central.authority import plans
from central.authority.broker import BrokerDirectory
from central.authority.hierarchy import Hierarchy
from central.authority.identities import Identities, Identity
from central.config import CentralSettings
from central.inventory.reads import PublicReads
from central.sync import books
from central.sync.listener import Storage
from shared.issuance.crls import CrlSchedule
from shared.issuance.status import StatusService
from shared.kernel.clock import Clock
from shared.kernel.errors import IntegrityError, NotFoundError
from shared.store import facts
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.schema import fact
from shared.store.vault import Vault
from shared.sync.join import CENTRAL_NAME
from shared.system.clock import SystemClock
from shared.system.files import private_directory
from shared.system.secrets import read_secret

VERSION = version("tma-edge")
BROKER_NAME = "_broker"
#: Fact: O of the CA names, if it was chosen otherwise than the settings say.
ORGANIZATION = "organization"
_BROKER_DIRECTORY = "broker_directory"
_DAY_S = 24 * 3600
#: The broker refuses everybody once its CRL has expired, so it must not (design.md §5).
_TRANSPORT_SCHEDULE = CrlSchedule(interval_s=_DAY_S, lifetime_s=3650 * _DAY_S)


def require_founded(settings: CentralSettings) -> None:
    """Raise NotFoundError before ``init``: no command but that one makes a database."""
    made = settings.box_slot_path if settings.database.url else settings.database_path
    if not made.exists():
        raise NotFoundError(
            "There is no central here yet.",
            remedy="Run `tma-central init`, or `tma-central run` and open its page.",
        )


@asynccontextmanager
async def opened_storage(settings: CentralSettings, clock: Clock) -> AsyncGenerator[Storage]:
    """Open the database with its outbox; a missing one is made."""
    private_directory(settings.state)
    private_directory(settings.control_socket.parent)
    outbox = Outbox.of_central(VERSION, books.enter)
    database = await _database(settings, outbox, clock)
    try:
        yield Storage(database, outbox)
    finally:
        await database.close()


async def _database(settings: CentralSettings, outbox: Outbox, clock: Clock) -> Database:
    wanted = settings.database
    if not wanted.url:
        return await Database.open(settings.database_path, sink=outbox, clock=clock)
    from shared.store import postgres  # noqa: PLC0415 - only who uses it pays for its driver

    password = partial(_password, wanted.password) if wanted.password else None
    return await postgres.opened(postgres.Server(wanted.url, password), sink=outbox, clock=clock)


def _password(source: str) -> str:
    return read_secret(source).decode().rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Core:
    """Central's state, unlocked."""

    settings: CentralSettings
    storage: Storage
    vault: Vault
    hierarchy: Hierarchy
    identities: Identities
    ledger: SqlLedger
    status: StatusService
    transport_status: StatusService
    reads: PublicReads
    clock: Clock
    organization: str

    async def transport_identity(self) -> Identity:
        """Give central's own identity on the transport."""
        hosts = self.settings.tls_names
        plan = partial(plans.central_transport, CENTRAL_NAME, hosts)
        return await self.identities.current("transport", self.hierarchy.transport, plan, hosts)

    async def web_identity(self) -> Identity:
        """Give the identity of pages and APIs."""
        hosts = self.settings.web.names
        plan = partial(plans.web_server, hosts)
        return await self.identities.current("web", self.hierarchy.issuing, plan, hosts)

    async def broker_identity(self) -> Identity:
        """Give the identity of the broker."""
        hosts = self.settings.tls_names
        plan = partial(plans.central_transport, BROKER_NAME, hosts)
        return await self.identities.current("broker", self.hierarchy.transport, plan, hosts)

    async def transport_crl(self) -> bytes:
        """Give the transport CRL in force, DER."""
        row = await self.reads.current_crl(self.hierarchy.transport.issuer.ca_id)
        if row is None:
            raise IntegrityError("The transport root has no CRL.")
        return row.der

    async def write_broker(self, path: Path) -> BrokerDirectory:
        """Write the broker's directory, and remember where it is."""
        directory = BrokerDirectory(path)
        root = self.hierarchy.transport.issuer.chain[0]
        identity, crl = await self.broker_identity(), await self.transport_crl()
        directory.write(self.settings.broker.port, root, crl, identity)
        await self.storage.database.writer.run(
            lambda transaction: facts.put(transaction, _BROKER_DIRECTORY, str(path))
        )
        return directory

    async def broker_directory(self) -> BrokerDirectory | None:
        """Find the broker's directory, if central was asked to write one."""
        wanted = select(fact.c.value).where(fact.c.name == _BROKER_DIRECTORY)
        rows = await self.storage.database.read(wanted)
        return BrokerDirectory(Path(rows[0].value)) if rows else None


async def unlock(settings: CentralSettings, storage: Storage, clock: Clock, vault: Vault) -> Core:
    """Load the CAs; raises NotFoundError before ``init``."""
    database = storage.database
    wanted = settings.authority
    named = await database.writer.run(lambda transaction: facts.get(transaction, ORGANIZATION))
    hierarchy = await Hierarchy.load(
        database, vault, settings.status_url, deltas=wanted.crl_delta_hours > 0
    )
    ledger = SqlLedger(database)
    schedule = CrlSchedule(
        interval_s=wanted.crl_hours * 3600,
        lifetime_s=wanted.crl_lifetime_days * _DAY_S,
        delta_s=wanted.crl_delta_hours * 3600,
        delta_lifetime_s=wanted.crl_delta_lifetime_hours * 3600,
        keep_expired_s=wanted.crl_keep_expired_days * _DAY_S,
    )
    parts: Any = {
        "keys": hierarchy,
        "ledger": ledger,
        "crls": SqlCrls(database, None),
        "clock": clock,
    }
    status = StatusService(
        **parts, ca_ids=[key.issuer.ca_id for key in hierarchy.public], schedule=schedule
    )
    database.writer.watch(status)
    return Core(
        settings=settings,
        storage=storage,
        vault=vault,
        hierarchy=hierarchy,
        identities=Identities(database, vault, clock, os.urandom),
        ledger=ledger,
        status=status,
        transport_status=StatusService(
            **parts, ca_ids=[hierarchy.transport.issuer.ca_id], schedule=_TRANSPORT_SCHEDULE
        ),
        reads=PublicReads(database),
        clock=clock,
        organization=named or wanted.organization,
    )


@asynccontextmanager
async def opened(settings: CentralSettings) -> AsyncGenerator[Core]:
    """Open everything; raises NotFoundError before ``init``, UntrustedError on another box."""
    require_founded(settings)
    clock = SystemClock()
    async with opened_storage(settings, clock) as storage:
        vault = await Vault.open(
            storage.database, box_path=settings.box_slot_path, random=os.urandom
        )
        yield await unlock(settings, storage, clock, vault)
