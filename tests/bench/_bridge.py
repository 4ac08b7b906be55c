"""The peer: a mosquitto that queues for a mosquitto, by its bridge, with persistence."""

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.processes import ManagedProcess, listening

_TOPIC = "backlog/1"
_IN_FLIGHT = 200
_GIVE_UP_S = 300.0
_SESSION_S = 3600


@dataclass(frozen=True, slots=True)
class Drain:
    """How a backlog came over: seconds from the first to the last message, and what was lost."""

    messages: int
    seconds: float
    first_after_s: float  # from link-up to the first message
    lost: int
    doubled: int

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


def _config(folder: Path, name: str, port: int, bridge_to: int | None) -> Path:
    """Persistence on, queues without limit: what a careful administrator would set."""
    data = folder / name
    data.mkdir(exist_ok=True)
    lines = [
        f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence true",
        f"persistence_location {data}/", "autosave_interval 1800", "max_queued_messages 0",
        "max_queued_bytes 0", f"max_inflight_messages {_IN_FLIGHT}", "set_tcp_nodelay true",
        "log_dest stderr", "log_type error", "user root",
    ]  # fmt: skip
    if bridge_to is not None:
        lines += [
            "connection up", f"address 127.0.0.1:{bridge_to}", "topic # out 1",
            "bridge_protocol_version mqttv50", "cleansession false", "restart_timeout 1",
        ]  # fmt: skip
    path = folder / f"{name}.conf"
    path.write_text("\n".join([*lines, ""]), "ascii")
    return path


def _broker(folder: Path, name: str, port: int, bridge_to: int | None) -> ManagedProcess:
    argv = ["mosquitto", "-c", str(_config(folder, name, port, bridge_to))]
    return ManagedProcess(name, argv, folder / f"{name}.log", extra_environ={})


class _Receiver:
    """The subscriber at the far end, with a session that outlives its connection."""

    def __init__(self, port: int, expected: int) -> None:
        self.times: list[float] = []
        self.seen: dict[bytes, int] = {}
        self._expected = expected
        self._done = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="far", protocol=mqtt.MQTTv5
        )
        self._client.on_message = self._on_message
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = _SESSION_S
        lasting.ReceiveMaximum = _IN_FLIGHT
        self._client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()

    def wait(self) -> None:
        self._done.wait(_GIVE_UP_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self.times.append(time.perf_counter())
        place = bytes(message.payload[:8])
        self.seen[place] = self.seen.get(place, 0) + 1
        if len(self.seen) >= self._expected:
            self._done.set()


def _fill(port: int, payloads: Sequence[bytes]) -> None:
    """Publish the backlog while the far broker is away; each payload begins with its number."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="near", protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number, payload in enumerate(payloads):
        info = client.publish(_TOPIC, number.to_bytes(8, "big") + payload, qos=1)
        if number % _IN_FLIGHT == 0:
            info.wait_for_publish(_GIVE_UP_S)
    info.wait_for_publish(_GIVE_UP_S)
    client.disconnect()
    client.loop_stop()


def drain(payloads: Sequence[bytes], port: int) -> Drain:
    """Queue all payloads at the near broker, start the far one, and time what arrives.

    ``port`` and the next one must be free.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        near = _broker(folder, "near", port, port + 1)
        far = _broker(folder, "far", port + 1, None)
        try:
            # The far side must know its subscriber before the first message comes.
            far.start()
            far.wait_ready(lambda: listening(port + 1))
            near.start()
            near.wait_ready(lambda: listening(port))
            receiver = _Receiver(port + 1, len(payloads))
            time.sleep(1)
            receiver.close()
            far.stop()
            _fill(port, payloads)
            up = time.perf_counter()
            far.start()
            far.wait_ready(lambda: listening(port + 1))
            receiver = _Receiver(port + 1, len(payloads))
            receiver.wait()
            receiver.close()
        finally:
            near.stop()
            far.stop()
    times = receiver.times
    return Drain(
        messages=len(payloads),
        seconds=max(times) - min(times),
        first_after_s=min(times) - up,
        lost=len(payloads) - len(receiver.seen),
        doubled=sum(count - 1 for count in receiver.seen.values()),
    )
