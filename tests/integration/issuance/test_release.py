"""No path releases a certificate whose intent was not committed, whose TBS differs, or whose
completion did not commit; whatever fails between the five steps.

Real ledger, real database, real key. Only the faults are made: each call may fail before it does
anything, or do its work and then lose the answer, as a dying disk, database or token daemon would.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import insert, select

from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.ports import CertificateRecord, Intent, Priority, Purpose
from shared.issuance.service import IssuanceService
from shared.kernel.errors import OutcomeUnknownError, TmaError, TokenUnavailableError
from shared.pki import keys
from shared.pki.algorithms import ECDSA_SHA256
from shared.policy.grant import Grant
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.rules import RuleSet
from shared.policy.shipped import SHIPPED
from shared.store import facts, schema
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.sync import events
from tests.support.pki_hierarchy import Hierarchy, subject
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import open_database

_HIERARCHY = Hierarchy()
_PROFILES = {profile.name: profile for profile in SHIPPED}
_GRANT = Grant(
    grant_id="grant",
    version=1,
    profiles=tuple(_PROFILES),
    quota=1_000,
    not_before_us=0,
    not_after_us=1 << 52,
    last_contact_max_s=None,
)
#: What may go wrong with one request, once.
FAULTS = (
    "none",
    "intend fails",
    "intend loses its answer",
    "signer refuses",
    "signer loses its answer",
    "signature of another document",
    "signature of another key",
    "line stops while it is signed",
    "complete fails",
    "complete loses its answer",
)


class Faults:
    """The fault of each request, by its idempotency key; each strikes once."""

    def __init__(self, planned: dict[str, str]) -> None:
        self._planned = planned

    def strikes(self, key: str, fault: str) -> bool:
        if self._planned.get(key) != fault:
            return False
        self._planned[key] = "none"
        return True

    def end(self) -> None:
        """Let nothing strike any more."""
        self._planned.clear()


class FaultyLedger(SqlLedger):
    """The real ledger; what it commits stays committed, but the answer may be lost."""

    def __init__(self, database: Database, faults: Faults) -> None:
        super().__init__(database)
        self._faults = faults

    async def intend_each(
        self, intents: Sequence[Intent]
    ) -> list[CertificateRecord | Exception | None]:
        return await self._each("intend", intents, super().intend_each)

    async def complete_each(
        self, signed: Sequence[tuple[Intent, bytes]]
    ) -> list[CertificateRecord | Exception]:
        return await self._each("complete", signed, super().complete_each)

    async def _each(self, step: str, items: Sequence[Any], do: Callable[..., Any]) -> list[Any]:
        keys_of = [getattr(item, "idempotency_key", None) or item[0].idempotency_key
                   for item in items]  # fmt: skip
        fails = [self._faults.strikes(key, f"{step} fails") for key in keys_of]
        done = iter(await do([item for item, no in zip(items, fails, strict=True) if not no]))
        results: list[Any] = []
        for key, failed in zip(keys_of, fails, strict=True):
            result = OutcomeUnknownError("The disk failed before the commit.")
            if not failed:
                result = next(done)
            if not failed and self._faults.strikes(key, f"{step} loses its answer"):
                result = OutcomeUnknownError("The answer to the commit was lost.")
            results.append(result)
        return results


class WatchedKey:
    """The real key; it signs nothing that another connection cannot see as an open intent."""

    def __init__(
        self, database: Database, ledger: SqlLedger, faults: Faults, *, immediate: bool
    ) -> None:
        self.immediate = immediate
        self._key = SoftwareIssuingKey(_HIERARCHY.gateway.issuer, _HIERARCHY.gateway.key)
        self.issuer = self._key.issuer
        self._database = database
        self._ledger = ledger
        self._faults = faults
        self.signed: dict[str, bytes] = {}
        self.uses = 0
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        [intent] = [
            intent
            for intent in await self._ledger.open_intents()
            if intent.intent_id == reference and intent.tbs == document
        ]
        key = intent.idempotency_key
        if self._faults.strikes(key, "signer refuses"):
            raise TokenUnavailableError("The token is away.")
        self.signed[intent.serial] = document
        self.uses += 1
        if self.meanwhile:
            await self.meanwhile()
        signature = await self._key.sign(document, purpose, priority=priority, reference=reference)
        if self._faults.strikes(key, "signer loses its answer"):
            raise OutcomeUnknownError("The daemon died after it was asked.")
        if self._faults.strikes(key, "signature of another document"):
            return _HIERARCHY.gateway.sign(document + b"\0")
        if self._faults.strikes(key, "signature of another key"):
            return ECDSA_SHA256.sign(keys.generate(), document)
        if self._faults.strikes(key, "line stops while it is signed"):
            await self._database.writer.run(lambda tx: facts.put(tx, facts.LINE, "maintenance"))
        return signature


class Rules:
    """The ports ``Profiles`` and ``IssuingKeys``."""

    def __init__(self, key: WatchedKey) -> None:
        self._key = key

    def profile(self, name: str) -> Any:
        return _PROFILES[name]

    def grant(self) -> Grant:
        return _GRANT

    def rules(self) -> RuleSet:
        return RuleSet()

    def last_contact_us(self) -> int:
        return START_US

    def active(self, _profile: str) -> WatchedKey:
        return self._key

    def of(self, _ca_id: str) -> WatchedKey:
        return self._key


def _requests(count: int) -> Iterator[EnrollmentRequest]:
    for number in range(count):
        yield EnrollmentRequest(
            operation=Operation.ENROLL,
            protocol="rest",
            alias="rest",
            profile="tls-client",
            principal="station:one",
            public_key=keys.spki(keys.generate().public_key()),
            subject=subject(f"device-{number}"),
            device_id=f"device-{number}",
            idempotency_key=f"{number}",
        )


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    plan=some.lists(some.sampled_from(FAULTS), min_size=1, max_size=12), immediate=some.booleans()
)
def test_what_is_released_is_remembered(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str], immediate: bool
):
    asyncio.run(_journey(tmp_path_factory.mktemp("release") / "gateway.db", plan, immediate))


@pytest.mark.parametrize("immediate", [True, False])
def test_every_fault_at_once(tmp_path: Path, immediate: bool):
    asyncio.run(_journey(tmp_path / "gateway.db", list(FAULTS), immediate))


@pytest.mark.parametrize("immediate", [True, False])
def test_recovery_leaves_running_requests_alone(tmp_path: Path, immediate: bool):
    """It runs again and again beside the line; the key is used once all the same."""

    async def journey() -> None:
        path = tmp_path / "gateway.db"
        async with _line(path, Faults({}), immediate) as (database, _ledger, key, service):
            key.meanwhile = service.recover
            answers = await service.issue_many(list(_requests(4)))
            assert len(await _check(database, answers, key)) == 4
            assert key.uses == 4

    asyncio.run(journey())


@asynccontextmanager
async def _line(
    path: Path, faults: Faults, immediate: bool
) -> AsyncIterator[tuple[Database, FaultyLedger, WatchedKey, IssuanceService]]:
    sink, clock = Outbox.of_gateway("gw-01", "test"), ManualClock()
    async with open_database(path, sink=sink, clock=clock) as database:
        await database.writer.run(_admit)
        ledger = FaultyLedger(database, faults)
        key = WatchedKey(database, ledger, faults, immediate=immediate)
        rules = Rules(key)
        service = IssuanceService(
            profiles=rules, keys=rules, ledger=ledger, clock=clock, random=os.urandom
        )
        yield database, ledger, key, service


async def _journey(path: Path, plan: list[str], immediate: bool) -> None:
    faults = Faults({f"k:{number}": fault for number, fault in enumerate(plan)})
    async with _line(path, faults, immediate) as (database, ledger, key, service):
        wishes = list(_requests(len(plan)))
        first = await service.issue_many(wishes)
        await _check(database, first, key)
        faults.end()
        await database.writer.run(lambda tx: facts.put(tx, facts.LINE, None))
        await service.recover()
        assert await ledger.open_intents() == []
        again = await service.issue_many(wishes)
        released = await _check(database, again, key)
        assert len(released) == len(wishes), "After the faults every device gets its certificate."
        for before, after in zip(first, again, strict=True):
            assert isinstance(before, TmaError) or before.der == after.der


async def _check(database: Database, answers: list[Any], key: WatchedKey) -> set[bytes]:
    """Everything that left is in ledger and outbox; every use of the key is accounted for."""
    released = {answer.der for answer in answers if not isinstance(answer, TmaError)}
    rows = await database.read(select(schema.certificate))
    issued = {row.der for row in rows if row.state == "issued"}
    told = await _told(database)
    assert released <= issued
    assert issued == told
    for der in issued:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(key.issuer.certificate)
        assert certificate.tbs_certificate_bytes == key.signed[f"{certificate.serial_number:032x}"]
    open_serials = {intent.serial for intent in await SqlLedger(database).open_intents()}
    assert key.signed.keys() <= {row.serial for row in rows} | open_serials
    [used] = await database.read(select(schema.grant_use.c.used))
    assert used[0] == len(rows) + len(open_serials)
    owners = [_owner(der) for der in issued]
    assert len(set(owners)) == len(owners), "One request got two certificates."
    return released


def _owner(der: bytes) -> bytes:
    public_key = x509.load_der_x509_certificate(der).public_key()
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def _told(database: Database) -> set[bytes]:
    rows = await database.read(
        select(schema.outbox.c.event).where(schema.outbox.c.type == "certificate.issued")
    )
    return {events.decode(row.event).body["der"] for row in rows}


def _admit(transaction: Any) -> None:
    issuer = _HIERARCHY.gateway.issuer
    authority = {
        "ca_id": issuer.ca_id,
        "name": "gateway CA",
        "kind": "gateway",
        "der": issuer.chain[0],
        "state": "active",
        "not_after": issuer.limits.not_after_us,
        "crl_number": 0,
        "created_at": START_US,
    }
    grant = {
        "grant_id": _GRANT.grant_id,
        "version": 1,
        "quota": _GRANT.quota,
        "used": 0,
        "state": "active",
        "document": b"",
    }
    transaction.execute(insert(schema.ca), authority)
    transaction.execute(insert(schema.grant_use), grant)
