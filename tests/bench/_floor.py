"""What no implementation on these parts can go below: the bare steps of one issue, alone.

    python -m tests.bench._floor PORT

serves a plain aiohttp echo until SIGTERM; ``steps`` measures the others in the calling process.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from shared.store import writer
from tests.bench._load import signing_requests

_REPEATS = 300
_INTENT_BYTES, _CERTIFICATE_BYTES, _EVENT_BYTES = 1_500, 1_000, 1_200
_TABLES = (
    "CREATE TABLE intent (key TEXT PRIMARY KEY, document BLOB)",
    "CREATE TABLE certificate (id INTEGER PRIMARY KEY, key TEXT, der BLOB)",
    "CREATE TABLE outbox (sequence INTEGER PRIMARY KEY, event BLOB)",
)


def steps(folder: Path) -> dict[str, float]:
    """CPU microseconds (user and system) of the bare parts of one issue."""
    with closing(writer.connect(folder / "floor.db")) as connection:
        for table in _TABLES:
            connection.execute(table)
        return {
            "floor: two durable commits": _cpu_us(lambda number: _commits(connection, number)),
            "floor: verify, sign, verify": _cpu_us(_cryptography()),
        }


def _commits(connection: sqlite3.Connection, number: int) -> None:
    """Write the intent; then take it back for the certificate and the event."""
    key = f"{number:064}"
    connection.execute("BEGIN IMMEDIATE")
    intent = os.urandom(_INTENT_BYTES)
    connection.execute("INSERT INTO intent VALUES (?, ?)", (key, intent))
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM intent WHERE key = ?", (key,))
    der, event = os.urandom(_CERTIFICATE_BYTES), os.urandom(_EVENT_BYTES)
    connection.execute("INSERT INTO certificate (key, der) VALUES (?, ?)", (key, der))
    connection.execute("INSERT INTO outbox VALUES (?, ?)", (number, event))
    connection.execute("COMMIT")


def _cryptography() -> Callable[[int], None]:
    """Verify a request, sign a certificate's bytes and verify that; nothing is parsed."""
    [pem] = signing_requests(1, "floor")
    csr = x509.load_pem_x509_csr(pem.encode())
    key, algorithm = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    requester, issuer = csr.public_key(), key.public_key()
    assert isinstance(requester, ec.EllipticCurvePublicKey)
    signature, document = csr.signature, csr.tbs_certrequest_bytes

    def once(_number: int) -> None:
        requester.verify(signature, document, algorithm)
        issuer.verify(key.sign(document, algorithm), document, algorithm)

    return once


def _cpu_us(step: Callable[[int], None]) -> float:
    for number in range(_REPEATS // 10):
        step(number - _REPEATS)
    began = time.process_time()
    for number in range(_REPEATS):
        step(number)
    return (time.process_time() - began) * 1e6 / _REPEATS


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/json")


def main() -> None:
    """Serve the echo."""
    app = web.Application()
    app.router.add_post("/", _echo)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
