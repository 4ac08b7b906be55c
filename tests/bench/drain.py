"""How fast a backlog drains: ours, with signatures, chain, mutual TLS and a durable apply, against
a mosquitto-to-mosquitto bridge with persistence and unlimited queues, in the same run.

Both move the same events: those that a real gateway wrote for real certificates while its link was
cut. Ours counts from the first applied event to the last one; the bridge from its first delivered
message to its last, and nobody stores what it delivers.
"""

import argparse
import asyncio
import ssl
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import _bridge
from tests.bench._bridge import Drain
from tests.bench._load import cpu_seconds, measure, record, resident_mb, signing_requests
from tests.bench._load import post as encode
from tests.support.fleet import Fleet, Gateway
from tests.support.postgres import postgres
from tests.support.processes import PortBlocks, wait_until
from tests.support.products import described_fleet, rows
from tests.support.rest import Device, connect

_EVENTS = 50_000
_BATCH = 500
_NAME = "gw-01"
_POLL_S = 0.01
_URGENT = "tls-server"  # told apart from the backlog by its profile
_REVOCATIONS = 20
_GIVE_UP_S = 1_200.0
_APPLIED = (
    "SELECT coalesce(sum(applied), 0) FROM cursor WHERE peer = ? AND direction = 'in' AND lane = 1"
)
_WRITTEN = "SELECT count(*) FROM outbox WHERE lane = 1"


def _enroll(fleet: Fleet, gateway: Gateway, count: int) -> None:
    """Issue by batches, as a label printer's line does."""

    def batch(csrs: Sequence[str]) -> bytes:
        data = [
            {"type": "certificate", "attributes": {"profile": "tls-client", "csr": csr}}
            for csr in csrs
        ]
        headers = {"Authorization": f"Bearer {gateway.station_token}"}
        return encode("/api/v2.0/certificates/batch", {"data": data}, headers)

    csrs = signing_requests(count, "drain")
    bodies = [batch(csrs[at : at + _BATCH]) for at in range(0, count, _BATCH)]
    asyncio.run(
        measure(
            gateway.process.pid,
            gateway.port,
            bodies,
            connections=2,
            operations_each=_BATCH,
            tls=ssl.create_default_context(cadata=fleet.central.ca_bundle),
        )
    )


@dataclass(slots=True)
class Ours:
    """What was seen of our drain."""

    drain: Drain
    urgent_s: list[float]
    wire_bytes_per_event: float
    der_bytes: float
    central_cpu_us: float
    gateway_cpu_us: float
    gateway_mb: float


def _applied(fleet: Fleet) -> int:
    return int(rows(fleet.central.database, _APPLIED, _NAME)[0][0])


def _ours(fleet: Fleet, gateway: Gateway, events: int) -> Ours:
    fleet.central.cut_link()
    wait_until(lambda: not gateway.snapshot()["link"]["online"], what="the link is cut")
    base = _applied(fleet)
    _enroll(fleet, gateway, events)
    written = rows(gateway.database, _WRITTEN)[0][0]
    fleet.central.traffic()
    cpu = [cpu_seconds(process.pid) for process in (fleet.central.process, gateway.process)]
    times: list[tuple[float, int]] = []
    urgent: list[float] = []
    revoker = threading.Thread(target=_revoke_some, args=(fleet, gateway, urgent), daemon=True)
    up = time.perf_counter()
    fleet.central.restore_link()
    revoker.start()
    while not times or times[-1][1] < written:
        seen = _applied(fleet)
        if seen > (times[-1][1] if times else base):
            times.append((time.perf_counter(), seen))
        if time.perf_counter() - up > _GIVE_UP_S:
            raise RuntimeError(f"Only {seen} of {written} events came over.")
        time.sleep(_POLL_S)
    spent = [
        (cpu_seconds(process.pid) - before) * 1e6 / events
        for process, before in zip((fleet.central.process, gateway.process), cpu, strict=True)
    ]
    revoker.join(_GIVE_UP_S)
    first, last = times[0], times[-1]
    known = rows(
        fleet.central.database,
        "SELECT count(*), count(DISTINCT sha256), avg(length(der)) FROM certificate"
        " WHERE origin = ? AND profile = 'tls-client'",
        _NAME,
    )[0]
    drain = Drain(
        messages=last[1] - first[1],
        seconds=last[0] - first[0],
        first_after_s=first[0] - up,
        lost=events - known[1],
        doubled=known[0] - known[1],
    )
    return Ours(
        drain=drain,
        urgent_s=urgent,
        wire_bytes_per_event=fleet.central.traffic() / events,
        der_bytes=float(known[2]),
        central_cpu_us=spent[0],
        gateway_cpu_us=spent[1],
        gateway_mb=resident_mb(gateway.process.pid),
    )


