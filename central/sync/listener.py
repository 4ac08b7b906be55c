"""Central at the broker: one end per gateway, and what the ends notice goes into the registry."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from central.sync import directives, fleet, regaining, settling
from central.sync.apply import Applier
from central.sync.fleet import Report
from shared.kernel.clock import Clock
from shared.kernel.errors import ConflictError, TmaError, UntrustedError
from shared.kernel.ids import Random
from shared.mqtt.link import BrokerAddress
from shared.mqtt.session import Notice, Online, Session, Wire
from shared.pki import keys
from shared.store.database import Database
from shared.store.link import Own, SqlLink
from shared.store.outbox import Outbox
from shared.store.schema import gateway
from shared.store.transaction import Transaction
from shared.sync.effects import Alarm, Contact, Healed, Progress, Stop
from shared.sync.ends import Keys
from shared.sync.envelope import BATCH_BYTES_MAX, Signer
from shared.sync.errands import Rules
from shared.sync.events import Lane
from shared.sync.lineage import Finding
from shared.sync.messages import Errand
from shared.sync.ports import Cursor
from shared.sync.replicator import CentralReplicator

_LOG = logging.getLogger(__name__)
_WRITE_S = 0.5
_MARKS_PER_RECEIPT = 200
#: By all gateways together, by the weight of events: it waits in this process's memory.
_UNDER_WAY_BYTES_MAX = 64 * 1024 * 1024

_JOINED = select(
    gateway.c.name,
    gateway.c.state,
    gateway.c.state_reason,
    gateway.c.event_key,
    gateway.c.next_event_key,
).where(gateway.c.event_key.is_not(None))


@dataclass(frozen=True, slots=True)
class Storage:
    """Where events are applied, and the outbox that gives directives their place."""

    database: Database
    outbox: Outbox


class Listener:
    """Replicates with every gateway that has joined."""

    def __init__(
        self,
        address: BrokerAddress,
        storage: Storage,
        *,
        signers: Sequence[Signer],
        incarnation: str,
        clock: Clock,
        random: Random,
    ) -> None:
        """Take broker, storage and the directive keys (``End``); ``run`` begins."""
        self._storage = storage
        self._signers = signers
        self._incarnation = incarnation
        self._clock = clock
        self._session = Session(address, clock=clock, random=random, observe=self._observe)
        self._reports: dict[str, Report] = {}
        self._turns: dict[str, Stop | Healed] = {}
        self._writing = asyncio.Lock()  # the registry
        self._keys: dict[str, list[bytes]] = {}  # SPKIs that may sign for a gateway
        self._ends: dict[str, CentralReplicator] = {}
        self._online: set[str] = set()
        self._heads: dict[str, dict[tuple[str, Lane], int]] = {}
        loop = asyncio.get_running_loop()
        storage.outbox.wake = partial(loop.call_soon_threadsafe, self._session.wake)

    async def run(self) -> None:
        """Replicate until cancelled."""
        await self._storage.database.writer.run(fleet.all_offline)
        for row in await self._storage.database.read(_JOINED):
            self.add(row.name, row.event_key, _blocked(row))
        await self.refresh_keys()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._session.run())
            group.create_task(self._write_reports())

    def add(self, name: str, event_key: bytes, blocked: Finding | None = None) -> None:
        """Begin with a gateway, or begin anew with one that joined again (SPKI of its key)."""
        self.remove(name)
        self._keys[name] = [event_key]
        known = Keys(self._signers, partial(_find, self._keys[name]))
        end = CentralReplicator(
            name, known, incarnation=self._incarnation, blocked=blocked, credit=self._share
        )
        storage = self._storage
        own = Own(
            reissue=partial(directives.reissue, name),
            regain=partial(regaining.regain, name),
            settle=partial(settling.settle, name),
        )
        link = SqlLink(storage.database.writer, storage.outbox, name, Applier(name).apply_all, own)
        self._ends[name] = end
        self._session.add(name, Wire(end, link))

    def remove(self, name: str) -> None:
        """Listen to a gateway no more."""
        if self._ends.pop(name, None) is not None:
            self._session.remove(name)

    @asynccontextmanager
    async def silenced(self, name: str) -> AsyncGenerator[None]:
        """Hear nothing of a gateway, and write nothing of what was heard; then begin anew."""
        self.remove(name)
        try:
            async with self._writing:
                self._turns.pop(name, None)
                yield
        finally:
            for row in await self._storage.database.read(_JOINED):
                if row.name == name:
                    self.add(name, row.event_key, _blocked(row))
            await self.refresh_keys()

    async def refresh_keys(self) -> None:
        """Accept the keys that the registry names: the present one, and one that was asked for."""
        for row in await self._storage.database.read(_JOINED):
            if row.name in self._ends:
                self._keys[row.name][:] = filter(None, (row.event_key, row.next_event_key))

    def heads(self, name: str) -> Mapping[tuple[str, Lane], int]:
        """Tell what the gateway last said of the ends of its lanes; nothing before its hello."""
        return self._heads.get(name, {})

    def positions(self, name: str) -> Mapping[tuple[str, Lane], int]:
        """Tell up to where directives are on their way to the gateway."""
        return self._session.positions(name)

    async def archived(self, risen: Mapping[str, Mapping[tuple[str, Lane], Cursor]]) -> None:
        """Tell gateways which marks a backup raised; whom it does not reach asks in a hello."""
        now = self._clock.now()
        for name, cursors in risen.items():
            if (end := self._ends.get(name)) is None:
                continue
            marks = list(cursors.items())
            for first in range(0, len(marks), _MARKS_PER_RECEIPT):
                part = dict(marks[first : first + _MARKS_PER_RECEIPT])
                self._session.carry_out(name, end.archived(part, now))

    def inquire(self, name: str, errand: Errand, rules: Rules) -> None:
        """Begin an errand with a gateway. Raises ConflictError: it gives back something else."""
        if (end := self._ends.get(name)) is None or name not in self._online:
            raise ConflictError(f"The gateway {name} is not online.")
        self._session.carry_out(name, end.inquire(errand, rules))

    def give_up(self, name: str, errand: Errand) -> None:
        """End an errand that ``inquire`` began."""
        if (end := self._ends.get(name)) is not None:
            end.give_up(errand)

    def renew(self) -> None:
        """Connect again, to present a renewed certificate."""
        self._session.close_link("The transport certificate of central was renewed.")

    def _share(self) -> int:
        """Give what one gateway may have under way, so that all together fit into memory."""
        return max(BATCH_BYTES_MAX, _UNDER_WAY_BYTES_MAX // max(1, len(self._online)))

    def _observe(self, name: str, notice: Notice) -> None:
        report = self._reports.setdefault(name, Report())
        match notice:
            case Online(online=online):
                report.online = online
                (self._online.add if online else self._online.discard)(name)
            case Contact(utc_us=utc_us):
                report.contact_us, report.online = utc_us, True
                self._online.add(name)
            case Progress(backlog=backlog, version=version, heads=heads):
                told = {} if version else self._heads.get(name, {})
                self._heads[name] = {**told, **heads}  # a hello tells it anew
                report.backlog = backlog
                report.version = version or report.version
            case Stop():
                _LOG.error("Gateway %s is stopped: %s", name, notice.reason)
                self._turns[name] = notice
            case Healed():
                _LOG.warning("Gateway %s: %s", name, notice.reason)
                self._turns[name] = notice
            case Alarm(reason=reason):
                _LOG.warning("Gateway %s: %s", name, reason)

    async def _write_reports(self) -> None:
        """Write what was noticed, twice a second at most; what fails is written later."""
        while True:
            async with self._writing:
                await self._write_what_was_noticed()
            await asyncio.sleep(_WRITE_S)

    async def _write_what_was_noticed(self) -> None:
        reports, turns = self._reports, self._turns
        self._reports, self._turns = {}, {}
        if not reports and not turns:
            return
        try:
            await self._storage.database.writer.run(partial(_write, reports, turns))
        except TmaError as error:
            _LOG.warning("The registry could not be written: %s", error.message)
            self._reports = reports | self._reports
            self._turns = turns | self._turns


def _write(
    reports: Mapping[str, Report], turns: Mapping[str, Stop | Healed], transaction: Transaction
) -> None:
    for name, report in reports.items():
        report.write(transaction, name)
    for name, turn in turns.items():
        if isinstance(turn, Stop):
            fleet.stop(transaction, name, fleet.STOPPED[turn.verdict], turn.reason)
        else:
            fleet.resume(transaction, name, turn.reason)


def _blocked(row: Any) -> Finding | None:
    for verdict, state in fleet.STOPPED.items():
        if row.state == state:
            return Finding(verdict, row.state_reason)
    return None


def _find(spkis: list[bytes], kid: bytes) -> ec.EllipticCurvePublicKey:
    """Accept the gateway's event-signing keys and no other."""
    for spki in spkis:
        if kid == hashlib.sha256(spki).digest():
            return keys.load_p256(spki)
    raise UntrustedError("It is signed by another key than the one that joined.")
