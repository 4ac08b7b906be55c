"""Revocation by query: time for 10,000 certificates, and what enrollments feel meanwhile.

python -m tests.bench.mass_revocation [CERTIFICATES]
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.bench._load import measure, post, record, signing_requests
from tests.bench.issue import Ours, ours
from tests.support.processes import PortBlocks

_BATCH = 32
_CLIENTS = 4
_QUIET_S = 3.0
_TARGET_S = 3.0
_DONE = b'"state":"done"'


class Client:
    """One keep-alive connection to the server."""

    def __init__(self, server: Ours) -> None:
        self._server = server

    async def __aenter__(self) -> Self:
        port = self._server.plain_port
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> bytes:
        """Give the body of a successful answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await self._reader.readexactly(length)
        if head.split()[1][0] != "2":
            raise RuntimeError(body.decode())
        return body


async def _enroll(server: Ours, csrs: list[str], until: asyncio.Event) -> list[float]:
    """Enroll one after the other until told to stop; gives milliseconds of each."""
    taken: list[float] = []
    async with Client(server) as client:
        while not until.is_set():
            request = server.single(csrs.pop())
            began = time.perf_counter()
            await client.ask(request)
            taken.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.01)
    return taken


async def _revoke(server: Ours) -> tuple[float, int]:
    """Revoke by one call; gives seconds until it is done, and how many."""
    head = {"Authorization": f"Bearer {server.token}"}
    attributes = {"filter": {"profile": "tls-client", "expires_before": "2150-01-01T00:00:00Z"}}
    order = {"data": {"type": "revocation", "attributes": attributes}}
    began = time.perf_counter()
    async with Client(server) as client:
        answer = json.loads(await client.ask(post("/api/v2.0/revocations", order, head)))
        look = post(answer["data"]["links"]["self"], {}, head).replace(b"POST", b"GET", 1)
        while _DONE not in (body := await client.ask(look)):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
        taken = time.perf_counter() - began
    return taken, json.loads(body)["data"]["attributes"]["revoked"]


async def _run(server: Ours, count: int) -> None:
    csrs = signing_requests(count, "lot")
    cut = [csrs[at : at + _BATCH] for at in range(0, count, _BATCH)]
    bodies = [*map(server.batch, cut)]
    await measure(
        server.process.pid, server.plain_port, bodies, connections=1, operations_each=_BATCH
    )
    more = signing_requests(20_000, "meanwhile")
    quiet, busy = asyncio.Event(), asyncio.Event()
    workers = [asyncio.create_task(_enroll(server, more, quiet)) for _ in range(_CLIENTS)]
    await asyncio.sleep(_QUIET_S)
    quiet.set()
    before = [one for worker in workers for one in await worker]
    workers = [asyncio.create_task(_enroll(server, more, busy)) for _ in range(_CLIENTS)]
    taken, revoked = await _revoke(server)
    busy.set()
    during = [one for worker in workers for one in await worker]
    p99 = [statistics.quantiles(values, n=100)[98] for values in (before, during)]
    print(f"{revoked} revoked in {taken:.2f} s; enrollment p99 {p99[0]:.1f} ms quiet, "
          f"{p99[1]:.1f} ms meanwhile ({len(before)} and {len(during)} enrollments)")  # fmt: skip
    record("mass_revocation", taken, f"s for {revoked} certificates", reference="target",
           reference_value=_TARGET_S, enrollment_p99_quiet_ms=p99[0],
           enrollment_p99_meanwhile_ms=p99[1])  # fmt: skip


def main() -> None:
    """Measure, print, record."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    blocks = PortBlocks()
    with tempfile.TemporaryDirectory() as name, ours(Path(name) / "ours", blocks.take()) as server:
        asyncio.run(_run(server, count))
    blocks.close()


if __name__ == "__main__":
    main()
