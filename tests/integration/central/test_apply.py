"""Applying events to the inventory: every order of arrival gives the same end, counted right."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from central.authority.hierarchy import store_authority
from central.inventory.reads import Inventory
from central.sync import books
from central.sync.apply import Applier
from central.sync.quarantine import drive_again
from shared.kernel.errors import TmaError, UntrustedError
from shared.kernel.ids import serial_text
from shared.store.database import Database
from shared.store.schema import audit, certificate, conflict, gateway, grant_use, quarantine
from shared.store.transaction import Transaction
from shared.sync import events
from shared.sync.events import Event
from tests.support.pki_hierarchy import leaf_plan, root_authority, subject, subordinate
from tests.support.store_clock import ManualClock
from tests.support.store_databases import ListSink, open_database

_GATEWAY = subordinate(root_authority(), "Gateway CA gw-1", 0)
_CA_ID = _GATEWAY.issuer.ca_id
_CERTIFICATES = [
    (serial_text(number), _GATEWAY.issue(leaf_plan(subject=subject(f"d-{number}")), number))
    for number in range(1, 4)
]
_QUOTA = 2


def _issued(index: int) -> tuple[str, dict[str, Any]]:
    serial, der = _CERTIFICATES[index]
    return "certificate.issued", {
        "ca_id": _CA_ID,
        "serial": serial,
        "der": der,
        "profile": "tls-server",
        "profile_version": 1,
        "purpose": "tls-server",
        "device_id": f"d-{index}",
        "alias": "rest",
        "protocol": "rest",
        "principal": "station:1",
        "metadata": {},
        "grant_id": "grant-1",
        "test": False,
        "replaces": None,
        "intent_id": "1",
    }


def _status(kind: str, index: int) -> tuple[str, dict[str, Any]]:
    place = {"ca_id": _CA_ID, "serial": _CERTIFICATES[index][0]}
    if kind == "revoked":
        return "certificate.revoked", {**place, "reason": "superseded", "revoked_at_us": 7}
    return f"certificate.{kind}", {**place, "hold_id": "h"}


_indexes = st.integers(0, len(_CERTIFICATES) - 1)
_reports = st.lists(
    st.one_of(
        _indexes.map(_issued),
        st.tuples(st.sampled_from(["revoked", "held", "released"]), _indexes).map(
            lambda chosen: _status(*chosen)
        ),
    ),
    max_size=12,
)


async def _applied(
    reports: list[tuple[str, dict[str, Any]]], together: Sequence[tuple[str, dict[str, Any]]] = ()
) -> tuple[Any, Any, Any, int]:
    """Apply reports one by one, then others as one batch; gives the effects."""
    with TemporaryDirectory() as folder:
        async with open_database(Path(folder) / "central.db") as database:
            await database.writer.run(_prepare)
            for type_name, body in reports:
                await _apply(database, type_name, body)
            batch = _events(together)
            await database.writer.run(lambda tx: Applier("gw-1").apply_all(tx, batch))
            rows = await database.read(
                select(certificate.c.serial, certificate.c.state, certificate.c.status)
                .where(certificate.c.origin == "gw-1")
                .order_by(certificate.c.serial)
            )
            totals = await Inventory(database).totals()
            used = await database.read(select(grant_use.c.used))
            overdrawn = await database.read(
                select(conflict).where(conflict.c.kind == "quota-overdrawn")
            )
            return [tuple(row) for row in rows], totals, used[0].used, len(overdrawn)


def _prepare(transaction: Transaction) -> None:
    store_authority(
        transaction,
        kind="gateway",
        name="gw-1",
        der=_GATEWAY.issuer.chain[0],
        parent_id=None,
        gateway="gw-1",
    )
    grant = {
        "grant_id": "grant-1",
        "version": 1,
        "quota": _QUOTA,
        "used": 0,
        "state": "active",
        "document": b"",
    }
    transaction.execute(insert(grant_use), grant)


def _events(reports: Sequence[tuple[str, dict[str, Any]]]) -> list[Event]:
    now = ManualClock().now()
    return [
        events.create(type_name, body, actor="station:1", now=now, random=os.urandom)
        for type_name, body in reports
    ]


async def _apply(database: Database, type_name: str, body: dict[str, Any]) -> None:
    [event] = _events([(type_name, body)])
    await database.writer.run(lambda transaction: Applier("gw-1").apply(transaction, event))


@settings(max_examples=15)
@given(_reports, st.randoms(use_true_random=False))
async def test_effects_commute_and_repeat_harmlessly(reports, random):
    expected = await _applied(reports)
    shuffled = [*reports, *reports[: len(reports) // 2]]
    random.shuffle(shuffled)
    assert await _applied(shuffled) == expected


@settings(max_examples=15)
@given(_reports)
async def test_counters_equal_a_count(reports):
    rows, totals, used, overdrawn = await _applied(reports)
    states = Counter(state for _, state, _ in rows)
    statuses = Counter(status for _, state, status in rows if state == "issued")
    assert (totals.issued, totals.announced) == (states["issued"], states["stub"])
    assert (totals.good, totals.held, totals.revoked) == (
        statuses["good"],
        statuses["hold"],
        statuses["revoked"],
    )
    assert used == states["issued"]
    assert overdrawn == (used > _QUOTA)


async def test_events_that_gateways_never_send_are_refused(tmp_path, each_database):
    async with open_database(tmp_path / "central.db") as database:
        body = {"ca_id": "x", "der": b"", "incarnation": "1", "number": 1}
        try:
            await _apply(database, "directive.crl", body)
        except TmaError as error:
            assert error.code == "untrusted"
        else:
            raise AssertionError("A directive was applied as a report.")


async def test_parents_crl_goes_to_every_active_gateway_in_the_same_commit(tmp_path, each_database):
    """See central.sync.books: the event of central's own CRL becomes orders."""
    root = root_authority()
    sink = ListSink()
    async with open_database(tmp_path / "central.db", sink=sink) as database:

        def unit(transaction: Transaction) -> None:
            store_authority(
                transaction, kind="root", name="Root", der=root.issuer.chain[0], parent_id=None
            )
            body = {"ca_id": root.issuer.ca_id, "number": 1, "der": b"crl"}
            event = events.create(
                "crl.published", body, actor="system", now=transaction.now, random=os.urandom
            )
            for name in ("gw-1", "gw-2"):
                _add_gateway(transaction, name, "active" if name == "gw-1" else "ended")
            books.enter(transaction, event)

        await database.writer.run(unit)
    assert [(peer, event.type) for peer, event in sink.events] == [("gw-1", "directive.crl")]