def _revoke_some(fleet: Fleet, gateway: Gateway, took_s: list[float]) -> None:
    """Revoke at the gateway during the drain and time each until central's inventory has it."""

    async def revoke(number: int) -> tuple[str, str]:
        bundle = fleet.central.ca_bundle
        async with connect(gateway.web_url, gateway.station_token, bundle) as rest:
            device = Device.make(f"urgent-{number}", _URGENT)
            answer = await rest.post(f"/cert_{_URGENT}", f"cert_{_URGENT}", {"csr": device.csr})
            attributes = answer.json()["data"]["attributes"]
            await rest.revoke(attributes["ca_id"], attributes["serial"])
            return attributes["ca_id"], attributes["serial"]

    statement = "SELECT status FROM certificate WHERE ca_id = ? AND serial = ?"
    for number in range(_REVOCATIONS):
        place = asyncio.run(revoke(number))
        began = time.perf_counter()
        while rows(fleet.central.database, statement, *place) != [("revoked",)]:
            time.sleep(_POLL_S)
        took_s.append(time.perf_counter() - began)


def _record(ours: Ours, bridge: Drain, kind: str) -> None:
    peer = "mosquitto bridge, persistence, unlimited queues, QoS 1"
    record(
        f"drain_rate{kind}", ours.drain.rate, "events per second", reference=peer,
        reference_value=bridge.rate, lost=ours.drain.lost, doubled=ours.drain.doubled,
        peer_lost=bridge.lost, peer_doubled=bridge.doubled,
        central_cpu_us=round(ours.central_cpu_us, 1), gateway_cpu_us=round(ours.gateway_cpu_us, 1),
        gateway_mb=round(ours.gateway_mb, 1),
    )  # fmt: skip
    record(f"drain_first_s{kind}", ours.drain.first_after_s, "s to the first applied event",
           reference=peer, reference_value=bridge.first_after_s)  # fmt: skip
    record(f"drain_bytes{kind}", ours.wire_bytes_per_event, "bytes on the wire per certificate",
           reference="its DER", reference_value=ours.der_bytes)  # fmt: skip
    record(f"drain_urgent_s{kind}", max(ours.urgent_s), "s, slowest revocation during the drain",
           reference="the bar", reference_value=1.0)  # fmt: skip


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=_EVENTS)
    parser.add_argument("--postgresql", action="store_true", help="central on PostgreSQL")
    options = parser.parse_args()
    events = options.events
    blocks = PortBlocks()
    with (
        tempfile.TemporaryDirectory() as name,
        postgres(durable=True) if options.postgresql else nullcontext() as server,
        described_fleet(Path(name), {"database": server.new()} if server else None) as fleet,
    ):
        fleet.start()
        gateway = fleet.add_gateway(_NAME)
        ours = _ours(fleet, gateway, events)
        statement = "SELECT event FROM outbox WHERE type = 'certificate.issued' LIMIT ?"
        payloads = [event for (event,) in rows(gateway.database, statement, events)]
        fleet.stop()
    bridge = _bridge.drain(payloads, blocks.take())
    blocks.close()
    _record(ours, bridge, "_postgresql" if options.postgresql else "")
    table = Table("", "ours", "mosquitto bridge")
    for title, value in (
        ("messages per second", lambda drain: f"{drain.rate:.0f}"),
        ("first after link-up, s", lambda drain: f"{drain.first_after_s:.2f}"),
        ("lost", lambda drain: str(drain.lost)),
        ("doubled", lambda drain: str(drain.doubled)),
    ):
        table.add_row(title, value(ours.drain), value(bridge))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"CPU per event: central {ours.central_cpu_us:.0f} µs, "
        f"gateway {ours.gateway_cpu_us:.0f} µs. On the wire "
        f"{ours.wire_bytes_per_event:.0f} bytes for a DER of {ours.der_bytes:.0f}. "
        f"Revocations in between: {max(ours.urgent_s):.2f} s at most."
    )


if __name__ == "__main__":
    main()
