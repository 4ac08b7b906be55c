"""A revocation is durable at once; the CRL follows when the token is there, and only rises."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import insert, select

from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.crl_signing import CrlSigning
from shared.issuance.crls import CrlSchedule
from shared.issuance.ports import Priority, Purpose
from shared.issuance.status import StatusService
from shared.kernel.clock import ClockQuality
from shared.kernel.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    TokenUnavailableError,
)
from shared.store import schema
from shared.store.crls import SqlCrls
from shared.store.database import Database
from shared.store.ledger import SqlLedger
from shared.store.outbox import Outbox
from shared.store.reads import Reads
from tests.support.pki_hierarchy import Hierarchy
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import open_database
from tests.support.store_intents import fake_der, make_intent

_HIERARCHY = Hierarchy()
_CA_ID = _HIERARCHY.gateway.issuer.ca_id
_YEAR_S = 365 * 24 * 3600


class Token:
    """The port ``IssuingKeys`` over one real key whose token can be away."""

    immediate = False

    def __init__(self) -> None:
        self._key = SoftwareIssuingKey(_HIERARCHY.gateway.issuer, _HIERARCHY.gateway.key)
        self.issuer = self._key.issuer
        self.away = False
        self.limit = 0
        self.refused = 0

    def active(self, _profile: str) -> "Token":
        return self

    def of(self, _ca_id: str) -> "Token":
        return self

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        if self.away:
            self.refused += 1
            raise TokenUnavailableError("The token is away.")
        if self.limit and len(document) > self.limit:
            self.refused += 1
            raise ForbiddenError("It is too large.")
        return await self._key.sign(document, purpose, priority=priority, reference=reference)


class Line:
    """A gateway's ledger with its status service."""

    def __init__(self, database: Database, sink: Outbox, clock: ManualClock) -> None:
        self.database = database
        self.ledger = SqlLedger(database)
        self.token = Token()
        self.reads = Reads(database)
        self.signing = CrlSigning(self.token, SqlCrls(database, sink), clock, CrlSchedule())
        self.service = StatusService(
            keys=self.token,
            ledger=self.ledger,
            crls=SqlCrls(database, sink),
            clock=clock,
            ca_ids=[_CA_ID],
            schedule=CrlSchedule(retry_s=0),
        )

    async def issue(self) -> str:
        intent = make_intent(ca_id=_CA_ID, grant_id=None)
        await self.ledger.intend(intent)
        await self.ledger.complete(intent, fake_der(intent))
        return intent.serial

    async def crl(self) -> x509.CertificateRevocationList | None:
        row = await self.reads.current_crl(_CA_ID)
        return row and x509.load_der_x509_crl(row.der)

    async def until_empty(self) -> None:
        """Wait for the CRL of the CA's birth."""
        while await self.crl() is None:  # noqa: ASYNC110 - it does not notify
            await asyncio.sleep(0.01)

    async def until(self, serial: str) -> x509.CertificateRevocationList:
        """Wait for the CRL that lists a serial."""
        while True:
            crl = await self.crl()
            if crl and crl.get_revoked_certificate_by_serial_number(int(serial, 16)):
                return crl
            await asyncio.sleep(0.01)


def _on_line(path: Path, journey):
    async def run() -> None:
        sink, clock = Outbox.of_gateway("gw-01", "test"), ManualClock()
        async with open_database(path / "gateway.db", sink=sink, clock=clock) as database:
            authority = {
                "ca_id": _CA_ID,
                "name": "gateway CA",
                "kind": "gateway",
                "der": _HIERARCHY.gateway.issuer.chain[0],
                "state": "active",
                "not_after": START_US * 2,
                "crl_number": 0,
                "created_at": START_US,
            }
            await database.writer.run(lambda tx: tx.execute(insert(schema.ca), authority))
            line = Line(database, sink, clock)
            signing = asyncio.create_task(line.service.run())
            try:
                async with asyncio.timeout(30):
                    await journey(line, clock)
            finally:
                signing.cancel()
                with suppress(asyncio.CancelledError):
                    await signing

    asyncio.run(run())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the token counts, it does not notify
        await asyncio.sleep(0.01)


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_revocation_does_not_wait_for_the_token(tmp_path: Path):
    async def journey(line: Line, _clock: ManualClock) -> None:
        serial = await line.issue()
        line.token.away = True
        record = await line.service.revoke(_CA_ID, serial, "key_compromise", "user:anna")
        assert record.status == "revoked"
        await _until(lambda: line.token.refused >= 3)
        line.token.away = False
        crl = await line.until(serial)
        entry = crl.get_revoked_certificate_by_serial_number(int(serial, 16))
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason is x509.ReasonFlags.key_compromise

    _on_line(tmp_path, journey)


