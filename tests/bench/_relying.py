"""The measured server of status: validation routes over a database, as a gateway composes them.

    python -m tests.bench._relying FOLDER PORT CERTIFICATES

``FOLDER`` gets ``ca.pem``, ``index.txt``, ``responder.pem`` and ``responder.key``, so that the peer
answers for the same CA with the same responder.
"""

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import insert

from shared.kernel.clock import US_PER_SECOND
from shared.kernel.ids import serial_text
from shared.pki import certificates as pki
from shared.pki import formats, keys, ocsp
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import ca, certificate
from shared.system.clock import SystemClock
from shared.validation.answers import Answers
from shared.validation.routes import routes
from shared.web import app
from tests.support.pki_hierarchy import Hierarchy, subject

_DAY_US = 24 * 3600 * US_PER_SECOND
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Responder:
    """A delegated responder."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Validation(Reads):
    """The port ``Validation`` for one CA."""

    def __init__(self, database: Database, responder: Responder) -> None:
        super().__init__(database)
        self._responder = responder

    async def ocsp_status(self, ca_id: str, serial: str) -> ocsp.Status:  # type: ignore[override]
        return await super().ocsp_status(ca_id, serial, ocsp.State.UNKNOWN)

    def responder_now(self, _ca_id: str) -> Responder:
        return self._responder

    def ocsp_status_now(self, ca_id: str, serial: str) -> ocsp.Status | None:  # type: ignore[override]
        return super().ocsp_status_now(ca_id, serial, ocsp.State.UNKNOWN)

    async def responder(self, _ca_id: str) -> Responder:
        return self._responder


def serial(number: int) -> int:
    """Name the certificate of this number."""
    return (1 << 120) + number


def _responder(hierarchy: Hierarchy, now_us: int) -> Responder:
    key = keys.generate()
    plan = pki.responder_plan(
        subject("bench responder"),
        keys.spki(key.public_key()),
        not_before_us=now_us,
        not_after_us=now_us + _DAY_US,
    )
    return Responder(key, x509.load_der_x509_certificate(hierarchy.gateway.issue(plan)))


async def _fill(database: Database, hierarchy: Hierarchy, count: int, now_us: int) -> None:
    issuer = hierarchy.gateway.issuer
    row: dict[str, Any] = {
        "ca_id": issuer.ca_id, "name": "bench", "kind": "gateway", "der": issuer.chain[0],
        "state": "active", "not_after": issuer.limits.not_after_us, "crl_number": 0,
        "created_at": 0,
    }  # fmt: skip
    common = {
        "ca_id": issuer.ca_id, "origin": "", "state": "issued", "status": "good", "test": 0,
        "not_before": now_us, "not_after": now_us + 3650 * _DAY_US, "issued_at": now_us,
    }  # fmt: skip
    add = insert(certificate)

    def unit(tx: Any) -> None:
        tx.execute(insert(ca), row)
        for number in range(count):
            tx.execute(add, {**common, "serial": serial_text(serial(number))})

    await database.writer.run(unit)


def _write(folder: Path, hierarchy: Hierarchy, responder: Responder, count: int) -> None:
    """Write what ``openssl ocsp`` needs."""
    (folder / "ca.pem").write_text(formats.pem([hierarchy.gateway.issuer.chain[0]]))
    (folder / "responder.pem").write_bytes(responder.certificate.public_bytes(Encoding.PEM))
    private = responder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "responder.key").write_bytes(private)
    (folder / "index.txt").write_text(
        "".join(
            f"V\t400101000000Z\t\t{serial(number):X}\tunknown\t/CN=bench-{number}\n"
            for number in range(count)
        )
    )


async def _serve(folder: Path, port: int, count: int) -> None:
    hierarchy, clock = Hierarchy(), SystemClock()
    now_us = clock.now().utc_us // US_PER_SECOND * US_PER_SECOND
    sink = Outbox.of_gateway("bench", "bench")
    database = await Database.open(folder / "bench.db", sink=sink, clock=clock)
    await _fill(database, hierarchy, count, now_us)
    responder = _responder(hierarchy, now_us)
    answers = Answers(clock)
    database.writer.watch(answers)
    relying, front = routes(Validation(database, responder), clock, answers)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    renewing = asyncio.create_task(answers.run())
    application = app.create(relying, random=os.urandom)
    async with app.serve([app.Endpoint(application, _LOOPBACK, port, front=front)]):
        _write(folder, hierarchy, responder, count)
        (folder / "ready").touch()
        await stop.wait()
    renewing.cancel()
    await database.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
