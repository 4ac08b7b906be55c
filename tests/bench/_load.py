"""The client side of a measurement: prepared requests over keep-alive connections, and the CPU of
the server process that answers them, read from outside."""

import asyncio
import json
import os
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[2]
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of operations cost the server."""

    operations: int
    cpu_s: float
    wall_s: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server for one operation."""
        return self.cpu_s * 1e6 / self.operations

    @property
    def rate(self) -> float:
        """Operations per second of wall time."""
        return self.operations / self.wall_s

    def __add__(self, other: "Cost") -> "Cost":
        """Take two rounds together."""
        return Cost(
            self.operations + other.operations,
            self.cpu_s + other.cpu_s,
            self.wall_s + other.wall_s,
        )


def signing_requests(count: int, prefix: str) -> list[str]:
    """Make PEM CSRs, all different, on one P-256 key per hundred (making keys is not measured)."""
    csrs: list[str] = []
    for number in range(count):
        if number % 100 == 0:
            key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{prefix}-{number:06}")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        csrs.append(csr.public_bytes(serialization.Encoding.PEM).decode())
    return csrs


def post(path: str, body: object, headers: dict[str, str]) -> bytes:
    """Encode one HTTP/1.1 request."""
    data = json.dumps(body, separators=(",", ":")).encode()
    head = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": len(data)}
    lines = [f"POST {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in (head | headers).items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def measure(
    pid: int,
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    operations_each: int = 1,
    tls: ssl.SSLContext | None = None,
) -> Cost:
    """Send all requests over so many connections and read what they cost process ``pid``.

    Connecting is not measured. Raises RuntimeError at the first answer that is no success.
    """
    links = [await asyncio.open_connection("127.0.0.1", port, ssl=tls) for _ in range(connections)]
    waiting = deque(requests)
    cpu_before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(*(_work(*link, waiting) for link in links))
    cost = Cost(
        len(requests) * operations_each, cpu_seconds(pid) - cpu_before, time.perf_counter() - began
    )
    for _reader, writer in links:
        writer.close()
    return cost


async def _work(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: deque[bytes]
) -> None:
    while waiting:
        writer.write(waiting.popleft())
        head = await reader.readuntil(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields if field)
        body = await reader.readexactly(int(headers["content-length"]))
        if status.split()[1][0] != "2":
            raise RuntimeError(f"{status}: {body[:500].decode()}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads, with children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def record(
    name: str, value: float, unit: str, *, reference: str, reference_value: float, **more: object
) -> None:
    """Write ``var/bench/<name>.json`` (design.md §11)."""
    folder = ROOT / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "reference": reference,
        "reference_value": round(reference_value, 3),
        "ratio": round(value / reference_value, 3),
    }
    (folder / f"{name}.json").write_text(
        f"{json.dumps(figures | more, indent=2, ensure_ascii=False)}\n", "utf-8"
    )
