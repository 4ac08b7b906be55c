"""Hundreds of gateways come back at once: how long central takes to apply what they bring, and how
its API answers meanwhile.

The gateways are real ones as far as central can tell: each has joined, keeps its outbox in its own
SQLite file, and has its own MQTT connection with its own transport certificate. They share a few
processes. The reference of the API's times is the same central before they come.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from multiprocessing.synchronize import Barrier
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track

from central.console import InviteOrder
from shared.web.console import ask
from tests.bench._load import record
from tests.support.central_puppet import Puppet
from tests.support.fleet import Central
from tests.support.products import rows, running_fleet

_GATEWAYS = 300
_EVENTS = 100
_PROCESSES = 3
_GIVE_UP_S = 600.0
_QUIET_S = 5.0
_PAUSE_S = 0.05
_APPLIED = "SELECT count(*) FROM certificate WHERE profile = 'tls-server' AND origin LIKE 'gw-%'"
_ONCE = "SELECT count(DISTINCT sha256) FROM certificate WHERE origin LIKE 'gw-%'"
_PATHS = ("/api/v2.0/certificates?page[size]=25", "/api/v2.0/sync")


async def _born(tokens: Sequence[str], folder: Path, events: int) -> list[Puppet]:
    """Join with each token and write events into the outbox, without a link."""
    puppets = [
        await Puppet.join(token, folder / f"{number}") for number, token in enumerate(tokens)
    ]
    for puppet in puppets:
        async with puppet.open():
            bodies = [puppet.certificate(f"{puppet.name}-{number}") for number in range(events)]
            await puppet.emit("certificate.issued", *bodies)
    return puppets


async def _come_back(tokens: Sequence[str], folder: Path, events: int, gate: Barrier) -> None:
    puppets = await _born(tokens, folder, events)
    async with AsyncExitStack() as stack:
        for puppet in puppets:
            await stack.enter_async_context(puppet.open())
        await asyncio.to_thread(gate.wait)  # all are born
        await asyncio.to_thread(gate.wait)  # go
        for puppet in puppets:
            await stack.enter_async_context(puppet.online())
        await asyncio.to_thread(gate.wait)


def _process(tokens: Sequence[str], folder: Path, events: int, gate: Barrier) -> None:
    folder.mkdir()
    asyncio.run(_come_back(tokens, folder, events, gate))


async def _ask(central: Central, until: Callable[[], Awaitable[bool]]) -> list[float]:
    """Ask the API again and again; give the seconds that each answer took."""
    context = ssl.create_default_context(cadata=central.ca_bundle)
    headers = {"Authorization": f"Bearer {central.admin_token}"}
    took: list[float] = []
    async with httpx.AsyncClient(
        verify=context, headers=headers, base_url=central.web_url, trust_env=False, timeout=60
    ) as client:
        for path in itertools.cycle(_PATHS):
            began = time.perf_counter()
            answer = await client.get(path)
            took.append(time.perf_counter() - began)
            if answer.status_code != httpx.codes.OK:
                raise RuntimeError(f"{path}: {answer.status_code}")
            if await until():
                return took
            await asyncio.sleep(_PAUSE_S)
    raise AssertionError


def _invite(central: Central, name: str) -> str:
    socket = central.folder / "state" / "run" / "central.sock"
    return ask(socket, "POST", "/gateways", InviteOrder(name=name))["token"]


def _p95_ms(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1] * 1e3


async def _measure(
    central: Central, gate: Barrier, expected: int
) -> tuple[list[float], list[float], float]:
    """Give the API's times before and meanwhile, and how long it took."""
    await asyncio.to_thread(gate.wait)
    quiet_until = time.perf_counter() + _QUIET_S

    async def rested() -> bool:
        return time.perf_counter() > quiet_until

    quiet = await _ask(central, rested)
    await asyncio.to_thread(gate.wait)
    began = time.perf_counter()

    async def applied() -> bool:
        if time.perf_counter() - began > _GIVE_UP_S:
            raise RuntimeError("Not everything was applied in time.")
        [(count,)] = await asyncio.to_thread(rows, central.database, _APPLIED)
        return count >= expected

    busy = await _ask(central, applied)
    return quiet, busy, time.perf_counter() - began


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, default=_GATEWAYS)
    parser.add_argument("--events", type=int, default=_EVENTS, help="certificates of each gateway")
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as name, running_fleet(Path(name)) as fleet:
        central = fleet.central
        names = [f"gw-{number:03}" for number in range(options.gateways)]
        tokens = [_invite(central, name) for name in track(names, "Inviting", console=console)]
        context = multiprocessing.get_context("spawn")
        gate = context.Barrier(_PROCESSES + 1)
        workers = [
            context.Process(
                target=_process,
                args=(tokens[n::_PROCESSES], Path(name) / f"worker-{n}", options.events, gate),
                daemon=True,
            )
            for n in range(_PROCESSES)
        ]
        for worker in workers:
            worker.start()
        expected = options.gateways * options.events
        quiet, busy, seconds = asyncio.run(_measure(central, gate, expected))
        gate.wait()
        for worker in workers:
            worker.join()
        [(applied,)], [(once,)] = rows(central.database, _APPLIED), rows(central.database, _ONCE)
    record(
        "reconnect_api_p95_ms", _p95_ms(busy), "ms, 95th percentile of central's API meanwhile",
        reference="the bar", reference_value=250.0, quiet_ms=round(_p95_ms(quiet), 1),
        gateways=options.gateways, applied=applied, doubled=applied - once,
        lost=expected - once, seconds=round(seconds, 1),
    )  # fmt: skip
    console.print(
        f"{options.gateways} gateways with {options.events} events each: {applied} applied in "
        f"{seconds:.1f} s, {expected - once} lost, {applied - once} doubled. API p95 "
        f"{_p95_ms(busy):.0f} ms ({len(busy)} calls), before {_p95_ms(quiet):.0f} ms."
    )


if __name__ == "__main__":
    main()