async def test_quarantined_event_is_tried_again(tmp_path, each_database):
    """It came before this version knew the gateway's CA; now it does."""
    type_name, body = _issued(0)
    now = ManualClock().now()
    event = events.create(type_name, body, actor="station:1", now=now, random=os.urandom)
    row = {
        "peer": "gw-1",
        "segment": "0" * 32,
        "lane": 1,
        "sequence": 2,
        "reason": "The CA is not one of this gateway.",
        "event": events.encode(event),
        "created_at": 0,
        "resolved_at": None,
    }
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(lambda transaction: transaction.execute(insert(quarantine), row))
        assert await drive_again(database) == 0
        await database.writer.run(_prepare)
        assert await drive_again(database) == 1
        assert await drive_again(database) == 0
        assert (await Inventory(database).totals()).issued == 1


def _add_gateway(transaction: Transaction, name: str, state: str) -> None:
    row = {"name": name, "state": state, "state_reason": "", "created_at": 0}
    transaction.execute(insert(gateway), row)


class _Explaining(Transaction):
    """A transaction that writes down how each query on certificates is carried out."""

    plans: set[str]

    def run_sql(self, sql: str, values: Any = (), *rest: Any) -> Any:
        if " certificate" in sql and sql.startswith(("SELECT", "UPDATE")):
            explain = f"EXPLAIN QUERY PLAN {sql}"
            self.plans |= {row[-1] for row in super().run_sql(explain, values, list)}
        return super().run_sql(sql, values, *rest)


@settings(max_examples=15)
@given(_reports)
async def test_a_batch_has_the_effects_of_its_events(reports):
    assert await _applied([], reports) == await _applied(reports)


async def test_a_batch_with_one_event_that_cannot_be_applied_leaves_nothing_counted(tmp_path):
    _kind, foreign = _issued(1)
    batch = [_issued(0), ("certificate.issued", foreign | {"ca_id": "ff" * 20})]
    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_prepare)
        with pytest.raises(UntrustedError):
            await database.writer.run(lambda tx: Applier("gw-1").apply_all(tx, _events(batch)))
        assert (await Inventory(database).totals()).issued == 0
        assert (await database.read(select(grant_use.c.used)))[0].used == 0


async def test_no_effect_reads_all_certificates(tmp_path):
    """SQLite once took the index by profile to look at other gateways: n reports read n² rows."""

    def unit(transaction: Transaction) -> set[str]:
        transaction.__class__ = _Explaining
        transaction.plans = set()
        for kind, body in (_issued(0), _status("revoked", 0), _status("held", 1)):
            now = transaction.now
            event = events.create(kind, body, actor="station:1", now=now, random=os.urandom)
            Applier("gw-1").apply(transaction, event)
        transaction.__class__ = Transaction
        return transaction.plans

    async with open_database(tmp_path / "central.db") as database:
        await database.writer.run(_prepare)
        plans = await database.writer.run(unit)
    assert any("certificate_by_device" in plan for plan in plans), plans
    by_one = ("certificate_by_device", "(serial=? AND ca_id=?)")
    assert all(any(index in plan for index in by_one) for plan in plans), plans


async def test_what_an_operator_did_at_a_gateway_is_audited_under_his_name(tmp_path: Path):
    clock = ManualClock()
    body = {"action": "line.stopped", "subject": "line", "detail": {"reason": "mould"}}
    event = events.create(
        "operator.acted", body, actor="user:eva", now=clock.now(), random=os.urandom
    )
    async with open_database(tmp_path / "central.db", clock=clock) as database:
        await database.writer.run(lambda transaction: Applier("gw-1").apply(transaction, event))
        [row] = await database.read(select(audit))
    assert (row.actor, row.action, row.subject) == ("gw-1/user:eva", "line.stopped", "gw-1")
