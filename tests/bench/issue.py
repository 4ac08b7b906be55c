"""What one durably committed issue costs: CPU of the server process, against cfssl's API ``sign``.

Both are asked over REST keep-alive with the same requests, in turns, in one run. cfssl keeps no
record of what it signs; ours commits intent and completion to SQLite with ``synchronous=FULL``.
Rows named *floor* are the bare parts alone: what no code around them can undercut.
"""

import asyncio
import json
import ssl
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench._floor import steps as steps_of_floor
from tests.bench._load import Cost, measure, post, record, signing_requests
from tests.bench._peer import cfssl, sign_request
from tests.support.processes import ManagedProcess, PortBlocks, listening

_ROUNDS = 3
_ISSUES_EACH = 960  # per case and round; a multiple of the batch
_PARALLEL = 32
_BATCH = 32
_PEER = "cfssl serve, API sign, one connection"


@dataclass(slots=True)
class Ours:
    """The measured server as its clients see it."""

    process: ManagedProcess
    folder: Path
    plain_port: int
    mtls_port: int
    token: str = ""
    tls: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def admit(self) -> None:
        """Read how to get in."""
        access = json.loads((self.folder / "access.json").read_text("utf-8"))
        identity = self.folder / "client.pem"
        identity.write_text(access["client"], "ascii")
        self.token = access["token"]
        self.tls.load_verify_locations(cadata=access["root"])
        self.tls.load_cert_chain(identity)

    def single(self, csr: str, *, token: bool = True) -> bytes:
        """Encode one enrollment, by token or by the client certificate of the connection."""
        body = {"data": {"type": "cert_client", "attributes": {"csr": csr}}}
        return post("/api/v2.0/cert_client", body, self._headers if token else {})

    def batch(self, csrs: Sequence[str]) -> bytes:
        """Encode one batch."""
        data = [
            {"type": "certificate", "attributes": {"profile": "tls-client", "csr": csr}}
            for csr in csrs
        ]
        return post("/api/v2.0/certificates/batch", {"data": data}, self._headers)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def ours(folder: Path, port: int, *flags: str) -> Iterator[Ours]:
    """Run the measured server."""
    folder.mkdir()
    argv = ["python3", "-m", "tests.bench._server", str(folder), str(port), str(port + 1), *flags]
    process = ManagedProcess("bench", argv, folder / "server.log", extra_environ={})
    process.start()
    try:
        process.wait_ready((folder / "access.json").exists)
        server = Ours(process, folder, port, port + 1)
        server.admit()
        yield server
    finally:
        process.stop()


Case = Callable[[Sequence[str]], Coroutine[Any, Any, Cost]]


def _cases(server: Ours, peer: ManagedProcess, peer_port: int) -> dict[str, Case]:
    pid = server.process.pid

    def own(connections: int) -> Case:
        return lambda csrs: measure(
            pid, server.plain_port, [*map(server.single, csrs)], connections=connections
        )

    def mutual(csrs: Sequence[str]) -> Coroutine[Any, Any, Cost]:
        bodies = [server.single(csr, token=False) for csr in csrs]
        return measure(pid, server.mtls_port, bodies, connections=1, tls=server.tls)

    def batches(csrs: Sequence[str]) -> Coroutine[Any, Any, Cost]:
        cut = [csrs[at : at + _BATCH] for at in range(0, len(csrs), _BATCH)]
        bodies = [*map(server.batch, cut)]
        return measure(pid, server.plain_port, bodies, connections=1, operations_each=_BATCH)

    def theirs(connections: int) -> Case:
        return lambda csrs: measure(
            peer.pid, peer_port, [*map(sign_request, csrs)], connections=connections
        )

    return {
        "single": own(1),
        "cfssl_single": theirs(1),
        "parallel32": own(_PARALLEL),
        "cfssl_parallel32": theirs(_PARALLEL),
        "batch32": batches,
        "mtls": mutual,
    }