def test_the_number_rises_although_the_clock_falls(tmp_path: Path):
    async def journey(line: Line, clock: ManualClock) -> None:
        before = _number(x509.load_der_x509_crl(await line.service.sign_crl(_CA_ID)))
        clock.advance(-_YEAR_S)
        after = _number(x509.load_der_x509_crl(await line.service.sign_crl(_CA_ID)))
        assert after > before

    _on_line(tmp_path, journey)


def test_a_crl_from_the_future_is_replaced_when_the_clock_is_right_again(tmp_path: Path):
    async def journey(line: Line, clock: ManualClock) -> None:
        clock.advance(10 * _YEAR_S)
        await line.service.sign_crl(_CA_ID)
        clock.advance(-10 * _YEAR_S)
        assert await line.signing.due([_CA_ID])
        clock.quality = ClockQuality.UNKNOWN
        assert not await line.signing.due([_CA_ID])

    _on_line(tmp_path, journey)


def test_in_doubt_no_crl_is_dated_before_the_last_one(tmp_path: Path):
    """Dated ten years ago, it would be outdated for everybody whose clock is right."""

    async def journey(line: Line, clock: ManualClock) -> None:
        first = x509.load_der_x509_crl(await line.service.sign_crl(_CA_ID))
        clock.advance(-10 * _YEAR_S)
        clock.quality = ClockQuality.UNKNOWN
        serial = await line.issue()
        await line.service.revoke(_CA_ID, serial, "key_compromise", "user:anna")
        crl = await line.until(serial)
        assert crl.last_update_utc >= first.last_update_utc
        assert crl.next_update_utc >= first.next_update_utc

    _on_line(tmp_path, journey)


def test_a_hold_shows_and_goes(tmp_path: Path):
    async def journey(line: Line, _clock: ManualClock) -> None:
        serial = await line.issue()
        await line.service.hold(_CA_ID, serial, "inspection", "user:anna")
        held = await line.until(serial)
        record = await line.service.release_hold(_CA_ID, serial, "inspection", "user:anna")
        assert record.status == "good"
        released = await line.service.sign_crl(_CA_ID)
        crl = x509.load_der_x509_crl(released)
        assert crl.get_revoked_certificate_by_serial_number(int(serial, 16)) is None
        assert _number(crl) > _number(held)

    _on_line(tmp_path, journey)


def test_wrong_words_change_nothing(tmp_path: Path):
    async def journey(line: Line, _clock: ManualClock) -> None:
        serial = await line.issue()
        with pytest.raises(BadRequestError):
            await line.service.revoke(_CA_ID, serial, "certificate_hold", "user:anna")
        with pytest.raises(NotFoundError):
            await line.service.revoke(_CA_ID, "00" * 16, "superseded", "user:anna")
        assert (await line.service.revoke(_CA_ID, serial, "superseded", "user:anna")).status

    _on_line(tmp_path, journey)


def test_a_crl_that_is_refused_raises_an_alarm_and_is_not_tried_without_end(tmp_path: Path):
    async def journey(line: Line, clock: ManualClock) -> None:
        serial = await line.issue()
        await line.until_empty()
        line.token.limit = 10
        await line.service.revoke(_CA_ID, serial, "superseded", "user:anna")
        await _until(lambda: bool(line.service.refusals))
        for _ in range(3):  # each revocation asks, and none tries again within the hour
            line.service.request_crl(_CA_ID)
            await asyncio.sleep(0.05)
        assert line.token.refused == 1
        assert line.service.refusals == {_CA_ID: "It is too large."}
        rows = await line.database.read(select(schema.outbox.c.type))
        assert [row.type for row in rows].count("crl.refused") == 1
        line.token.limit = 0
        clock.advance(3601)
        line.service.request_crl(_CA_ID)
        await line.until(serial)
        await _until(lambda: not line.service.refusals)

    _on_line(tmp_path, journey)


def test_who_revokes_many_has_one_crl_signed(tmp_path: Path):
    """Without ``together`` each commit is followed by a CRL, as the status watch asks for it."""

    async def journey(line: Line, _clock: ManualClock) -> None:
        line.database.writer.watch(line.service)
        serials = [await line.issue() for _ in range(4)]
        await line.until_empty()
        before = await line.crl()
        with line.service.together():
            for serial in serials:
                await line.ledger.revoke(_CA_ID, serial, "superseded", "test")
                await asyncio.sleep(0.1)
        after = await line.until(serials[-1])
        assert len(after) == len(serials)
        assert _number(after) == _number(before) + 1

    def _number(crl: x509.CertificateRevocationList | None) -> int:
        assert crl is not None
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    _on_line(tmp_path, journey)
