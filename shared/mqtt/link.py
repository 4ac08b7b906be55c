"""One MQTT 5 connection at a time, on the asyncio loop, kept up for ever.

paho's own reconnecting, queueing and threads are not used (research/sync.md §1.4): each connection
is a fresh client with a clean session, at most the broker's Receive Maximum is unacknowledged, and
what a lost connection held is gone. Replication sends it again.
"""

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from shared.kernel import limits
from shared.kernel.ids import Random

_KEEPALIVE_S = 20
_CONNECT_TIMEOUT_S = 10
_HANDSHAKE_TIMEOUT_S = 20  # from TCP connect to the broker's SUBACK
_MISC_INTERVAL_S = 1
_PAUSE_S, _PAUSE_S_MAX = 1, 60
#: Where nobody listened, asking again costs nobody anything: when the link is back, it is used.
_UNREACHABLE_PAUSE_S_MAX = 2
_STEADY_S = 10  # a connection that lived so long was no failed attempt
#: Messages that wait for an acknowledgement slot; more than that would only wait to be repeated.
_QUEUE_MESSAGES_MAX = 4_096
#: When the broker names no Receive Maximum, 65,535 holds (MQTT 5 §3.2.2.3.3): far too many.
_RECEIVE_MAXIMUM = 64
_PACKET_BYTES_MAX = limits.ENVELOPE_BYTES_MAX + 4096


@dataclass(frozen=True, slots=True)
class Presence:
    """A retained message: ``online`` while connected, ``offline`` (the will) otherwise."""

    topic: str
    online: bytes
    offline: bytes


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and as whom we connect; ``tls`` holds our transport identity."""

    host: str
    port: int
    tls: ssl.SSLContext
    subscription: str
    presence: Presence | None = None


class LinkUser(Protocol):
    """Who uses the link. All calls come on the loop and must not raise."""

    def link_up(self, receive_maximum: int) -> None:
        """Publish from now on: the subscription stands."""
        ...

    def link_down(self, reason: str) -> None:
        """Learn that there is no connection any more, or yet; ``reason`` is for a person."""
        ...

    def message(self, topic: str, payload: bytes) -> None:
        """Take what came."""
        ...


class Link:
    """Keeps one connection to the broker; see ``run``."""

    def __init__(self, address: BrokerAddress, random: Random) -> None:
        self._address = address
        self._random = random
        self._connection: _Connection | None = None

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1 when the window allows; dropped without a connection."""
        if self._connection is not None:
            self._connection.publish(topic, payload)

    def close(self, reason: str) -> None:
        """End the present connection; ``run`` makes the next one."""
        if self._connection is not None:
            self._connection.end(reason)

    async def run(self, user: LinkUser) -> None:
        """Connect, and again after each loss with full jitter (1 s doubling to 60 s); no end.

        The pause grows only where the broker was reached: hundreds of handshakes at once are a
        load, hundreds of refused connections are none.
        """
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began = loop.time()
            reason, reached = await self._once(user)
            user.link_down(reason)
            attempt = 0 if loop.time() - began > _STEADY_S else attempt + 1
            await asyncio.sleep(self._pause(attempt, reached=reached))

    async def _once(self, user: LinkUser) -> tuple[str, bool]:
        """Live through one connection; give the reason of its end, and whether it was one."""
        connection = _Connection(self._address, user)
        try:
            try:
                async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                    receive_maximum = await connection.open()
            except (OSError, ValueError, TimeoutError, _EndedError) as error:
                return _sentence(error), connection.reached
            self._connection = connection
            user.link_up(receive_maximum)
            return await connection.ended(), True
        finally:
            self._connection = None
            connection.close()

    def _pause(self, attempt: int, *, reached: bool) -> float:
        fraction = int.from_bytes(self._random(4), "big") / 2**32
        longest_s = _PAUSE_S_MAX if reached else _UNREACHABLE_PAUSE_S_MAX
        return fraction * min(longest_s, _PAUSE_S * 2 ** min(attempt, 10))


class _Client(Client):
    """paho's client, but its socket is born here: undelayed, and closed if TLS fails.

    paho sets no TCP_NODELAY, which together with TLS costs a factor of 100 (research/sync.md
    §1.4), and leaks the socket when the handshake fails.
    """

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._broker = address
        self.reached = False  # somebody listened there

    def _create_socket(self) -> Any:
        place = self._broker.host, self._broker.port
        plain = socket.create_connection(place, timeout=_CONNECT_TIMEOUT_S)
        self.reached = True
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._broker.tls.wrap_socket(plain, server_hostname=self._broker.host)


class _EndedError(Exception):
    """The connection ended before it stood."""


