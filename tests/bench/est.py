"""What an enrollment by EST costs the server against one by REST: same server, same run, in turns.

Both send the same kind of request with the same token over one keep-alive connection, so the
difference is the front end: base64, alias, PKCS#7.
"""

import asyncio
import base64
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.bench._load import Cost, measure, record, signing_requests
from tests.bench.issue import Ours, ours
from tests.support.processes import PortBlocks

_ROUNDS = 6
_ISSUES_EACH = 400  # per protocol and round
_PATH = "/.well-known/est/tls-client/simpleenroll"


def _est(server: Ours, csr: str) -> bytes:
    """Encode what curl sends: base64 of the DER, and the token as the password."""
    body = base64.b64encode(x509.load_pem_x509_csr(csr.encode()).public_bytes(Encoding.DER))
    login = base64.b64encode(f"bench:{server.token}".encode()).decode()
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/pkcs10\r\n"
        f"Authorization: Basic {login}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _measure(server: Ours) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    encoders = {"est": lambda csr: _est(server, csr), "rest": server.single}
    for number in range(_ROUNDS + 1):
        for name, encode in encoders.items():
            requests = [*map(encode, signing_requests(_ISSUES_EACH, f"{name}-{number}"))]
            cost = await measure(server.process.pid, server.plain_port, requests, connections=1)
            if number:  # the first round warms up
                costs[name] = costs[name] + cost if name in costs else cost
    return costs


def main() -> None:
    """Measure, print and record."""
    blocks = PortBlocks()
    with tempfile.TemporaryDirectory() as name, ours(Path(name) / "ours", blocks.take()) as server:
        costs = asyncio.run(_measure(server))
    blocks.close()
    est, rest = costs["est"], costs["rest"]
    record(
        "est",
        est.cpu_us,
        "CPU µs per enrollment",
        reference="REST on the same server",
        reference_value=rest.cpu_us,
        per_second=round(est.rate, 1),
    )
    print(
        f"EST {est.cpu_us:.0f} µs, REST {rest.cpu_us:.0f} µs: ratio {est.cpu_us / rest.cpu_us:.2f}"
    )


if __name__ == "__main__":
    main()
