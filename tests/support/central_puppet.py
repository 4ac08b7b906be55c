"""A gateway in the test process: real join, outbox and MQTT, with keys that tests can misuse.

It is the gateway's side of the shared engine without the gateway product, so that central can be
tested against what no honest gateway would say.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.introduction import introduce
from shared.kernel.ids import serial_text
from shared.mqtt.link import BrokerAddress
from shared.mqtt.session import Notice, Session, Wire, presence, subscription
from shared.pki import formats, keys
from shared.pki.certificates import Issuer
from shared.store.database import Database
from shared.store.link import LinkTables, SqlLink
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.sync import envelope, inbox
from shared.sync.effects import Contact, Stop
from shared.sync.ends import Keys
from shared.sync.envelope import Address, Signer
from shared.sync.events import Direction, Event
from shared.sync.join import CENTRAL_NAME, JoinAnswer, JoinRequest, JoinToken, spki_hash
from shared.sync.replicator import GatewayReplicator
from shared.system.clock import SystemClock
from shared.web.tls import load_identity
from tests.support.pki_hierarchy import Authority, leaf_plan, subject

_PATIENCE_S = 60


class PuppetKeys:
    """The four keys of a gateway, and what they prove."""

    def __init__(self) -> None:
        self.transport, self.event, self.exchange, self.authority = (
            keys.generate() for _ in range(4)
        )

    def request(self, token: JoinToken, **changes: Any) -> JoinRequest:
        csrs = {f"{use}_csr": csr(getattr(self, use)) for use in vars(self)}
        fields = {"name": token.name, "secret": token.secret, "software": "puppet", **csrs}
        return JoinRequest(**fields | changes)


def csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


class Puppet:
    """A joined gateway; use ``open`` for its database and ``online`` for its link."""

    def __init__(self, name: str, folder: Path, own: PuppetKeys, answer: JoinAnswer) -> None:
        self.name, self.folder, self.keys, self.answer = name, folder, own, answer
        certificate = x509.load_der_x509_certificate(answer.authority)
        ca_id = keys.ca_id(own.authority.public_key())
        chain = (answer.authority, *answer.authority_chain)
        self.authority = Authority(own.authority, Issuer(ca_id, certificate, chain))
        self.received: list[Event] = []
        self.stops: list[Stop] = []
        self.contacts = 0

    @classmethod
    async def join(cls, token_text: str, folder: Path) -> "Puppet":
        token = JoinToken.parse(token_text)
        own = PuppetKeys()
        folder.mkdir()  # noqa: ASYNC240 - a test has the time
        return cls(token.name, folder, own, await introduce(token, own.request(token)))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Puppet"]:
        """Open the database, take the first directives and begin a segment, as an agent does."""
        self.outbox = Outbox.of_gateway(self.name, "puppet")
        self.database = await Database.open(
            self.folder / "puppet.db", sink=self.outbox, clock=SystemClock()
        )
        try:
            address = Address(self.name, Direction.DOWN)
            for data in self.answer.envelopes:
                batch = envelope.open_(data, self._directive_key, address)
                await self.link.run(
                    lambda tables, batch=batch: inbox.accept(tables, address, batch)
                )
            await self.database.writer.run(lambda tx: self.outbox.start(tx, CENTRAL_NAME))
            yield self
        finally:
            await self.database.close()

    @property
    def link(self) -> SqlLink:
        return SqlLink(self.database.writer, self.outbox, CENTRAL_NAME, self._apply)

    @asynccontextmanager
    async def online(self) -> AsyncIterator["Puppet"]:
        """Keep a link to the broker."""
        session = Session(
            self._address(), clock=SystemClock(), random=os.urandom, observe=self._observe
        )
        signer = Signer(spki_hash(keys.spki(self.keys.event.public_key())), self.keys.event)
        end = GatewayReplicator(
            self.name,
            Keys([signer], self._directive_key),
            version="puppet",
            random=os.urandom,
            now=SystemClock().now(),
        )
        session.add(self.name, Wire(end, self.link))
        loop = asyncio.get_running_loop()
        self.outbox.wake = lambda _peer: loop.call_soon_threadsafe(session.wake, self.name)
        task = asyncio.create_task(session.run())
        try:
            yield self
        finally:
            self.outbox.wake = lambda _peer: None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def certificate(self, device_id: str, authority: Authority | None = None) -> dict[str, Any]:
        """Issue a certificate and give the body of its event."""
        serial = int.from_bytes(os.urandom(16), "big")
        issuer = authority or self.authority
        der = issuer.issue(leaf_plan(subject=subject(f"{device_id}.example", device_id)), serial)
        *_, grant = [event for event in self.received if event.type == "directive.grant"]
        return {
            "ca_id": issuer.issuer.ca_id,
            "serial": serial_text(serial),
            "der": der,
            "profile": "tls-server",
            "profile_version": 1,
            "purpose": "tls-server",
            "device_id": device_id,
            "alias": "rest",
            "protocol": "rest",
            "principal": "station:puppet",
            "metadata": {"line": "7"},
            "grant_id": grant.body["document"]["grant_id"],
            "test": False,
            "replaces": None,
            "intent_id": "0",
        }

    async def emit(self, type_name: str, *bodies: dict[str, Any]) -> None:
        """Write events into the outbox, in one transaction."""

        def unit(tx: Transaction) -> None:
            for body in bodies:
                tx.emit(type_name, body, actor="station:puppet")

        await self.database.writer.run(unit)

    async def drained(self) -> None:
        """Wait until central confirmed everything."""
        await self.until(self._is_drained)

    async def until(self, probe: Any) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not await probe():  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.05)

    async def heard(self, type_name: str) -> Event:
        """Wait for a directive and give it."""

        async def probe() -> bool:
            return any(event.type == type_name for event in self.received)

        await self.until(probe)
        return next(event for event in self.received if event.type == type_name)

    async def stopped(self) -> Stop:
        """Wait until central says that this gateway must stop."""

        async def probe() -> bool:
            return bool(self.stops)

        await self.until(probe)
        return self.stops[0]

    async def _is_drained(self) -> bool:
        def unit(tx: Transaction) -> int:
            return LinkTables(tx, self.outbox, CENTRAL_NAME, self._apply).backlog()

        return await self.database.writer.run(unit) == 0

    def _apply(self, _tx: Transaction, events: Sequence[Event]) -> None:
        self.received.extend(events)

    def _observe(self, _gateway: str, notice: Notice) -> None:
        if isinstance(notice, Stop):
            self.stops.append(notice)
        self.contacts += isinstance(notice, Contact)

    def _directive_key(self, kid: bytes) -> ec.EllipticCurvePublicKey:
        assert kid == spki_hash(self.answer.directive_key)
        return keys.load_spki(self.answer.directive_key)

    def _address(self) -> BrokerAddress:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=formats.pem([self.answer.transport_root]))
        key = self.keys.transport.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        load_identity(context, formats.pem([self.answer.transport_certificate]).encode(), key)
        return BrokerAddress(
            self.answer.broker_host,
            self.answer.broker_port,
            tls=context,
            subscription=subscription(self.name),
            presence=presence(self.name),
        )