class _Connection:
    """One paho client from CONNECT to the end; all of it on the loop except connecting."""

    def __init__(self, address: BrokerAddress, user: LinkUser) -> None:
        self._address = address
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._standing: asyncio.Future[int] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._unacknowledged = 0
        self._receive_maximum = _RECEIVE_MAXIMUM
        self._socket: socket.socket | None = None
        self._misc: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Future[None] | None = None
        self._client = self._make_client()

    def _make_client(self) -> _Client:
        client = _Client(self._address)
        client.max_inflight_messages_set(0)  # paho's limit would queue in paho; ours is below
        if presence := self._address.presence:
            client.will_set(presence.topic, presence.offline, qos=1, retain=True)
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._want_no_write
        client.on_socket_close = self._forget_socket
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    @property
    def reached(self) -> bool:
        """Whether somebody listened at the broker's address."""
        return self._client.reached

    async def open(self) -> int:
        """Connect and subscribe; give the Receive Maximum to keep to."""
        self._connecting = self._loop.run_in_executor(None, self._connect)
        await asyncio.shield(self._connecting)
        opened = self._client.socket()
        if not isinstance(opened, socket.socket):
            raise _EndedError("The broker closed the connection.")
        self._socket = opened
        self._loop.add_reader(opened, self._read)
        self._tick()
        return await self._standing

    def _connect(self) -> None:
        """Run in a thread: name look-up, TCP and TLS block."""
        properties = Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = _PACKET_BYTES_MAX
        self._client.connect(
            self._address.host,
            self._address.port,
            keepalive=_KEEPALIVE_S,
            clean_start=True,  # and without a session expiry the broker keeps nothing
            properties=properties,
        )

    async def ended(self) -> str:
        """Wait for the end and give its reason."""
        return await asyncio.shield(self._ended)

    def end(self, reason: str) -> None:
        """Let ``ended`` and ``open`` return."""
        if not self._ended.done():
            self._ended.set_result(reason)
        if not self._standing.done():
            self._standing.set_exception(_EndedError(reason))
            self._standing.exception()  # retrieved, also when nobody waits for it any more

    def close(self) -> None:
        """Say goodbye with the will, and let go of the socket, now or once it is there."""
        self.end("The link was closed.")
        if self._misc is not None:
            self._misc.cancel()
        if self._connecting is not None:
            self._connecting.add_done_callback(self._hang_up)

    def _hang_up(self, connecting: asyncio.Future[None]) -> None:
        if connecting.exception() is not None:
            return
        opened = self._client.socket()
        self._client.disconnect(
            reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
        )
        self._client.loop_write()
        if isinstance(opened, socket.socket) and opened.fileno() >= 0:
            self._forget_socket(self._client, None, opened)
            opened.close()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send now or when an acknowledgement makes room."""
        if len(self._waiting) < _QUEUE_MESSAGES_MAX:
            self._waiting.append((topic, payload))
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._unacknowledged < self._receive_maximum:
            topic, payload = self._waiting.popleft()
            self._unacknowledged += 1
            self._client.publish(topic, payload, qos=1)

    def _tick(self) -> None:
        """Let paho send its pings and notice silence."""
        self._checked(self._client.loop_misc())
        self._misc = self._loop.call_later(_MISC_INTERVAL_S, self._tick)

    def _read(self) -> None:
        """Read all there is: TLS may hold decrypted packets that no select will announce."""
        self._checked(self._client.loop_read())
        while isinstance(self._socket, ssl.SSLSocket) and self._pending(self._socket):
            self._checked(self._client.loop_read())

    def _pending(self, opened: ssl.SSLSocket) -> bool:
        try:
            return not self._ended.done() and opened.pending() > 0
        except ValueError:  # closed by a read before
            return False

    def _write(self) -> None:
        self._checked(self._client.loop_write())

    def _checked(self, code: MQTTErrorCode) -> None:
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.end("The connection to the broker was lost.")

    def _want_write(self, client: Client, userdata: Any, opened: Any) -> None:
        del client, userdata
        # Comes from the connecting thread too. On the loop's own thread it merely waits a turn.
        self._loop.call_soon_threadsafe(self._add_writer, opened)

    def _add_writer(self, opened: Any) -> None:
        if not self._ended.done() and opened.fileno() >= 0 and self._client.want_write():
            self._loop.add_writer(opened, self._write)

    def _want_no_write(self, client: Client, userdata: Any, opened: Any) -> None:
        del client, userdata
        if opened.fileno() >= 0:
            self._loop.remove_writer(opened)

    def _forget_socket(self, client: Client, userdata: Any, opened: Any) -> None:
        del client, userdata
        if self._socket is not None and opened.fileno() >= 0:
            self._loop.remove_reader(opened)
            self._loop.remove_writer(opened)

    def _on_connect(
        self,
        client: Client,
        userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del userdata, flags
        if reason.is_failure:
            self.end(f"The broker refused the connection: {reason}.")
            return
        named = getattr(properties, "ReceiveMaximum", _RECEIVE_MAXIMUM)
        self._receive_maximum = min(named, _RECEIVE_MAXIMUM)
        client.subscribe(self._address.subscription, qos=1)

    def _on_subscribe(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del userdata, mid, properties
        if any(reason.is_failure for reason in reasons):
            self.end("The broker refused the subscription.")
            return
        if presence := self._address.presence:
            self._unacknowledged += 1
            client.publish(presence.topic, presence.online, qos=1, retain=True)
        if not self._standing.done():
            self._standing.set_result(self._receive_maximum)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        del client, userdata
        self._user.message(message.topic, bytes(message.payload))

    def _on_publish(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, mid, reason, properties
        self._unacknowledged -= 1
        self._pump()

    def _on_disconnect(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        origin = "The broker ended" if flags.is_disconnect_packet_from_server else "We lost"
        self.end(f"{origin} the connection: {reason}.")


def _sentence(error: Exception) -> str:
    if isinstance(error, _EndedError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "The broker did not answer in time."
    if isinstance(error, ssl.SSLError):
        return "The broker's certificate or ours was refused."
    return "The broker cannot be reached."
