"""Who asks: tokens, and the limits on guessing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import ForbiddenError, UnauthenticatedError
from shared.policy.rights import Permission, Right, Scope
from shared.web.auth import Authenticator, Principal, new_token, token_hash
from shared.web.throttle import Throttle, ThrottledError
from tests.support.store_clock import ManualClock


@dataclass
class Row:
    name: str = "line-1"
    role: str = "station"
    profiles: tuple[str, ...] = ("tls-server",)
    expires_at_us: int | None = None
    revoked_at_us: int | None = None


@dataclass
class Credentials:
    stations: dict[bytes, Row] = field(default_factory=dict)
    asked: int = 0
    refused: int = 0

    async def station_by_token(self, token_hash: bytes) -> Row | None:
        self.asked += 1
        return self.stations.get(token_hash)

    async def station_by_certificate(self, sha256: str) -> None:
        return None

    async def client_certificate(self, sha256: str) -> None:
        return None

    async def user_by_token(self, token_hash: bytes) -> None:
        return None

    async def user_by_certificate(self, sha256: str) -> None:
        return None

    async def token_refused(self, kind: str, peer: str) -> None:
        self.refused += 1


class Box:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.credentials = Credentials()
        self.authenticator = Authenticator(
            credentials=self.credentials, clock=self.clock, failures=Throttle(self.clock, burst=3)
        )

    def add(self, **changes: Any) -> str:
        token, digest = new_token(os.urandom)
        self.credentials.stations[digest] = Row(**changes)
        return token

    async def ask(self, token: str | None) -> Principal:
        headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.authenticator.principal(make_mocked_request("GET", "/", headers))


async def test_a_token_names_a_station():
    box = Box()
    principal = await box.ask(box.add())
    right = Right.of("station", Scope(profile="tls-server"))
    assert principal == Principal("station:line-1", (right,))
    assert principal.may_use("tls-server")
    assert not principal.may_use("tls-client")
    assert not principal.may_use("*")
    with pytest.raises(ForbiddenError):
        principal.require(Permission.USER_WRITE)


async def test_nothing_and_strangers():
    box = Box()
    for token in (None, "tma_x", "tma_" + "A" * 43):
        with pytest.raises(UnauthenticatedError):
            await box.ask(token)


@given(text=st.text(max_size=200))
async def test_no_text_is_a_token(text: str):
    box = Box()
    box.add()
    header = {"Authorization": f"Bearer {text}"}
    with pytest.raises(UnauthenticatedError):
        await box.authenticator.principal(make_mocked_request("GET", "/", header))


async def test_the_database_is_asked_once_in_two_seconds():
    box = Box()
    token = box.add()
    for _ in range(50):
        await box.ask(token)
    assert box.credentials.asked == 1
    box.clock.advance(2)
    await box.ask(token)
    assert box.credentials.asked == 2


async def test_a_clock_that_is_set_back_does_not_keep_a_credential_alive():
    box = Box()
    token = box.add()
    await box.ask(token)
    box.clock.advance(-3600)
    box.credentials.stations[token_hash(token)].revoked_at_us = 1
    with pytest.raises(UnauthenticatedError):
        await box.ask(token)


async def test_revocation_and_expiry():
    box = Box()
    token = box.add(expires_at_us=box.clock.utc_us + 1_000_000)
    await box.ask(token)
    box.clock.advance(1)
    with pytest.raises(UnauthenticatedError):
        await box.ask(token)
    token = box.add()
    await box.ask(token)
    box.credentials.stations[token_hash(token)].revoked_at_us = 1
    box.authenticator.forget()
    with pytest.raises(UnauthenticatedError):
        await box.ask(token)


async def test_guessing_is_slowed_down_and_known_stations_are_not():
    box = Box()
    token = box.add()
    await box.ask(token)
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            await box.ask("tma_guess")
    asked = box.credentials.asked
    with pytest.raises(ThrottledError) as refused:
        await box.ask("tma_guess")
    assert box.credentials.asked == asked
    assert refused.value.retry_after_s == pytest.approx(20)
    box.clock.advance(10)
    await box.ask(token)
    box.clock.advance(10)
    with pytest.raises(UnauthenticatedError):
        await box.ask("tma_guess")


async def test_refusals_are_noted_up_to_a_bound():
    box = Box()
    for _ in range(200):
        with pytest.raises((UnauthenticatedError, ThrottledError)):
            await box.ask("tma_guess")
        box.clock.advance(10)
    assert 60 <= box.credentials.refused <= 120


def test_tokens_are_256_bit_and_only_their_hash_is_kept():
    token, digest = new_token(os.urandom)
    assert token.startswith("tma_")
    assert len(token) == 4 + 43
    assert digest == token_hash(token)
    assert token.encode() not in digest


@given(failures=st.lists(st.sampled_from("abc"), max_size=60), wait_s=st.integers(0, 100))
def test_throttle_allows_its_burst_and_its_rate(failures: list[str], wait_s: int):
    """Each address on its own: ``burst`` at once, and the same number again per period."""
    clock = ManualClock()
    throttle = Throttle(clock, burst=4, period_s=40)

    def allowed(address: str) -> int:
        for count in range(100):
            try:
                throttle.require(address)
            except ThrottledError:
                return count
            throttle.count(address)
        return 100

    for address in failures:
        throttle.count(address)
    used = failures.count("a")
    clock.advance(wait_s)
    refilled = wait_s // 10
    assert allowed("a") == min(4, max(0, 4 - used + refilled))
    assert allowed("untouched") == 4
