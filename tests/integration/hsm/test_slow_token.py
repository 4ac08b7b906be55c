"""A token as slow as a USB one: the real server and client around software keys that take time."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.hsm.client import HsmClient, RemoteIssuingKey
from shared.hsm.keeper import TokenKeeper
from shared.hsm.memory import Memory
from shared.hsm.provider import TokenLostError
from shared.hsm.server import HsmServer
from shared.hsm.settings import Policy
from shared.hsm.software import SoftwareProvider
from shared.hsm.worker import TokenWorker
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import OutcomeUnknownError, TokenUnavailableError
from shared.pki import certificates
from shared.pki.algorithms import SignatureAlgorithm
from shared.system.clock import SystemClock
from tests.support.pki_hierarchy import Hierarchy, leaf_plan
from tests.support.softhsm import KEY, born, observed, settled

_LATENCY_S = 0.03


class _SlowProvider(SoftwareProvider):
    """Takes its time, can be held and lost, and notes the order of what it signed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, os.urandom)
        self.signed: list[bytes] = []
        self.lost: TokenLostError | None = None
        self.at_work, self.free = threading.Event(), threading.Event()
        self.free.set()

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        self.at_work.set()
        assert self.free.wait(60)
        time.sleep(_LATENCY_S)
        if self.lost is not None:
            lost, self.lost = self.lost, None
            raise lost
        self.signed.append(data)
        return super().sign(key, data, algorithm)


@pytest.fixture
def provider(tmp_path: Path) -> _SlowProvider:
    SoftwareProvider.create(
        tmp_path / "keys", box_secret=b"b" * 32, recovery_secret=b"r" * 32, random=os.urandom
    )
    return _SlowProvider(tmp_path / "keys")


@pytest.fixture
async def client(tmp_path: Path, provider: _SlowProvider) -> AsyncIterator[HsmClient]:
    clock, memory = SystemClock(), Memory(tmp_path)
    keeper = TokenKeeper(
        provider=provider,
        secret=lambda: b"b" * 32,
        memory=memory,
        clock=clock,
        random=os.urandom,
        settle_s=0,
    )
    worker = TokenWorker(keeper, clock, poll_s=0.05)
    server = HsmServer(
        keeper=keeper,
        worker=worker,
        memory=memory,
        policy=Policy(),
        random=os.urandom,
        users=frozenset({os.geteuid()}),
    )
    worker.start()
    listening = await asyncio.start_unix_server(server.connection, tmp_path / "s")
    client = HsmClient(tmp_path / "s")
    await settled(client, "verify")
    await client.generate(KEY)
    yield client
    await client.close()
    listening.close()
    worker.stop(10)
    await server.drained(10)


@pytest.fixture
async def key(client: HsmClient) -> RemoteIssuingKey:
    return await born(client, Hierarchy().fleet)


def _tbs(key: RemoteIssuingKey, serial: int) -> bytes:
    return certificates.unsigned(leaf_plan(), key.issuer, serial)


async def test_the_line_goes_first(
    client: HsmClient, provider: _SlowProvider, key: RemoteIssuingKey
):
    waiting = {
        priority: [_tbs(key, 1 + 10 * rank + n) for n in range(3)]
        for rank, priority in enumerate(reversed(Priority))
    }
    blocker = _tbs(key, 1_000)
    provider.at_work.clear()
    provider.free.clear()
    first = asyncio.create_task(
        key.sign(blocker, Purpose.LEAF, priority=Priority.LINE, reference="")
    )
    assert await asyncio.to_thread(provider.at_work.wait, 30)
    others = [
        asyncio.create_task(key.sign(document, Purpose.LEAF, priority=priority, reference=""))
        for priority, documents in waiting.items()
        for document in documents
    ]
    await observed(client, lambda state: state.queued == len(others))
    provider.signed.clear()
    provider.free.set()
    await asyncio.gather(first, *others)
    expected = [document for priority in Priority for document in waiting[priority]]
    assert provider.signed == [blocker, *expected]


async def test_what_would_come_too_late_is_refused_at_once(
    client: HsmClient, provider: _SlowProvider, key: RemoteIssuingKey
):
    for n in range(30):  # let the average learn how slow the token is
        await key.sign(_tbs(key, 1 + n), Purpose.LEAF, priority=Priority.LINE, reference="")
    assert (await client.state()).latency_us > _LATENCY_S * 1e6 / 2
    documents = [_tbs(key, 100 + n) for n in range(40)]
    begin = len(provider.signed)
    answers = await asyncio.gather(
        *(
            client.sign(
                document,
                Purpose.LEAF,
                key=KEY,
                priority=Priority.LINE,
                reference="",
                deadline_s=10 * _LATENCY_S,
            )
            for document in documents
        ),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, TokenUnavailableError)]
    assert all((error.retry_after_s or 0) > 0 for error in refused)
    assert len(refused) > 20
    assert len(provider.signed) - begin == 40 - len(refused)


@pytest.mark.parametrize(
    ("used", "expected"), [(True, OutcomeUnknownError), (False, TokenUnavailableError)]
)
async def test_token_lost_while_it_signs(
    client: HsmClient, provider: _SlowProvider, key: RemoteIssuingKey, used: bool, expected: type
):
    provider.lost = TokenLostError("pulled", used=used)
    with pytest.raises(expected):
        await key.sign(_tbs(key, 1), Purpose.LEAF, priority=Priority.LINE, reference="")
    await settled(client, "ready")
    await key.sign(_tbs(key, 2), Purpose.LEAF, priority=Priority.LINE, reference="")


async def test_a_caller_that_gives_up_disturbs_nobody(key: RemoteIssuingKey):
    tasks = [
        asyncio.create_task(
            key.sign(_tbs(key, n), Purpose.LEAF, priority=Priority.LINE, reference="")
        )
        for n in range(1, 7)
    ]
    await asyncio.sleep(_LATENCY_S)
    tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert sum(isinstance(answer, bytes) for answer in answers) == 5


async def test_state_is_answered_while_the_token_works(
    client: HsmClient, provider: _SlowProvider, key: RemoteIssuingKey
):
    provider.free.clear()
    load = [
        asyncio.create_task(
            key.sign(_tbs(key, n), Purpose.LEAF, priority=Priority.STATUS, reference="")
        )
        for n in range(1, 11)
    ]
    state = await observed(client, lambda state: state.queued == 9)
    assert state.ready
    assert state.per_second > 0
    provider.free.set()
    await asyncio.gather(*load)
