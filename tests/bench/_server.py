"""The measured server: REST on the issuance core, a software key, SQLite with synchronous=FULL.

    python -m tests.bench._server FOLDER PLAIN_PORT MTLS_PORT [--steps]

It is composed of the products' own parts as a gateway is, on one plain and one mutual TLS
listener. ``FOLDER/access.json`` says how to get in: by token, or by the client certificate alone.
With ``--steps`` the CPU of each step is summed up and written to ``FOLDER/steps.json`` at the end;
only then requests must come one by one.
"""

import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import insert

from shared.enroll.est import routes as est
from shared.enroll.est.ports import EstPorts
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.requesters.webhook import Webhooks
from shared.enroll.rest import content
from shared.enroll.rest import routes as rest
from shared.enroll.rest.ports import RestPorts
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance import service
from shared.issuance.mass_revocation import MassRevocation
from shared.issuance.status import StatusService
from shared.pki import certificates, formats, keys
from shared.pki.cms import Signer
from shared.pki.keywrap import SECRET_BYTES, Keyring
from shared.pki.plan import AltName, AltNameKind
from shared.policy.grant import Grant
from shared.policy.rules import RuleSet
from shared.policy.shipped import SHIPPED
from shared.store.access import Access
from shared.store.certificates import add_issued
from shared.store.database import Database
from shared.store.devices import Devices
from shared.store.kept import Kept
from shared.store.ledger import SqlLedger
from shared.store.operations import SqlOperations
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from shared.store.schema import ca, grant_use
from shared.system import memory
from shared.system.clock import SystemClock
from shared.system.steady import repeat
from shared.web import app, tls
from shared.web.auth import Authenticator, new_token
from shared.web.throttle import Throttle
from tests.support.pki_hierarchy import Hierarchy, leaf_plan

_GRANT = Grant(
    grant_id="bench",
    version=1,
    profiles=tuple(profile.name for profile in SHIPPED),
    quota=10**9,
    not_before_us=0,
    not_after_us=1 << 52,
    last_contact_max_s=90 * 24 * 3600,
)
_NO_RULES = RuleSet()
_PROFILES = {profile.name: profile for profile in SHIPPED}
_LOOPBACK = "127.0.0.1"


class Rules:
    """The ports ``Profiles`` and ``IssuingKeys``: one CA under a grant, central heard of today."""

    def __init__(self, key: SoftwareIssuingKey, clock: SystemClock) -> None:
        self._key = key
        self._contact_us = clock.now().utc_us

    def active(self, _profile: str) -> SoftwareIssuingKey:
        return self._key

    def of(self, _ca_id: str) -> SoftwareIssuingKey:
        return self._key

    def profile(self, name: str) -> Any:
        return _PROFILES[name]

    def grant(self) -> Grant:
        return _GRANT

    def rules(self) -> RuleSet:
        return _NO_RULES

    def last_contact_us(self) -> int:
        return self._contact_us


