"""A whole server on loopback: database, ledger, software CA, TLS, REST and validation routes."""

import contextlib
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import insert

from shared.enroll.est import routes as est
from shared.enroll.est.ports import EstPorts
from shared.enroll.requesters.doorkeeper import Doorkeeper
from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.requesters.webhook import Webhooks
from shared.enroll.rest import routes as rest
from shared.enroll.rest.ports import RestPorts
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.mass_revocation import MassRevocation
from shared.issuance.service import IssuanceService
from shared.issuance.status import StatusService
from shared.kernel.clock import US_PER_SECOND, Instant
from shared.kernel.errors import NotFoundError
from shared.pki import certificates, formats, keys, ocsp
from shared.pki.cms import Signer
from shared.pki.keywrap import SECRET_BYTES, Keyring
from shared.pki.plan import AltName, AltNameKind
from shared.policy.grant import Grant
from shared.policy.rules import RuleSet
from shared.policy.shipped import SHIPPED
from shared.store.access import Access
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.devices import Devices
from shared.store.kept import Kept
from shared.store.ledger import SqlLedger
from shared.store.operations import SqlOperations
from shared.store.reads import Reads
from shared.store.schema import ca, grant_use
from shared.system.clock import SystemClock
from shared.validation import routes as validation
from shared.validation.answers import Answers
from shared.web import app, tls
from shared.web.auth import Authenticator, new_token
from shared.web.pages import Pages
from shared.web.throttle import Throttle
from tests.support.pki_hierarchy import DAY_US, Authority, Hierarchy, csr, leaf_plan, subject
from tests.support.store_databases import ListSink, open_database


class ShiftedClock(SystemClock):
    """The real time, which tests may put forward."""

    ahead_us = 0

    def now(self) -> Instant:
        now = super().now()
        return replace(
            now, utc_us=now.utc_us + self.ahead_us, mono_ns=now.mono_ns + self.ahead_us * 1000
        )

    def advance(self, seconds: float) -> None:
        self.ahead_us += int(seconds * US_PER_SECOND)


@dataclass(slots=True)
class OneCa:
    """The ports ``Profiles`` and ``IssuingKeys`` for one CA, without a grant as at central."""

    key: SoftwareIssuingKey
    granted: Grant | None = None

    def active(self, profile: str) -> SoftwareIssuingKey:
        return self.key

    def of(self, ca_id: str) -> SoftwareIssuingKey:
        if ca_id != self.key.issuer.ca_id:
            raise NotFoundError("The CA is not here.")
        return self.key

    def profile(self, name: str) -> Any:
        for profile in SHIPPED:
            if profile.name == name:
                return profile
        raise NotFoundError(f"There is no profile {name}.")

    def grant(self) -> Grant | None:
        return self.granted

    def rules(self) -> RuleSet:
        return RuleSet()

    def last_contact_us(self) -> None:
        return None


@dataclass(slots=True)
class Responder:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class OneResponder(Reads):
    """The port ``Validation`` with a responder for one CA; what is not listed is unknown."""

    def __init__(self, database: Database, authority: Authority, clock: ShiftedClock) -> None:
        super().__init__(database)
        self._ca_id = authority.issuer.ca_id
        self._responder = _responder(authority, clock)
        self.failure: Exception | None = None

    async def ocsp_status(self, ca_id: str, serial: str) -> ocsp.Status:  # type: ignore[override]
        return await super().ocsp_status(ca_id, serial, ocsp.State.UNKNOWN)

    def responder_now(self, ca_id: str) -> Responder | None:
        return self._responder if ca_id == self._ca_id and not self.failure else None

    def ocsp_status_now(self, ca_id: str, serial: str) -> ocsp.Status | None:  # type: ignore[override]
        return super().ocsp_status_now(ca_id, serial, ocsp.State.UNKNOWN)

    async def responder(self, ca_id: str) -> Responder | None:
        if self.failure:
            raise self.failure
        return self._responder if ca_id == self._ca_id else None


