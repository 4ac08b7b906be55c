"""A CA that makes delta CRLs, and a relying party that puts base and delta together."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from sqlalchemy import insert

from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.crls import CrlSchedule
from shared.issuance.ports import Priority, Purpose
from shared.issuance.status import StatusService
from shared.kernel.errors import ConflictError, ForbiddenError, NotFoundError
from shared.kernel.ids import serial_text
from shared.pki.certificates import Issuer
from shared.pki.partitions import Partition
from shared.store import schema
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from tests.support.pki_hierarchy import NOW_US, Hierarchy, leaf_plan
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database
from tests.support.store_intents import fake_der, make_intent

HIERARCHY = Hierarchy()
GATEWAY = HIERARCHY.gateway
CA_ID = GATEWAY.issuer.ca_id
DELTA_URLS = (f"http://gw-1.example/crl/{CA_ID}-delta.crl",)
HOUR_S = 3600
DAY_S = 24 * HOUR_S
#: serial number -> reason
Listed = dict[int, str]


class Key(SoftwareIssuingKey):
    """Refuses documents above a limit, if there is one, as the token's daemon does."""

    def __init__(self, issuer: Issuer, keys: "Keys") -> None:
        super().__init__(issuer, GATEWAY.key)
        self._keys = keys

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        if self._keys.limit and len(document) > self._keys.limit:
            raise ForbiddenError("It is too large.")
        return await super().sign(document, purpose, priority=priority, reference=reference)


class Keys:
    """The port ``IssuingKeys`` over one key whose CA makes deltas as long as one likes."""

    def __init__(self) -> None:
        self.limit = 0
        self.issuer = GATEWAY.issuer
        self.turn(deltas=True)

    def turn(self, *, deltas: bool) -> None:
        self._use(replace(self.issuer, delta_urls=DELTA_URLS if deltas else ()))

    def share(self, count: int) -> None:
        """Let certificates name one of so many partitions from now on."""
        partitions = self.issuer.partitions.adopted(count).at(self.issuer.crl_urls)
        self._use(replace(self.issuer, partitions=partitions))

    def _use(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self._key = Key(issuer, self)

    def active(self, _profile: str) -> SoftwareIssuingKey:
        return self._key

    def of(self, ca_id: str) -> SoftwareIssuingKey:
        if ca_id != CA_ID:
            raise NotFoundError("It is not here.")
        return self._key


@dataclass
class Crl:
    """What a relying party reads in a CRL."""

    number: int
    base: int | None
    listed: Listed

    @classmethod
    def of(cls, der: bytes) -> "Crl":
        parsed = x509.load_der_x509_crl(der)
        assert parsed.is_signature_valid(GATEWAY.issuer.public_key)
        found = {extension.oid: extension for extension in parsed.extensions}
        base = found.get(x509.DeltaCRLIndicator.oid)
        assert base is None or base.critical
        listed: Listed = {}
        for entry in parsed:
            said = [one.value.reason.name for one in entry.extensions]
            listed[entry.serial_number] = said[0] if said else "unspecified"
        return cls(
            found[x509.CRLNumber.oid].value.crl_number, base and base.value.crl_number, listed
        )

    def with_delta(self, delta: "Crl") -> Listed:
        """Do what RFC 5280 §5.2.4 says; the delta must fit."""
        assert delta.base is not None
        assert delta.base <= self.number < delta.number
        both = self.listed | delta.listed
        return {serial: said for serial, said in both.items() if said != "remove_from_crl"}


class Line:
    """A gateway's ledger and status, under a clock of the test's."""

    def __init__(self, database: Database, sink: Outbox, clock: ManualClock, **schedule) -> None:
        self.database, self.clock = database, clock
        self.keys, self.ledger, self.reads = Keys(), SqlLedger(database), Reads(database)
        self.crls = SqlCrls(database, sink)
        self.schedule = CrlSchedule(retry_s=0, **schedule)
        self.restart()

    def restart(self, **schedule) -> None:
        """Begin again, with other settings perhaps."""
        self.schedule = replace(self.schedule, **schedule)
        self.service = StatusService(
            keys=self.keys,
            ledger=self.ledger,
            crls=self.crls,
            clock=self.clock,
            ca_ids=[CA_ID],
            schedule=self.schedule,
        )

    async def issue(self, serial: int, days: int = 90) -> None:
        now_us = self.clock.now().utc_us
        plan = leaf_plan(not_before_us=now_us, not_after_us=now_us + days * DAY_S * 1_000_000)
        intent = make_intent(ca_id=CA_ID, grant_id=None, serial=serial_text(serial), plan=plan)
        await self.ledger.intend(intent)
        await self.ledger.complete(intent, fake_der(intent))

    async def revoke(self, serial: int, reason: str = "superseded") -> None:
        await self.service.revoke(CA_ID, serial_text(serial), reason, "user:a")

    async def hold(self, serial: int) -> None:
        with suppress(ConflictError):  # revoked for good
            await self.service.hold(CA_ID, serial_text(serial), f"h{random.random()}", "user:a")

    async def release(self, serial: int) -> None:
        text = serial_text(serial)
        held = schema.hold.c.serial == text
        for row in await self.database.read(schema.hold.select().where(held)):
            await self.service.release_hold(CA_ID, text, row.hold_id, "user:a")

    async def sign_news(self) -> None:
        """What ``StatusService.run`` does once."""
        await self.service.sign_news(CA_ID)

    async def complete(self) -> Crl:
        row = await self.reads.current_crl(CA_ID)
        assert row is not None
        return Crl.of(row.der)

    async def delta(self) -> Crl | None:
        row = await self.reads.current_delta(CA_ID)
        return row and Crl.of(row.der)

    async def partitions(self) -> dict[Partition, Crl]:
        """What is served for each partition that any certificate names."""
        found: dict[Partition, Crl] = {}
        for one in self.keys.issuer.partitions.every:
            if row := await self.reads.current_partition(CA_ID, one):
                found[one] = Crl.of(row.der)
        return found

    async def expected(self) -> Listed:
        """What a complete CRL of this moment would list."""
        listing = await self.crls.listing(CA_ID, self.schedule.keep_expired_s * 1_000_000)
        return {serial: reason for serial, _, reason in listing.entries}


@asynccontextmanager
async def line(path: Path, **schedule) -> AsyncIterator[Line]:
    """Open one; the certificates' DER is not real."""
    sink, clock = Outbox.of_gateway("gw-1", "test"), ManualClock(NOW_US)
    async with open_database(path, sink=sink, clock=clock) as database:
        authority = {
            "ca_id": CA_ID,
            "name": "gateway CA",
            "kind": "gateway",
            "der": GATEWAY.issuer.chain[0],
            "key_uri": "hsmd:ca",
            "state": "active",
            "not_after": NOW_US * 2,
            "crl_number": 0,
            "created_at": NOW_US,
        }
        await database.writer.run(lambda tx: tx.execute(insert(schema.ca), authority))
        yield Line(database, sink, clock, **schedule)
