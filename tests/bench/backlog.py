"""A gateway that was months without a link: how it starts with a million queued events, what memory
it takes, and whether its backlog drains as fast at the end as at the beginning.

Real gateway, broker and central. The events are written by the product's own outbox, chained and
durable, while the gateway is down: refusals, because a million certificates take an hour to sign.
What a drain of certificates costs is measured by ``drain``; here the length of the queue counts.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.progress import track

from gateway.version import VERSION
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.system.clock import SystemClock
from tests.bench._load import record, resident_mb
from tests.support.fleet import Fleet, Gateway
from tests.support.processes import wait_until
from tests.support.products import rows, running_fleet

_EVENTS = 1_000_000
_AT_ONCE = 5_000
_NAME = "gw-01"
_PARTS = 10
_POLL_S = 0.1
_GIVE_UP_S = 3_600.0
_APPLIED = "SELECT coalesce(sum(applied), 0) FROM cursor WHERE peer = ? AND direction = 'in'"
_REFUSED = "SELECT value FROM counter WHERE name = ?"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one gateway and its queue."""

    start_s: float
    start_mb: float
    most_mb: float
    rates: list[float]  # events per second, by tenths of the queue

    @property
    def flatness(self) -> float:
        """The rate of the last tenth over that of the first whole one."""
        return self.rates[-1] / self.rates[0]


async def _fill(gateway: Gateway, events: int, console: Console) -> None:
    outbox = Outbox.of_gateway(_NAME, VERSION)
    database = await Database.open(gateway.database, sink=outbox, clock=SystemClock())

    def some(transaction: Transaction) -> None:
        for number in range(_AT_ONCE):
            transaction.emit("enrollment.refused", _refusal(number), actor="station:line-7")

    try:
        for _ in track(range(events // _AT_ONCE), "Queueing", console=console):
            await database.writer.run(some)
    finally:
        await database.close()


def _refusal(number: int) -> dict[str, object]:
    return {
        "device_id": f"SN-{number:07}",
        "profile": "tls-server",
        "protocol": "rest",
        "principal": "station:line-7",
        "rule": "subject.common_name",
        "value": f"press-{number:07}.line-7.example",
        "why": "The profile does not allow this name.",
    }


def _measure(fleet: Fleet, gateway: Gateway, events: int) -> Seen:
    before = _applied(fleet)
    began = time.perf_counter()
    gateway.start()
    start_s, start_mb = time.perf_counter() - began, resident_mb(gateway.process.pid)
    most_mb = start_mb
    fleet.central.restore_link()
    marks: list[tuple[float, int]] = []
    while len(marks) <= _PARTS:
        applied = _applied(fleet) - before
        if applied >= events * len(marks) // _PARTS and applied > 0:
            marks.append((time.perf_counter(), applied))
        most_mb = max(most_mb, resident_mb(gateway.process.pid))
        if time.perf_counter() - began > _GIVE_UP_S:
            raise RuntimeError(f"Only {applied} of {events} events came over.")
        time.sleep(_POLL_S)
    rates = [(after[1] - first[1]) / (after[0] - first[0]) for first, after in pairwise(marks)]
    return Seen(start_s, start_mb, most_mb, rates)


def _applied(fleet: Fleet) -> int:
    return rows(fleet.central.database, _APPLIED, _NAME)[0][0]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=_EVENTS)
    events = parser.parse_args().events
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as name, running_fleet(Path(name), _NAME) as fleet:
        [gateway] = fleet.gateways
        fleet.central.cut_link()
        wait_until(lambda: not gateway.snapshot()["link"]["online"], what="the link is cut")
        gateway.process.stop()
        asyncio.run(_fill(gateway, events, console))
        seen = _measure(fleet, gateway, events)
        [(refused,)] = rows(fleet.central.database, _REFUSED, f"refused/{_NAME}")
    record("backlog_memory_mb", seen.most_mb, f"MB at most, {events} events queued",
           reference="the bar", reference_value=250.0, at_start=seen.start_mb)  # fmt: skip
    record("backlog_start_s", seen.start_s, f"s to start, {events} events queued",
           reference="the bar", reference_value=5.0)  # fmt: skip
    record("backlog_flatness", seen.rates[-1], "events per second, last tenth of the queue",
           reference="its first tenth", reference_value=seen.rates[0],
           lost=events - refused, rates=[round(rate) for rate in seen.rates])  # fmt: skip
    console.print(
        f"{events} queued events: start {seen.start_s:.2f} s with {seen.start_mb:.0f} MB, at most "
        f"{seen.most_mb:.0f} MB; {statistics.mean(seen.rates):.0f} events per second, the last "
        f"tenth {seen.flatness:.2f} x the first; {events - refused} lost.\n"
        f"By tenths: {', '.join(f'{rate:.0f}' for rate in seen.rates)}."
    )


if __name__ == "__main__":
    main()