@dataclass(slots=True)
class Server:
    """What a test asks and looks behind."""

    database: Database
    sink: ListSink
    clock: ShiftedClock
    authority: Authority
    hierarchy: Hierarchy
    access: Access
    authenticator: Authenticator
    service: IssuanceService
    status: StatusService
    kept: Kept
    ports: RestPorts
    est: EstPorts
    devices: Devices
    rules: AliasRules
    validation: OneResponder
    answers: Answers
    token: str
    folder: Path
    urls: dict[str, str] = field(default_factory=dict)
    machine_context: ssl.SSLContext | None = None

    def client(self, token: str | None = "", *, on: str = "people", **options: Any):
        """Make an httpx client: with the all-profiles token by default, None for no token."""
        given = self.token if token == "" else token
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        return httpx.AsyncClient(
            base_url=self.urls[on],
            headers=headers,
            verify=self.trust(),
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=64),
            **options,
        )

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=formats.pem(self.authority.issuer.chain))

    def trust_with(self, key: ec.EllipticCurvePrivateKey, der: bytes) -> ssl.SSLContext:
        """A client context that presents this certificate."""
        context = self.trust()
        path = self.folder / f"client-{hash(der)}.pem"
        path.write_bytes(pem_with_key(key, [der]))
        context.load_cert_chain(path)
        return context

    async def station(self, name: str, *profiles: str, role: str = "station", **more: Any) -> str:
        token, digest = new_token(os.urandom)
        await self.access.add_station(name, role=role, profiles=profiles, token_hash=digest, **more)
        return token

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.body for _peer, event in self.sink.events if event.type == kind]

    async def rows(self, statement: Any) -> Any:
        return await self.database.read(statement)


@contextlib.asynccontextmanager
async def serve(
    folder: Path, *, tier: str = "gateway", grant: Grant | None = None
) -> AsyncGenerator[Server]:
    """Run everything until the context ends; ``tier`` says which CA of the hierarchy issues."""
    hierarchy = Hierarchy()
    authority: Authority = getattr(hierarchy, tier)
    clock, sink = ShiftedClock(), ListSink()
    async with open_database(folder / "server.db", sink=sink, clock=clock) as database:
        one_ca = OneCa(SoftwareIssuingKey(authority.issuer, authority.key), grant)
        server = await _compose(
            folder=folder,
            database=database,
            sink=sink,
            clock=clock,
            hierarchy=hierarchy,
            authority=authority,
            one_ca=one_ca,
        )
        pages = Pages("shared.enroll.rest", product="Test", version="1")
        rest_app = app.create(rest.routes(server.ports, pages), random=os.urandom, pages=pages)
        machines_routes = [*rest.routes(server.ports), *est.routes(server.est)]
        machine_app = app.create(machines_routes, random=os.urandom)
        server.database.writer.watch(server.answers)
        relying, front = validation.routes(server.validation, clock, server.answers)
        plain_app = app.create(relying, random=os.urandom)
        identity = _web_identity(authority)
        server.machine_context = tls.machine_context(*identity, [authority.issuer.chain[0]])
        endpoints = [
            app.Endpoint(rest_app, "127.0.0.1", 0, tls.people_context(*identity)),
            app.Endpoint(machine_app, "127.0.0.1", 0, server.machine_context),
            app.Endpoint(plain_app, "127.0.0.1", 0, front=front),
        ]
        async with app.serve(endpoints) as (people, machines, plain):
            server.urls |= {
                "people": f"https://127.0.0.1:{people}",
                "machines": f"https://127.0.0.1:{machines}",
                "plain": f"http://127.0.0.1:{plain}",
            }
            yield server


async def _compose(
    *,
    folder: Path,
    database: Database,
    sink: ListSink,
    clock: ShiftedClock,
    hierarchy: Hierarchy,
    authority: Authority,
    one_ca: OneCa,
) -> Server:
    await _know(database, hierarchy, one_ca.granted)
    ledger, access = SqlLedger(database), Access(database)
    devices = Devices(database)
    await devices.load()
    service = IssuanceService(
        profiles=one_ca,
        keys=one_ca,
        ledger=ledger,
        clock=clock,
        random=os.urandom,
        devices=devices,
    )
    status = StatusService(
        keys=one_ca,
        ledger=ledger,
        crls=SqlCrls(database, None),
        clock=clock,
        ca_ids=[authority.issuer.ca_id],
    )
    keyring = Keyring.create(
        box_secret=os.urandom(SECRET_BYTES),
        recovery_secret=os.urandom(SECRET_BYTES),
        random=os.urandom,
    )
    kept = Kept(database, keyring)
    authenticator = Authenticator(credentials=access, clock=clock, failures=Throttle(clock))
    ports = RestPorts(
        issuance=service,
        status=status,
        mass_revocation=MassRevocation(SqlOperations(database), status, authenticator.forget),
        refusals=ledger,
        reads=Reads(database),
        kept=kept,
        keys=one_ca,
        chain=lambda _ca_id: authority.issuer.chain,
        authenticator=authenticator,
        clock=clock,
        profiles=_shipped,
        health=_healthy,
        sync=_no_lanes,
    )
    rules = AliasRules(lambda: SHIPPED)
    est_ports = _est_ports(ports, devices, rules, authority)
    server = Server(
        database, sink, clock, authority, hierarchy, access, authenticator, service, status,
        kept, ports, est_ports, devices, rules, OneResponder(database, authority, clock),
        Answers(clock), "", folder,
    )  # fmt: skip
    server.token = await server.station("line-1", "*")
    return server


