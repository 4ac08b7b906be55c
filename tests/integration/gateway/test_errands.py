"""Central's single commands in a real database: done once, answered, and never too late."""

import os
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from gateway import commands
from gateway.errands import Errands
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import UnavailableError
from shared.store.database import Database
from shared.store.schema import directive
from shared.sync import events
from tests.support.store_clock import ManualClock
from tests.support.store_databases import ListSink, open_database

_LATER_US = 3600 * US_PER_SECOND


class World:
    """A gateway's database, the commands it knows, and what it told central."""

    def __init__(self, database: Database, sink: ListSink, clock: ManualClock) -> None:
        self.sink = sink
        self.clock = clock
        self.done: list[str] = []
        self.failures: list[Exception] = []
        self._database = database
        self.errands = Errands(
            commands={"sign-crl": self._sign_crl}, database=database, clock=clock
        )

    async def _sign_crl(self) -> None:
        if self.failures:
            raise self.failures.pop()
        self.done.append("sign-crl")

    async def order(self, command: str, number: int) -> None:
        body = {
            "command_id": f"c{number}",
            "command": command,
            "not_after_us": self.clock.now().utc_us + _LATER_US,
            "incarnation": "one",
            "number": number,
        }
        event = events.create(
            "directive.command", body, actor="user:a", now=self.clock.now(), random=os.urandom
        )
        await self._database.writer.run(lambda tx: commands.apply(tx, event))

    @property
    def answers(self) -> list[tuple[str, str]]:
        told: list[Any] = [event.body for _peer, event in self.sink.events]
        return [(body["subject"], body["result"]) for body in told]

    async def waiting(self) -> int:
        return len(await self._database.read(select(directive.c.subject)))


@pytest_asyncio.fixture
async def world(tmp_path) -> AsyncGenerator[World]:
    sink, clock = ListSink(), ManualClock()
    async with open_database(tmp_path / "gateway.db", sink=sink, clock=clock) as database:
        yield World(database, sink, clock)


async def test_a_command_is_run_once_and_forgotten_when_it_is_answered(world: World):
    await world.order("sign-crl", 1)
    await world.errands.step()
    await world.errands.step()
    assert world.done == ["sign-crl"]
    assert world.answers == [("c1", "applied")]
    assert await world.waiting() == 0


async def test_what_comes_after_its_time_is_not_done(world: World):
    await world.order("sign-crl", 1)
    world.clock.advance(_LATER_US / US_PER_SECOND)
    await world.errands.step()
    assert world.done == []
    assert world.answers == [("c1", "failed")]


async def test_a_command_of_a_newer_central_is_answered(world: World):
    await world.order("make-coffee", 1)
    await world.errands.step()
    assert world.answers == [("c1", "failed")]


async def test_what_cannot_be_done_now_is_tried_again(world: World):
    world.failures.append(UnavailableError("The token is away."))
    await world.order("sign-crl", 1)
    with pytest.raises(UnavailableError):
        await world.errands.step()
    assert world.answers == []
    await world.errands.step()
    assert world.done == ["sign-crl"]
    assert world.answers == [("c1", "applied")]
