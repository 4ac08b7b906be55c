"""OCSP: CPU of one answer, pre-signed and live, beside Debian's ``openssl ocsp`` responder.

    python -m tests.bench.ocsp [ROUNDS]

Both answer for the same CA, with the same responder key, over plain HTTP, in alternating rounds.
``openssl ocsp`` closes the connection after each answer; so each request brings its own connection
for both, and ours is measured over kept connections besides.
"""

import asyncio
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests.bench._load import Cost, cpu_seconds, measure, record
from tests.bench._relying import serial
from tests.support.processes import ManagedProcess, PortBlocks

_CERTIFICATES = 2_000
_HOT = 50
_REQUESTS = 1_000
_CONNECTIONS = 8


def _requests(issuer: x509.Certificate, numbers: range, *, close: bool) -> list[bytes]:
    connection = "Connection: close\r\n" if close else ""
    key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key_hash, name_hash = _sha1(key), _sha1(issuer.subject.public_bytes())
    found: list[bytes] = []
    for number in numbers:
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            name_hash, key_hash, serial(number), hashes.SHA1()
        )
        body = builder.build().public_bytes(Encoding.DER)
        head = (
            f"POST /ocsp HTTP/1.1\r\nHost: 127.0.0.1\r\n{connection}"
            f"Content-Type: application/ocsp-request\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


def _sha1(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA1())
    digest.update(data)
    return digest.finalize()


async def _each_alone(pid: int, port: int, requests: list[bytes]) -> Cost:
    """Give each request a connection of its own, a few at a time."""
    waiting = list(reversed(requests))

    async def work() -> None:
        while waiting:
            request = waiting.pop()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            if b" 200 " not in answer.partition(b"\r\n")[0]:
                raise RuntimeError(answer[:200])

    loop = asyncio.get_running_loop()
    before, began = cpu_seconds(pid), loop.time()
    await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))
    return Cost(len(requests), cpu_seconds(pid) - before, loop.time() - began)


async def _round(
    ours: tuple[int, int], peer: tuple[int, int], issuer: x509.Certificate, live_from: int
) -> dict[str, Cost]:
    hot = [n % _HOT for n in range(_REQUESTS)]
    alone = _requests(issuer, range(_HOT), close=True)
    kept = _requests(issuer, range(_HOT), close=False)
    fresh = _requests(issuer, range(live_from, live_from + _REQUESTS // 4), close=True)
    await _each_alone(*ours, alone)  # now they are kept
    return {
        "pre-signed": await _each_alone(*ours, [alone[n] for n in hot]),
        "openssl ocsp": await _each_alone(*peer, [alone[n] for n in hot]),
        "live": await _each_alone(*ours, fresh),
        "pre-signed, kept connections": await measure(
            *ours, [kept[n] for n in hot], connections=_CONNECTIONS
        ),
    }


def main() -> None:
    """Measure, print, record."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = PortBlocks().take()
        peer_port = port + 1
        server = ManagedProcess(
            "relying",
            ["python", "-m", "tests.bench._relying", name, str(port), str(_CERTIFICATES)],
            folder / "relying.log",
            extra_environ={},
        )
        peer = ManagedProcess(
            "openssl",
            ["openssl", "ocsp", "-port", str(peer_port), "-index", str(folder / "index.txt"),
             "-CA", str(folder / "ca.pem"), "-rsigner", str(folder / "responder.pem"),
             "-rkey", str(folder / "responder.key"), "-nmin", "10"],
            folder / "openssl.log",
            extra_environ={},
        )  # fmt: skip
        server.start()
        try:
            server.wait_ready((folder / "ready").exists)
            peer.start()
            # A connection that only probes sends it into an endless loop (OpenSSL 3.0).
            peer.wait_ready(lambda: "waiting for OCSP client" in peer.tail())
            _measured(rounds, folder, (server.pid, port), (peer.pid, peer_port))
        finally:
            peer.stop()
            server.stop()


def _measured(rounds: int, folder: Path, ours: tuple[int, int], peer: tuple[int, int]) -> None:
    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    sums: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds):
        found = asyncio.run(_round(ours, peer, issuer, _HOT + number * _REQUESTS // 4))
        for name, cost in found.items():
            sums[name].append(cost)
    total = {name: sum(costs[1:], costs[0]) for name, costs in sums.items()}
    reference = total["openssl ocsp"].cpu_us
    for name, cost in total.items():
        print(f"{name:30} {cost.cpu_us:8.0f} CPU µs  {cost.cpu_us / reference:5.2f} x openssl  "
              f"{cost.rate:7.0f}/s")  # fmt: skip
    for name in ("pre-signed", "live"):
        record(
            f"ocsp-{name}", total[name].cpu_us, "CPU µs per answer",
            reference="openssl ocsp, the same run", reference_value=reference,
            kept_connections_cpu_us=round(total["pre-signed, kept connections"].cpu_us, 1),
        )  # fmt: skip


if __name__ == "__main__":
    main()