def _est_ports(
    ports: RestPorts, devices: Devices, rules: AliasRules, authority: Authority
) -> EstPorts:
    clock = ports.clock
    doorkeeper = Doorkeeper(
        rules=rules,
        authenticator=ports.authenticator,
        codes=devices,
        passwords=Passwords(clock, os.urandom),
        webhooks=Webhooks(lambda sealed: sealed),
        failures=Throttle(clock),
        clock=clock,
    )
    key = keys.generate()
    plan = leaf_plan(subject=subject("localhost"), public_key=keys.spki(key.public_key()))
    signer = Signer(key, (authority.issue(plan), *authority.issuer.chain[:-1]))
    return EstPorts.of_rest(
        ports,
        doorkeeper=doorkeeper,
        rules=rules,
        random=os.urandom,
        profile=ports.keys.profile,
        chain=lambda _profile: authority.issuer.chain,
        signer=lambda: signer,
    )


async def _shipped() -> Any:
    return SHIPPED


async def _no_lanes() -> list[Any]:
    return []


async def _healthy() -> dict[str, Any]:
    return {"line": "possible"}


async def _know(database: Database, hierarchy: Hierarchy, grant: Grant | None) -> None:
    """Write the hierarchy into the table of CAs, and what the grant allows."""
    tiers = (("root", hierarchy.root), ("fleet", hierarchy.fleet), ("gateway", hierarchy.gateway))
    for kind, authority in tiers:
        row = {
            "ca_id": authority.issuer.ca_id,
            "name": kind,
            "kind": kind,
            "parent_id": None,
            "gateway": None,
            "der": authority.issuer.chain[0],
            "key_uri": None,
            "state": "active",
            "issue_until": None,
            "not_after": authority.issuer.limits.not_after_us,
            "crl_number": 0,
            "created_at": 0,
        }
        await database.writer.run(lambda tx, row=row: tx.execute(insert(ca), row))
    if grant is not None:
        use = {"grant_id": grant.grant_id, "version": grant.version, "quota": grant.quota,
               "used": 0, "state": "active", "document": b""}  # fmt: skip
        await database.writer.run(lambda tx: tx.execute(insert(grant_use), use))


def _responder(authority: Authority, clock: ShiftedClock) -> Responder:
    key, now_us = keys.generate(), clock.now().utc_us
    now_us -= now_us % US_PER_SECOND
    plan = certificates.responder_plan(
        subject("Test responder"),
        keys.spki(key.public_key()),
        not_before_us=now_us - DAY_US,
        not_after_us=now_us + 7 * DAY_US,
    )
    return Responder(key, x509.load_der_x509_certificate(authority.issue(plan)))


def _web_identity(authority: Authority) -> tuple[bytes, bytes]:
    key = keys.generate()
    der = authority.issue(
        leaf_plan(
            public_key=keys.spki(key.public_key()),
            alt_names=(
                AltName(AltNameKind.IP, "127.0.0.1"),
                AltName(AltNameKind.DNS, "localhost"),
            ),
        )
    )
    return formats.pem([der, *authority.issuer.chain]).encode(), pem_with_key(key, [])


def pem_with_key(key: ec.EllipticCurvePrivateKey, ders: list[bytes]) -> bytes:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + formats.pem(ders).encode()


def request_pem(
    common_name: str,
    key: ec.EllipticCurvePrivateKey | None = None,
    hashing: HashAlgorithm | None = None,
) -> str:
    """A CSR in PEM; ``hashing`` None: SHA-256."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return csr(key or keys.generate(), name, encoding=Encoding.PEM, hashing=hashing).decode()


def wish(attributes: dict[str, Any], kind: str = "certificate") -> dict[str, Any]:
    """A JSON:API document."""
    return {"data": {"type": kind, "attributes": attributes}}
