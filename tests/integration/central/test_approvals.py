"""Two people do it once: neither alone, nor both of them twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from central.identity.approvals import Approvals, Content, Operation
from central.inventory import audit
from shared.kernel.errors import ConflictError, ForbiddenError, IntegrityError, NotFoundError
from shared.policy.rights import Permission, Right, Scope
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.web.auth import Principal
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

_LINE = Scope(line="press-1")
_ANNA = Principal("user:anna", (Right.of("admin"),))
_BEN = Principal("user:ben", (Right.of("admin", _LINE),))
_CONTENT = {"name": "press-1", "reason": "stolen"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "central.db", clock=clock) as opened:
        yield opened


@pytest.fixture
def afterwards() -> list[Content]:
    return []


@pytest.fixture
def approvals(database: Database, clock: ManualClock, afterwards: list[Content]) -> Approvals:
    return _approvals(database, clock, afterwards, "gateway.end")


def _approvals(
    database: Database, clock: ManualClock, afterwards: list[Content], *needed: str
) -> Approvals:
    async def after(content: Content) -> None:
        afterwards.append(content)

    made = Approvals(database, needed=frozenset(needed), hours=1, clock=clock)
    operation = Operation("gateway.end", Permission.GATEWAY_END, _end, after)
    made.register("gateway.end", operation)
    return made


def _end(transaction: Transaction, content: Content, actor: str) -> None:
    if content["reason"] == "refused by the world":
        raise ConflictError("It cannot be done.")
    audit.add(transaction, actor, "gateway.ended", content["name"], {"reason": content["reason"]})


async def _ask(approvals: Approvals, content: Content = _CONTENT, actor: str = "user:anna") -> int:
    number = await approvals.do("gateway.end", "press-1", content, actor, scope=_LINE)
    assert number is not None
    return number


async def _ended(database: Database) -> list[Any]:
    return list(await database.read(text("SELECT actor FROM audit WHERE action = 'gateway.ended'")))


async def test_without_a_setting_it_is_done_at_once(database, clock, afterwards):
    free = _approvals(database, clock, afterwards)
    assert await free.do("gateway.end", "press-1", _CONTENT, "user:anna", scope=_LINE) is None
    assert len(await _ended(database)) == len(afterwards) == 1


async def test_sixty_four_answers_at_once_carry_it_out_once(database, approvals, afterwards):
    number = await _ask(approvals)
    people = [Principal(f"user:p{each}", _BEN.rights) for each in range(64)]
    answers = await asyncio.gather(
        *(approvals.decide(number, who, agreed=True) for who in people), return_exceptions=True
    )
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert all(isinstance(answer, dict | ConflictError) for answer in answers)
    assert len(await _ended(database)) == len(afterwards) == 1


async def test_both_are_named(database, approvals):
    number = await _ask(approvals)
    await approvals.decide(number, _BEN, agreed=True, remark="seen on site")
    rows = await database.read(text("SELECT actor, action, detail FROM audit ORDER BY id"))
    told = [(row.actor, row.action) for row in rows]
    assert told == [
        ("user:anna", "approval.requested"),
        ("user:ben", "approval.given"),
        ("user:anna", "gateway.ended"),
    ]
    assert "seen on site" in rows[1].detail
    [shown] = await approvals.listed(_BEN)
    assert (shown["state"], shown["decided_by"]) == ("done", "user:ben")


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (_ANNA, ForbiddenError),  # who asked
        (Principal("station:admin", (Right.of("admin"),)), ForbiddenError),
        (Principal("user:cyd", (Right.of("operator", _LINE),)), NotFoundError),
        (Principal("user:dan", (Right.of("admin", Scope(line="press-2")),)), NotFoundError),
    ],
)
async def test_nobody_else_counts_as_second(database, approvals, who, error):
    number = await _ask(approvals)
    with pytest.raises(error):
        await approvals.decide(number, who, agreed=True)
    assert not await _ended(database)


async def test_asked_again_it_is_the_same_request(approvals):
    assert await _ask(approvals) == await _ask(approvals)
    assert await _ask(approvals, {**_CONTENT, "reason": "scrapped"}) != await _ask(approvals)


async def test_a_request_ends(database, approvals, clock):
    number = await _ask(approvals)
    clock.advance(3601)
    with pytest.raises(ConflictError, match="expired"):
        await approvals.decide(number, _BEN, agreed=True)
    assert [one["state"] for one in await approvals.listed(_BEN)] == ["expired"]
    assert await _ask(approvals) != number


async def test_what_was_refused_is_not_done_and_who_asked_may_take_it_back(database, approvals):
    number = await _ask(approvals)
    await approvals.decide(number, _BEN, agreed=False)
    with pytest.raises(ConflictError, match="refused"):
        await approvals.decide(number, _BEN, agreed=True)
    await approvals.decide(await _ask(approvals), _ANNA, agreed=False)
    assert not await _ended(database)


async def test_what_cannot_be_done_goes_on_waiting(database, approvals):
    number = await _ask(approvals, {"name": "press-1", "reason": "refused by the world"})
    with pytest.raises(ConflictError, match="cannot be done"):
        await approvals.decide(number, _BEN, agreed=True)
    assert [one["state"] for one in await approvals.listed(_BEN)] == ["pending"]


async def test_another_content_than_was_asked_for_is_not_done(database, approvals):
    number = await _ask(approvals)
    forged = text("UPDATE approval SET content = replace(content, 'press-1', 'press-9')")
    await database.writer.run(lambda transaction: transaction.execute(forged))
    with pytest.raises(IntegrityError):
        await approvals.decide(number, _BEN, agreed=True)
    assert not await _ended(database)
