"""Search on both databases: the same rows as a look at every single one, page by page."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from central.inventory import finder as finding
from central.inventory import query, terms
from central.inventory.finder import Finder
from central.inventory.indexing import Indexing
from central.inventory.query import Column, Free, Range, Term
from shared.kernel.errors import BadRequestError
from shared.kernel.ids import serial_text
from shared.pki.plan import AltName, AltNameKind
from shared.policy.rights import Scope
from shared.store import certificates
from shared.store.database import Database
from shared.store.schema import certificate
from shared.store.transaction import Transaction
from tests.support.pki_hierarchy import DAY_US, NOW_US, leaf_plan, root_authority, subject
from tests.support.store_databases import open_database

_ROWS = 120
_ALL = [Scope()]
_ROOT = root_authority()
_QUERIES = [
    "",
    "press-1",
    "status:revoked",
    "profile:tls-server status:revoked",
    "gateway:gw-1 meta.order:4711",
    "dns:press-1*",
    "dns:PRESS-10.example",
    "meta.order:4711 key_type:ec-p256 protocol:rest",
    "expires<2026-06-01",
    "expires>2026-06-01 gateway:gw-0",
    "dns:press-* expires>1970-01-01",
    "requester:station:line-3 state:issued",
    "meta.colour:red",
]


def _body(number: int, chance: random.Random) -> dict[str, Any]:
    name = f"press-{number}"
    plan = leaf_plan(
        subject=subject(name, f"SN-{number}"),
        alt_names=(AltName(AltNameKind.DNS, f"{name}.example"),),
        not_after_us=NOW_US + chance.randrange(1, 900) * DAY_US,
    )
    return {
        "ca_id": _ROOT.issuer.ca_id,
        "serial": serial_text(number + 1),
        "der": _ROOT.issue(plan, number + 1),
        "profile": chance.choice(["tls-server", "idevid"]),
        "profile_version": 1,
        "purpose": "tls-server",
        "device_id": f"SN-{number}",
        "alias": "rest",
        "protocol": "rest",
        "principal": f"station:line-{number % 5}",
        "metadata": {"order": chance.choice(["4711", "4712"])},
        "grant_id": None,
        "test": False,
        "replaces": None,
        "intent_id": "1",
    }


def _fill(tx: Transaction) -> None:
    chance = random.Random(7)
    for number in range(_ROWS):
        body = _body(number, chance)
        certificates.record_issued(
            tx, f"gw-{number % 3}", body, issued_at_us=NOW_US, clock_quality="ntp"
        )
        if number % 4 == 0:
            place = {"ca_id": body["ca_id"], "serial": body["serial"]}
            order = {**place, "reason": "superseded", "revoked_at_us": 7}
            certificates.record_revoked(tx, f"gw-{number % 3}", order)


@pytest.fixture
async def database(each_database: str, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "central.db") as opened:
        await opened.writer.run(_fill)
        await _caught_up(opened)
        yield opened


async def _caught_up(database: Database) -> None:
    indexing = Indexing(database)
    for _ in range(_ROWS):
        await indexing.step()
    assert (await indexing.progress()).behind == 0


def _holds(condition: query.Condition, row: Any) -> bool:
    """What a condition means, for one row and without any index."""
    found = terms.Found(
        row.principal, row.alias, row.protocol, row.issued_at, {"order": row.metadata[-6:-2]}
    )
    told = terms.terms_of(row.der, found)
    match condition:
        case Column(name, value):
            names = {"gateway": row.origin, "device": row.device_id}
            return (names.get(name) or getattr(row, name)) == value
        case Free(word):
            return row.subject_cn.startswith(word) or row.device_id.startswith(word)
        case Term(name, value):
            return (name, value) in told
        case Range(name, first, end):
            return any(name == own and first <= value < end for own, value in told)


@pytest.mark.parametrize("rare", [1_000, 5], ids=["all are rare", "few are rare"])
async def test_each_query_finds_what_it_says_once_in_order(
    database: Database, monkeypatch: pytest.MonkeyPatch, rare: int
) -> None:
    monkeypatch.setattr(finding, "_RARE", rare)
    rows = await database.read(select(certificate).order_by(certificate.c.id.desc()))
    for text in _QUERIES:
        wanted = [row.id for row in rows if all(_holds(one, row) for one in query.parse(text))]
        found: list[int] = []
        after = ""
        while True:
            page = await Finder(database).find(
                text, _ALL, columns=[certificate.c.id], after=after, limit=7
            )
            found += [row[0] for row in page.rows]
            after = page.after
            if not after:
                break
            assert len(page.rows) == 7
        assert sorted(found, reverse=True) == wanted, text
        by_age = found == wanted
        assert by_age or text.startswith(("expires", "dns:press-*", "dns:press-1*")), text


async def test_only_what_lies_in_the_scope_is_found(database: Database) -> None:
    scopes = [Scope(line="gw-1"), Scope(profile="idevid")]
    page = await Finder(database).find(
        "meta.order:4711",
        scopes,
        columns=[certificate.c.origin, certificate.c.profile],
        limit=500,
    )
    assert page.rows
    assert all(row.origin == "gw-1" or row.profile == "idevid" for row in map(_named, page.rows))
    nobody = await Finder(database).find("", [], columns=[certificate.c.id], limit=500)
    assert nobody.rows == []


def _named(row: Any) -> Any:
    class _Row:
        origin, profile = row

    return _Row


async def test_what_arrives_behind_its_revocation_is_found(database: Database) -> None:
    body = _body(_ROWS + 1, random.Random(8))
    place = {"ca_id": body["ca_id"], "serial": body["serial"]}
    order = {**place, "reason": "superseded", "revoked_at_us": 7}
    await database.writer.run(lambda tx: certificates.record_revoked(tx, "gw-0", order))
    await _caught_up(database)
    await database.writer.run(
        lambda tx: certificates.record_issued(
            tx, "gw-0", body, issued_at_us=NOW_US, clock_quality="ntp"
        )
    )
    await _caught_up(database)
    page = await Finder(database).find(
        f"dns:press-{_ROWS + 1}.example", _ALL, columns=[certificate.c.serial], limit=5
    )
    assert [row[0] for row in page.rows] == [body["serial"]]


async def test_a_page_that_was_made_up_is_refused(database: Database) -> None:
    for after in ("x", "-1", "9" * 40, "~"):
        with pytest.raises(BadRequestError):
            await Finder(database).find(
                "protocol:rest", _ALL, columns=[certificate.c.id], after=after, limit=5
            )
