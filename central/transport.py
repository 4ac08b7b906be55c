"""The transport while central runs: its TLS contexts, the broker's files, who is shut out."""

import asyncio
import logging
import ssl
from contextlib import suppress
from functools import partial

from central.authority import plans
from central.authority.hierarchy import record
from central.core import Core
from central.sync import fleet
from central.sync.listener import Listener
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import StorageFullError
from shared.kernel.ids import Random
from shared.mqtt.link import BrokerAddress, Link
from shared.mqtt.session import subscription
from shared.pki import formats
from shared.store import facts
from shared.web.tls import load_identity

_LOG = logging.getLogger(__name__)
_KICK_TIMEOUT_S = 10
_CRL_INTERVAL_US = 24 * 3600 * US_PER_SECOND


class Transport:
    """Keeps the transport trustworthy: fresh identities and CRL, revoked gateways outside."""

    def __init__(self, central: Core, random: Random) -> None:
        """Take central's state; ``refresh`` must run once before the contexts are used."""
        self._central = central
        self._random = random
        self._certificate = b""
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self.server, self.client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        root = central.hierarchy.transport.issuer.chain
        self.client.load_verify_locations(cadata=formats.pem(root))
        self.listener: Listener | None = None

    def address(self) -> BrokerAddress:
        """Say where the broker is, and as whom central connects."""
        settings = self._central.settings
        return BrokerAddress(
            settings.broker_host,
            settings.broker.port,
            tls=self.client,
            subscription=subscription(None),
        )

    async def refresh(self) -> None:
        """Renew what is half spent: own and the broker's identity, the transport CRL.

        The first time the CRL is signed anew in any case: a crash may have come between a
        revocation and its CRL.
        """
        central = self._central
        identity = await central.transport_identity()
        first = not self._certificate
        if identity.certificate != self._certificate:
            for context in (self.server, self.client):
                load_identity(context, identity.chain_pem, identity.key_pem)
            if not first and self.listener is not None:
                self.listener.renew()
            self._certificate = identity.certificate
        row = await central.reads.current_crl(central.hierarchy.transport.issuer.ca_id)
        now_us = central.clock.now().utc_us
        if first or row is None or now_us - row.this_update_us >= _CRL_INTERVAL_US:
            await self.publish_crl()
        else:
            await self._write_broker_files()

    async def shut_out(self, name: str) -> None:
        """Publish that the gateway's identity is revoked, then end the session that it may have."""
        if self.listener is not None:
            self.listener.remove(name)
        await self.publish_crl()
        await self._kick(name)

    async def follow_adopted(self) -> None:
        """Let the broker and the listener follow gateways that adopted another identity."""
        run = self._central.storage.database.writer.run
        if self.listener is not None:
            await self.listener.refresh_keys()
        if await run(lambda tx: facts.get(tx, fleet.TRANSPORT_CRL_DUE)) is not None:
            await self.publish_crl()
            await run(lambda tx: facts.put(tx, fleet.TRANSPORT_CRL_DUE, None))

    async def publish_crl(self) -> None:
        """Sign the transport CRL and have the broker read it."""
        await self._central.transport_status.sign_crl(
            self._central.hierarchy.transport.issuer.ca_id
        )
        await self._write_broker_files()

    async def _write_broker_files(self) -> None:
        directory = await self._central.broker_directory()
        if directory is None:
            return
        identity = await self._central.broker_identity()
        crl = await self._central.transport_crl()
        try:
            directory.write_identity(identity)
            directory.write_crl(crl)
        except (OSError, StorageFullError) as error:
            _LOG.warning("The broker's directory cannot be written: %s", error)
        directory.reload()

    async def _kick(self, name: str) -> None:
        """Take the session over and close it: the broker lets a name be connected once only.

        Reading the CRL again does not end a connection that stands. The identity for this lives
        in memory for seconds; the revoked one cannot connect again.
        """
        central = self._central
        issuer = central.hierarchy.transport
        identity = await central.identities.make(issuer, partial(plans.gateway_transport, name))
        await central.storage.database.writer.run(
            lambda transaction: record(
                transaction, issuer.issuer.ca_id, identity.certificate, "transport"
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=formats.pem(issuer.issuer.chain))
        load_identity(context, identity.chain_pem, identity.key_pem)
        settings = central.settings
        address = BrokerAddress(
            settings.broker_host, settings.broker.port, tls=context, subscription=subscription(name)
        )
        connected = _Connected()
        task = asyncio.create_task(Link(address, self._random).run(connected))
        with suppress(TimeoutError):
            async with asyncio.timeout(_KICK_TIMEOUT_S):
                await connected.event.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Connected:
    """Waits for a connection."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def link_up(self, receive_maximum: int) -> None:
        del receive_maximum
        self.event.set()

    def link_down(self, reason: str) -> None:
        _LOG.info("%s", reason)

    def message(self, topic: str, payload: bytes) -> None:
        del topic, payload
