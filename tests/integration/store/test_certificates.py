"""The lattice: whatever order reports come in, revoked > hold > good, and nothing is lost."""

import base64
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from shared.kernel.ids import serial_text
from shared.store import certificates, schema
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.transaction import Transaction
from tests.support.pki_hierarchy import leaf_plan, root_authority
from tests.support.store_databases import open_database

_CA = root_authority()
_SERIALS = (1 << 100, 2 << 100)
_DERS = {serial: [_CA.issue(leaf_plan(), serial) for _ in range(2)] for serial in _SERIALS}
_REPORTS = st.tuples(
    st.sampled_from(_SERIALS),
    st.sampled_from(["issue", "other", "void", "revoke", "hold-1", "free-1", "hold-2", "free-2"]),
)

pytestmark = pytest.mark.usefixtures("each_database")


def body_of(serial: int, **more: object) -> dict[str, object]:
    return {"ca_id": _CA.issuer.ca_id, "serial": serial_text(serial), **more}


def issued_body(serial: int, der: bytes) -> dict[str, object]:
    return body_of(
        serial,
        der=der,
        profile="tls-server",
        profile_version=1,
        purpose="tls-server",
        device_id="SN-0001",
        alias="line",
        protocol="rest",
        principal="station:one",
        metadata={},
        grant_id="g",
        test=False,
        replaces=None,
        intent_id="i",
    )


def report(tx: Transaction, serial: int, what: str) -> None:
    origin = "gw-01"
    match what.split("-"):
        case ["issue" | "other" as which]:
            body = issued_body(serial, _DERS[serial][which == "other"])
            certificates.record_issued(tx, origin, body, issued_at_us=1, clock_quality="ntp")
        case ["void"]:
            body = body_of(serial, reason="crash", profile="p", device_id=None, grant_id="g")
            certificates.record_voided(tx, origin, body)
        case ["revoke"]:
            body = body_of(serial, reason="superseded", revoked_at_us=5, device_id=None)
            certificates.record_revoked(tx, origin, body)
        case ["hold", hold_id]:
            certificates.record_held(tx, origin, body_of(serial, hold_id=hold_id))
        case ["free", hold_id]:
            certificates.record_released(tx, origin, body_of(serial, hold_id=hold_id))


async def result_of(path: Path, reports: list[tuple[int, str]]) -> dict[str, object]:
    """Apply the reports; give each serial's status and all DERs that are kept of it."""
    async with open_database(path) as database:
        for one in reports:
            await database.writer.run(lambda tx, one=one: report(tx, *one))
        rows = await Reads(database).search({}, None, 0, 10)
        conflicts = await database.read(select(schema.conflict))
        kept: dict[str, set[bytes]] = {row.serial: {row.der} - {None} for row in rows}
        for conflict in conflicts:
            if conflict.kind == "serial-reused":
                der = base64.b64decode(json.loads(conflict.detail)["der"])
                kept[conflict.subject.partition("/")[2]].add(der)
        await require_true_counters(database)
        return {row.serial: (row.status, kept[row.serial]) for row in rows}


async def require_true_counters(database: Database) -> None:
    counted = Counter()
    for row in await Reads(database).search({}, None, 0, 10):
        counted[row.state] += 1
        if row.state == "issued" and row.status != "good":
            counted[{"hold": "held", "revoked": "revoked"}[row.status]] += 1
    stored = await Reads(database).counters()
    assert {name: by["gw-01"] for name, by in stored.items() if by["gw-01"]} == counted


@settings(max_examples=20)
@given(reports=st.lists(_REPORTS, min_size=1, max_size=10), data=st.data())
async def test_reports_commute(tmp_path_factory, reports, data):
    folder = tmp_path_factory.mktemp("lattice")
    shuffled = data.draw(st.permutations(reports))
    one = await result_of(folder / "one.db", reports)
    other = await result_of(folder / "other.db", shuffled)
    assert one == other
    for serial, what in reports:
        if what in ("revoke", "void"):
            assert one[serial_text(serial)][0] == "revoked"


@settings(max_examples=8)
@given(reports=st.lists(_REPORTS, min_size=1, max_size=8))
async def test_a_repetition_changes_nothing(tmp_path_factory, reports):
    folder = tmp_path_factory.mktemp("lattice")
    one = await result_of(folder / "one.db", reports)
    assert await result_of(folder / "two.db", [*reports, *reports]) == one


async def test_a_stub_is_filled_and_stays_revoked(tmp_path):
    serial = _SERIALS[0]
    async with open_database(tmp_path / "a.db") as database:
        await database.writer.run(lambda tx: report(tx, serial, "revoke"))
        reads = Reads(database)
        stub = await reads.certificate(_CA.issuer.ca_id, serial_text(serial))
        assert (stub.state, stub.status, stub.der) == ("stub", "revoked", None)
        await database.writer.run(lambda tx: report(tx, serial, "issue"))
        row = await reads.certificate(_CA.issuer.ca_id, serial_text(serial))
        assert (row.state, row.status, row.reason) == ("issued", "revoked", "superseded")
        assert (row.der, row.subject_cn) == (_DERS[serial][0], "device-1")


async def test_a_der_that_is_none_is_refused(tmp_path):
    async with open_database(tmp_path / "a.db") as database:
        with pytest.raises(ValueError, match="parsing"):
            await database.writer.run(
                lambda tx: certificates.record_issued(
                    tx, "gw-01", issued_body(1, b"no"), issued_at_us=1, clock_quality="ntp"
                )
            )
        assert await Reads(database).counters() == {}
