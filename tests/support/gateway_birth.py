"""A central that can do one thing: let gateways join. Real TLS, real CAs, real sealed envelopes.

Gateways are tested against it so that nothing of ``central/`` needs to be there.
"""

import hashlib
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.kernel.clock import US_PER_SECOND
from shared.pki import certificates, formats, keys
from shared.pki.plan import AltName, AltNameKind
from shared.pki.request import CertificationRequest
from shared.policy.bundle import Bundle
from shared.policy.grant import Grant
from shared.policy.shipped import SHIPPED
from shared.store.database import Database
from shared.store.link import LinkTables
from shared.store.outbox import Outbox
from shared.store.transaction import Transaction
from shared.sync import envelope, join
from shared.sync import outbox as sending
from shared.sync.envelope import Address, Signer
from shared.sync.events import Direction
from shared.sync.join import JoinAnswer, JoinRequest, JoinToken, spki_hash
from shared.system.clock import SystemClock
from shared.web import app, tls
from shared.web.auth import open_to_all
from tests.support.pki_hierarchy import (
    DAY_US,
    Authority,
    leaf_plan,
    root_authority,
    subject,
    subordinate,
)

INCARNATION = "1" * 32


@dataclass
class Birthplace:
    """The joining half of a central; ``requests`` are what arrived after TLS."""

    folder: Path
    root: Authority = field(default_factory=root_authority)
    transport: Authority = field(default_factory=lambda: root_authority("Test transport root"))
    directive: ec.EllipticCurvePrivateKey = field(default_factory=keys.generate)
    responder: ec.EllipticCurvePrivateKey = field(default_factory=keys.generate)
    clock: SystemClock = field(default_factory=SystemClock)
    requests: list[JoinRequest] = field(default_factory=list)
    answers: dict[bytes, bytes] = field(default_factory=dict)
    broker: tuple[str, int] = ("127.0.0.1", 9)  # nobody listens: the link stays down
    grant: dict[str, Any] = field(default_factory=dict)
    shown_root: bytes = b""
    port: int = 0
    fails: int = 0  # so many answers get lost

    def __post_init__(self) -> None:
        self.fleet = subordinate(self.root, "Test fleet CA", 1)
        self.secret = os.urandom(join.SECRET_BYTES)

    def token(self, name: str = "gw-01", **changes: Any) -> str:
        """The line that an operator carries."""
        fields = {
            "name": name,
            "address": f"127.0.0.1:{self.port}",
            "secret": self.secret,
            "transport_root_hash": spki_hash(_spki(self.transport.key)),
            "directive_key_hash": spki_hash(_spki(self.directive)),
        }
        return JoinToken(**(fields | changes)).text()

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator["Birthplace"]:
        """Serve the two routes of the join over TLS."""
        routes = [
            web.get(join.ROOT_PATH, open_to_all(self._root, "test")),
            web.post(join.JOIN_PATH, open_to_all(self._join, "test")),
        ]
        endpoint = app.Endpoint(
            app.create(routes, random=os.urandom), "127.0.0.1", 0, self._context()
        )
        async with app.serve([endpoint]) as [self.port]:
            yield self

    async def _root(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.shown_root or self.transport.issuer.chain[0])

    async def _join(self, request: web.Request) -> web.Response:
        asked = JoinRequest.decode(await app.read_body(request))
        assert asked.secret == self.secret
        self.requests.append(asked)
        digest = hashlib.sha256(keys_of(asked)).digest()
        if digest not in self.answers:
            self.answers[digest] = (await self._answer(asked)).encode()
        if self.fails:
            self.fails -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=self.answers[digest], content_type=join.CONTENT_TYPE)

    async def _answer(self, asked: JoinRequest) -> JoinAnswer:
        now_us = self.clock.now().utc_us // US_PER_SECOND * US_PER_SECOND
        request = CertificationRequest.parse(asked.authority_csr)
        plan = certificates.ca_plan(
            subject(f"Gateway CA {asked.name}"),
            request.public_key,
            path_length=0,
            not_before_us=now_us - DAY_US,
        )
        der = self.fleet.issue(plan)
        ca_id = keys.ca_id(keys.load_spki(request.public_key))
        transport = leaf_plan(
            subject=subject(asked.name),
            alt_names=(),
            public_key=CertificationRequest.parse(asked.transport_csr).public_key,
            not_before_us=now_us - DAY_US,
            not_after_us=now_us + 365 * DAY_US,
            extended_key_usage=("1.3.6.1.5.5.7.3.2",),
        )
        return JoinAnswer(
            name=asked.name,
            incarnation=INCARNATION,
            authority=der,
            issue_until_us=now_us + 365 * DAY_US,
            authority_chain=self.fleet.issuer.chain,
            transport_certificate=self.transport.issue(transport),
            transport_root=self.transport.issuer.chain[0],
            directive_key=_spki(self.directive),
            broker_host=self.broker[0],
            broker_port=self.broker[1],
            status_url="http://central.example:8080",
            envelopes=tuple(await self._envelopes(asked.name, ca_id, now_us)),
        )

    async def _envelopes(self, name: str, ca_id: str, now_us: int) -> list[bytes]:
        """Order bundle, grant and responder, through a real outbox."""
        fields = {
            "grant_id": f"grant-{name}",
            "version": 1,
            "profiles": ("tls-server", "tls-client", "idevid"),
            "quota": 1000,
            "not_before_us": now_us - DAY_US,
            "not_after_us": now_us + 365 * DAY_US,
            "last_contact_max_s": 90 * 24 * 3600,
        }
        grant = Grant(**(fields | self.grant))
        bundle = Bundle(version=1, profiles=SHIPPED, certificates=self.fleet.issuer.chain)
        orders = [
            ("bundle", {"document": bundle.to_document()}),
            ("grant", {"document": grant.to_document()}),
            ("responder", {"ca_id": ca_id, "spki": _spki(self.responder)}),
        ]
        outbox = Outbox.of_central("test", lambda _tx, _event: None)
        path = self.folder / f"orders-{name}-{len(self.answers)}.db"
        database = await Database.open(path, sink=outbox, clock=self.clock)

        def unit(tx: Transaction) -> Any:
            for number, (kind, body) in enumerate(orders, 1):
                place = {"incarnation": INCARNATION, "number": number}
                tx.emit(f"directive.{kind}", {**body, **place}, actor="user:test", peer=name)
            tables = LinkTables(tx, outbox, name, lambda _tx, _event: None)
            budget = sending.Budget(envelopes=8, size=1 << 20, turn=0)
            return sending.pick(tables, {}, budget)

        batches = await database.writer.run(unit)
        await database.close()
        signer = Signer(spki_hash(_spki(self.directive)), self.directive)
        address = Address(name, Direction.DOWN)
        return [envelope.seal(batch, signer, address) for batch in batches]

    def _context(self) -> ssl.SSLContext:
        key = keys.generate()
        now_us = self.clock.now().utc_us // US_PER_SECOND * US_PER_SECOND
        plan = leaf_plan(
            subject=subject("_central"),
            alt_names=(AltName(AltNameKind.IP, "127.0.0.1"),),
            public_key=_spki(key),
            not_before_us=now_us - DAY_US,
            not_after_us=now_us + DAY_US,
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return tls.people_context(formats.pem([self.transport.issue(plan)]).encode(), pem)


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return keys.spki(key.public_key())


def keys_of(asked: JoinRequest) -> bytes:
    """The public keys of a request: CSRs differ from one try to the next, keys do not."""
    requests = (asked.transport_csr, asked.event_csr, asked.exchange_csr, asked.authority_csr)
    return b"".join(
        keys.spki(x509.load_der_x509_csr(der).public_key())  # type: ignore[arg-type]
        for der in requests
    )