class Steps:
    """CPU of this process (all threads), summed by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function or coroutine function."""

        def book(began: float) -> None:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

        @wraps(function)
        def plain(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                book(began)

        @wraps(function)
        async def waiting(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return await function(*arguments, **named)
            finally:
                book(began)

        return waiting if asyncio.iscoroutinefunction(function) else plain

    def watch(self, ledger: SqlLedger, key: SoftwareIssuingKey) -> None:
        """Put the wrappers around the steps of design.md §3, in their order."""
        content.CertificationRequest.parse = self.time(
            "prove possession", content.CertificationRequest.parse
        )
        service.decide = self.time("decide", service.decide)
        certificates.unsigned = self.time("intend: build TBS", certificates.unsigned)
        ledger.intend_each = self.time("intend: commit", ledger.intend_each)
        key.sign = self.time("sign", key.sign)
        certificates.assemble = self.time("compare", certificates.assemble)
        ledger.complete_each = self.time("complete: commit", ledger.complete_each)


async def _admit(database: Database, hierarchy: Hierarchy, client: bytes) -> str:
    """Write CA, grant and a station that has a token and a certificate; gives the token."""
    issuer = hierarchy.gateway.issuer
    row = {
        "ca_id": issuer.ca_id,
        "name": "bench",
        "kind": "gateway",
        "der": issuer.chain[0],
        "state": "active",
        "not_after": issuer.limits.not_after_us,
        "crl_number": 0,
        "created_at": 0,
    }
    grant = {"grant_id": _GRANT.grant_id, "version": 1, "quota": _GRANT.quota, "used": 0,
             "state": "active", "document": b""}  # fmt: skip
    await database.writer.run(lambda tx: tx.execute(insert(ca), row))
    await database.writer.run(lambda tx: tx.execute(insert(grant_use), grant))
    sha256 = hashlib.sha256(client).hexdigest()
    known = {"ca_id": issuer.ca_id, "serial": "0" * 32, "origin": "", "der": client,
             "sha256": sha256, "test": 0, "issued_at": 0, "not_after": 1 << 52}  # fmt: skip
    await database.writer.run(lambda tx: add_issued(tx, known))
    token, digest = new_token(os.urandom)
    await Access(database).add_station(
        "bench", role="station", profiles=["*"], token_hash=digest, certificate_sha256=sha256
    )
    return token


def _identity(hierarchy: Hierarchy, usage: str) -> tuple[bytes, str, str]:
    """Make a TLS identity below the gateway CA: DER, and in PEM chain and key."""
    key = keys.generate()
    plan = leaf_plan(
        public_key=keys.spki(key.public_key()),
        alt_names=(AltName(AltNameKind.IP, _LOOPBACK),),
        extended_key_usage=(usage,),
    )
    der = hierarchy.gateway.issue(plan)
    chain = formats.pem([der, *hierarchy.gateway.issuer.chain])
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return der, chain, private.decode()


def _ports(database: Database, ledger: SqlLedger, rules: Rules, clock: SystemClock) -> RestPorts:
    keyring = Keyring.create(
        box_secret=os.urandom(SECRET_BYTES),
        recovery_secret=os.urandom(SECRET_BYTES),
        random=os.urandom,
    )
    reads = Reads(database)
    status = StatusService(keys=rules, ledger=ledger, crls=reads, clock=clock, ca_ids=[])
    authenticator = Authenticator(
        credentials=Access(database), clock=clock, failures=Throttle(clock)
    )
    return RestPorts(
        issuance=service.IssuanceService(
            profiles=rules, keys=rules, ledger=ledger, clock=clock, random=os.urandom
        ),
        status=status,
        mass_revocation=MassRevocation(SqlOperations(database), status, authenticator.forget),
        refusals=ledger,
        reads=reads,
        kept=Kept(database, keyring),
        keys=rules,
        chain=lambda ca_id: rules.of(ca_id).issuer.chain,
        authenticator=authenticator,
        clock=clock,
        profiles=_nothing,
        health=_nothing,
        sync=_nothing,
    )


async def _est_ports(
    database: Database, ports: RestPorts, rules: Rules, signer: Signer
) -> EstPorts:
    aliases = AliasRules(lambda: SHIPPED)
    known = Devices(database)
    await known.load()
    return EstPorts.of_rest(
        ports,
        doorkeeper=Doorkeeper(
            rules=aliases,
            authenticator=ports.authenticator,
            codes=known,
            passwords=Passwords(ports.clock, os.urandom),
            webhooks=Webhooks(lambda sealed: sealed),
            failures=Throttle(ports.clock),
            clock=ports.clock,
        ),
        rules=aliases,
        random=os.urandom,
        profile=rules.profile,
        chain=lambda name: rules.active(name).issuer.chain,
        signer=lambda: signer,
    )


async def _nothing() -> Any:
    return {}


async def _serve(folder: Path, plain_port: int, mtls_port: int, steps: Steps | None) -> None:
    hierarchy, clock = Hierarchy(), SystemClock()
    key = SoftwareIssuingKey(hierarchy.gateway.issuer, hierarchy.gateway.key)
    sink = Outbox.of_gateway("bench", "bench")
    database = await Database.open(folder / "bench.db", sink=sink, clock=clock)
    ledger = SqlLedger(database)
    if steps:
        steps.watch(ledger, key)
    _, *served = _identity(hierarchy, "1.3.6.1.5.5.7.3.1")
    client, chain, private = _identity(hierarchy, "1.3.6.1.5.5.7.3.2")
    token = await _admit(database, hierarchy, client)
    rules = Rules(key, clock)
    ports = _ports(database, ledger, rules, clock)
    signer = Signer(hierarchy.gateway.key, hierarchy.gateway.issuer.chain)
    mutual = tls.machine_context(
        *(part.encode() for part in served), [hierarchy.gateway.issuer.chain[0]]
    )
    routes = [*rest.routes(ports), *est.routes(await _est_ports(database, ports, rules, signer))]
    endpoints = [
        app.Endpoint(app.create(routes, random=os.urandom), _LOOPBACK, plain_port),
        app.Endpoint(app.create(routes, random=os.urandom), _LOOPBACK, mtls_port, mutual),
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    access = {"token": token, "root": formats.pem([hierarchy.root.issuer.chain[0]]),
              "client": private + chain}  # fmt: skip
    revoking = asyncio.create_task(repeat("many are revoked", ports.mass_revocation.step))
    async with app.serve(endpoints):
        (folder / "access.json").write_text(json.dumps(access), "utf-8")
        await stop.wait()
    revoking.cancel()
    await database.close()


def main() -> None:
    """Serve until SIGTERM."""
    folder, plain_port, mtls_port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    steps = Steps() if "--steps" in sys.argv else None
    memory.settle()
    asyncio.run(_serve(folder, plain_port, mtls_port, steps))
    if steps:
        (folder / "steps.json").write_text(json.dumps(steps.seconds), "utf-8")


if __name__ == "__main__":
    main()