async def _measure(cases: dict[str, Case]) -> dict[str, Cost]:
    """Take the cases in turns; the first, small round only warms up."""
    for name, case in cases.items():
        await case(signing_requests(_BATCH, f"warm-{name}"))
    costs: dict[str, Cost] = {}
    for number in range(_ROUNDS):
        for name, case in cases.items():
            cost = await case(signing_requests(_ISSUES_EACH, f"{name}-{number}"))
            costs[name] = costs[name] + cost if name in costs else cost
    return costs


def _steps(folder: Path, port: int) -> dict[str, float]:
    """Measure the steps of one issue in a server of its own; CPU microseconds by step."""
    with ours(folder, port, "--steps") as server:
        bodies = [*map(server.single, signing_requests(_ISSUES_EACH, "steps"))]
        cost = asyncio.run(measure(server.process.pid, server.plain_port, bodies, connections=1))
    seconds = json.loads((folder / "steps.json").read_text("utf-8"))
    steps = {name: total * 1e6 / _ISSUES_EACH for name, total in seconds.items()}
    return steps | {"HTTP, JSON, authentication": cost.cpu_us - sum(steps.values())}


def _floors(folder: Path, port: int) -> dict[str, float]:
    """Measure the bare parts of one issue; CPU microseconds."""
    folder.mkdir()
    echo = ManagedProcess(
        "echo", ["python3", "-m", "tests.bench._floor", str(port)], folder / "log", extra_environ={}
    )
    echo.start()
    try:
        echo.wait_ready(lambda: listening(port))
        bodies = [post("/", {"csr": csr}, {}) for csr in signing_requests(_ISSUES_EACH, "echo")]
        cost = asyncio.run(measure(echo.pid, port, bodies, connections=1))
    finally:
        echo.stop()
    floors = {**steps_of_floor(folder), "floor: HTTP echo": cost.cpu_us}
    return floors | {"floor: together": sum(floors.values())}


def _record(costs: dict[str, Cost], steps: dict[str, float]) -> None:
    reference = costs["cfssl_single"].cpu_us
    comparisons = {
        "issue_single": ("single", _PEER, reference),
        "issue_parallel32": (
            "parallel32", f"cfssl serve, {_PARALLEL} connections", costs["cfssl_parallel32"].cpu_us
        ),
        "issue_batch32": ("batch32", _PEER, reference),
        "issue_mtls": ("mtls", "the same without TLS", costs["single"].cpu_us),
    }  # fmt: skip
    for name, (case, peer, value) in comparisons.items():
        cost = costs[case]
        more: dict[str, object] = {"per_second": round(cost.rate, 1)}
        if case == "single":
            more["steps_us"] = {step: round(used, 1) for step, used in steps.items()}
        record(name, cost.cpu_us, "CPU µs per issue", reference=peer, reference_value=value, **more)


def _show(costs: dict[str, Cost], steps: dict[str, float]) -> None:
    console = Console(highlight=False)
    table = Table("case", "CPU µs per issue", "of cfssl singly", "issues per second")
    reference = costs["cfssl_single"].cpu_us
    for name, cost in costs.items():
        ratio = f"{cost.cpu_us / reference:.2f}"
        table.add_row(name, f"{cost.cpu_us:.0f}", ratio, f"{cost.rate:.0f}")
    console.print(table)
    breakdown = Table("step of one issue", "CPU µs")
    for step, used in steps.items():
        breakdown.add_row(step, f"{used:.0f}")
    console.print(breakdown)


def main() -> None:
    """Measure, print and record."""
    blocks = PortBlocks()
    port = blocks.take()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder / "ours", port) as server, cfssl(folder, port + 2) as peer:
            costs = asyncio.run(_measure(_cases(server, peer, port + 2)))
        steps = _steps(folder / "steps", port + 3)
        steps |= _floors(folder / "floor", port + 3)
    blocks.close()
    _record(costs, steps)
    _show(costs, steps)


if __name__ == "__main__":
    main()
