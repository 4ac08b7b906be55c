"""The link to central: drains the outbox, applies directives, and knows how the link is.

It works for months without a broker: nothing here is needed to issue.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec

from gateway import commands, taking_back
from gateway.identity import Identity
from gateway.snapshot import HistoryState
from gateway.version import VERSION
from shared.kernel.clock import Clock
from shared.kernel.errors import UnavailableError, UntrustedError
from shared.kernel.ids import Random
from shared.mqtt.link import BrokerAddress
from shared.mqtt.session import Notice, Online, Session, Wire, presence, subscription
from shared.pki import formats, keys
from shared.store.database import Database
from shared.store.link import Own, SqlLink
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.sync import envelope, inbox
from shared.sync.effects import Alarm, Contact, Healed, Stop
from shared.sync.ends import Keys
from shared.sync.envelope import Address
from shared.sync.events import Direction, Event, Lane
from shared.sync.join import CENTRAL_NAME, spki_hash
from shared.sync.lineage import Verdict
from shared.sync.ports import Result, Unit
from shared.sync.replicator import GatewayReplicator
from shared.web.tls import load_identity

_LOG = logging.getLogger(__name__)
_HISTORY = {
    Verdict.RESTORED: HistoryState.RESTORED,
    Verdict.CLONE: HistoryState.CLONED,
    Verdict.UNKNOWN: HistoryState.UNKNOWN,
}


class GatewayOutbox(Outbox):
    """The outbox of a gateway; while its history is in doubt nothing may be added to it."""

    halted = ""  # a sentence, or nothing: read on the writer's thread

    def append(self, tx: Transaction, event: Event, peer: str | None) -> None:
        """Append an event; raises UnavailableError while the history is in doubt."""
        if self.halted:
            raise UnavailableError(self.halted, remedy="Call the administrator of central.")
        super().append(tx, event, peer)


class _Store:
    """The tables of the link; which kinds of directives came is told after their commit."""

    def __init__(self, link: SqlLink, changed: Callable[[set[str]], Awaitable[None]]) -> None:
        self._link = link
        self._changed = changed
        self.kinds: set[str] = set()  # grows on the writer's thread, while a unit runs

    async def run(self, unit: Unit[Result]) -> Result:
        """Run the unit, then let memory follow what it changed."""
        result = await self._link.run(unit)
        kinds, self.kinds = self.kinds, set()
        if kinds:
            await self._changed(kinds)
        return result


class CentralLink:
    """Replicates with central for as long as it runs."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        outbox: GatewayOutbox,
        clock: Clock,
        random: Random,
        changed: Callable[[set[str]], Awaitable[None]],
        contact: Callable[[], None],
        judged: Callable[[HistoryState, str], None],
        healed: Callable[[], None],
    ) -> None:
        """Take the ports.

        ``changed`` is awaited with their kinds after directives were applied; ``contact`` is called
        when central answered, ``judged`` when it says that this history is not the right one, and
        ``healed`` when an old copy has taken back what it had forgotten.
        """
        self._healed = healed
        self._contact = contact
        self._judged = judged
        self._clock = clock
        self._outbox = outbox
        self._name = identity.name
        self._joined_by = identity.answer.directive_key
        self._trusted = list(identity.directive_keys)
        self._find = partial(_directive_key, self._trusted)
        own = Own(reapply=taking_back.reapply, recount=taking_back.recount)
        self._tables = SqlLink(database.writer, outbox, CENTRAL_NAME, self._apply, own)
        self._store = _Store(self._tables, changed)
        self._random = random
        self._tls = _tls(identity)
        address = BrokerAddress(
            identity.answer.broker_host,
            identity.answer.broker_port,
            tls=self._tls,
            subscription=subscription(self._name),
            presence=presence(self._name),
        )
        self._session = Session(address, clock=clock, random=random, observe=self._observe)
        self._session.add(self._name, self._wire(identity))
        self.online = False
        self.since_us = clock.now().utc_us

    @property
    def positions(self) -> Mapping[tuple[str, Lane], int]:
        """Up to where each lane is on its way to central."""
        return self._session.positions(self._name)

    async def accept(self, envelopes: tuple[bytes, ...]) -> None:
        """Give sealed envelopes to the inbox, as if they had just come: repeats are harmless.

        For the start: what they change is read from the database afterwards.
        """
        address = Address(self._name, Direction.DOWN)
        find = partial(_directive_key, [self._joined_by])  # though it may have a successor now
        for data in envelopes:
            batch = envelope.open_(data, find, address)
            accept = partial(inbox.accept, address=address, batch=batch)
            await self._tables.run(accept)

    async def run(self) -> None:
        """Replicate until cancelled."""
        wake = partial(self._session.wake, self._name)
        loop = asyncio.get_running_loop()
        self._outbox.wake = lambda _peer: loop.call_soon_threadsafe(wake)
        await self._session.run()

    def renew(self, identity: Identity) -> None:
        """Begin the link anew, with another transport identity and event-signing key."""
        load_identity(self._tls, *identity.transport_pem)
        self._session.remove(self._name)
        self._session.add(self._name, self._wire(identity))
        self._session.close_link("This gateway's identity was renewed.")

    def trust(self, directive_keys: Sequence[bytes]) -> None:
        """Trust these keys of central (SPKIs) from now on; the next hello names them."""
        self._trusted[:] = directive_keys
        self._session.close_link("Central's directive key has a successor.")

    def _wire(self, identity: Identity) -> Wire:
        end = GatewayReplicator(
            self._name,
            Keys([identity.signer], self._find, lambda: [spki_hash(one) for one in self._trusted]),
            version=VERSION,
            random=self._random,
            now=self._clock.now(),
        )
        return Wire(end, self._store)

    def _apply(self, transaction: Transaction, events: Sequence[Event]) -> None:
        for event in events:
            commands.apply(transaction, event)
            self._store.kinds.add(event.type)

    def _observe(self, _gateway: str, notice: Notice) -> None:
        match notice:
            case Contact():
                self._set_online(online=True)
                self._contact()
            case Online(online=False):
                self._set_online(online=False)
            case Stop(verdict=verdict, reason=reason):
                _LOG.error("Central says that this gateway must stop: %s", reason)
                self._set_online(online=True)
                self._judged(_HISTORY[verdict], reason)
            case Healed(reason=reason):
                _LOG.warning("%s Issuing goes on.", reason)
                self._healed()
            case Alarm(reason=reason):
                _LOG.warning("%s", reason)
            case _:
                pass  # the broker alone proves nothing of central

    def _set_online(self, *, online: bool) -> None:
        if online is not self.online:
            self.online = online
            self.since_us = self._clock.now().utc_us
            _LOG.info("Central is %s.", "online" if online else "out of reach")


def _tls(identity: Identity) -> ssl.SSLContext:
    """Trust the transport root only, and present the transport identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=formats.pem([identity.answer.transport_root]))
    load_identity(context, *identity.transport_pem)
    return context


def _directive_key(trusted: Sequence[bytes], kid: bytes) -> ec.EllipticCurvePublicKey:
    for spki in trusted:
        if kid == spki_hash(spki):
            return keys.load_p256(spki)
    raise UntrustedError(
        "This is signed neither by the directive key of the join nor by a successor that was "
        "ordered since."
    )
