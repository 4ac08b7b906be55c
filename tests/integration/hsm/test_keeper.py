"""Which token is trusted: the steps of the keeper, one poll at a time."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.hsm.keeper import State, TokenKeeper
from shared.hsm.memory import Memory
from shared.hsm.provider import FoundToken, TokenLostError
from shared.hsm.software import SoftwareProvider
from shared.kernel.clock import ClockQuality, Instant
from shared.kernel.errors import ConflictError, NotFoundError, TokenUnavailableError
from shared.pki import keys
from shared.pki.algorithms import ECDSA_SHA256, SignatureAlgorithm
from shared.pki.keys import KeyType
from shared.system.secrets import read_secret

_KEY = "gateway-ca"


class _Clock:
    def __init__(self) -> None:
        self.mono_ns = 0

    def now(self) -> Instant:
        return Instant(0, self.mono_ns, "boot", ClockQuality.NTP)


class _Imposter(SoftwareProvider):
    """Shows our public key, as anybody can who copied it, and signs with its own."""

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        return algorithm.sign(keys.generate(), data)


class _BrokenModule(SoftwareProvider):
    def find(self) -> FoundToken | None:
        raise TokenLostError("GeneralError")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    SoftwareProvider.create(
        tmp_path / "keys", box_secret=b"b" * 32, recovery_secret=b"r" * 32, random=os.urandom
    )
    return tmp_path / "keys"


def _keeper(
    provider: SoftwareProvider,
    state: Path,
    *,
    clock: _Clock | None = None,
    settle_s: float = 0,
    secret: Callable[[], bytes] = lambda: b"b" * 32,
) -> TokenKeeper:
    return TokenKeeper(
        provider=provider,
        secret=secret,
        memory=Memory(state),
        clock=clock or _Clock(),
        random=os.urandom,
        settle_s=settle_s,
    )


def _ready(directory: Path, state: Path) -> TokenKeeper:
    keeper = _keeper(SoftwareProvider(directory, os.urandom), state)
    keeper.poll()
    keeper.generate(_KEY, KeyType.EC_P256)
    assert keeper.snapshot.state is State.READY
    return keeper


def test_it_becomes_ready_by_the_first_key(directory: Path, tmp_path: Path):
    keeper = _keeper(SoftwareProvider(directory, os.urandom), tmp_path)
    assert keeper.snapshot.state is State.ABSENT
    with pytest.raises(TokenUnavailableError):
        keeper.generate(_KEY, KeyType.EC_P256)
    keeper.poll()
    assert keeper.snapshot.state is State.VERIFY
    with pytest.raises(TokenUnavailableError, match="no key yet"):
        keeper.sign(_KEY, b"", ECDSA_SHA256)
    spki = keeper.generate(_KEY, KeyType.EC_P256)
    assert keeper.snapshot.state is State.READY
    assert keeper.snapshot.keys == {_KEY: spki}
    signature = keeper.sign(_KEY, b"data", ECDSA_SHA256)
    ECDSA_SHA256.verify(keys.load_spki(spki), b"data", signature)
    with pytest.raises(NotFoundError):
        keeper.sign("other", b"", ECDSA_SHA256)


def test_a_copied_public_key_is_not_enough(directory: Path, tmp_path: Path):
    _ready(directory, tmp_path)
    keeper = _keeper(_Imposter(directory, os.urandom), tmp_path)
    for _ in range(3):
        keeper.poll()
        assert keeper.snapshot.state is State.FOREIGN
    with pytest.raises(TokenUnavailableError):
        keeper.sign(_KEY, b"data", ECDSA_SHA256)


def test_an_exchanged_key_is_foreign(directory: Path, tmp_path: Path):
    _ready(directory, tmp_path)
    (directory / f"{_KEY}.key").unlink()
    provider = SoftwareProvider(directory, os.urandom)
    provider.login(b"b" * 32)
    provider.generate(_KEY, KeyType.EC_P256)
    keeper = _keeper(SoftwareProvider(directory, os.urandom), tmp_path)
    keeper.poll()
    assert keeper.snapshot.state is State.FOREIGN
    assert _KEY in keeper.snapshot.sentence


def test_a_label_is_never_given_to_a_second_key(directory: Path, tmp_path: Path):
    _ready(directory, tmp_path)
    (directory / f"{_KEY}.key").unlink()
    keeper = _keeper(SoftwareProvider(directory, os.urandom), tmp_path)
    keeper.poll()
    with pytest.raises(ConflictError):
        keeper.generate(_KEY, KeyType.EC_P256)


def test_a_token_must_stay_to_be_opened(directory: Path, tmp_path: Path):
    clock = _Clock()
    keeper = _keeper(SoftwareProvider(directory, os.urandom), tmp_path, clock=clock, settle_s=0.5)
    keeper.poll()
    assert keeper.snapshot.state is State.SETTLING
    assert keeper.restless
    clock.mono_ns = 400_000_000
    (directory / "keyring").rename(directory / "away")
    keeper.poll()
    assert keeper.snapshot.state is State.ABSENT
    (directory / "away").rename(directory / "keyring")
    clock.mono_ns = 800_000_000
    keeper.poll()
    assert keeper.snapshot.state is State.SETTLING
    clock.mono_ns = 1_300_000_000
    keeper.poll()
    assert keeper.snapshot.state is State.VERIFY


def test_a_pulled_token_is_noticed_without_a_signature(directory: Path, tmp_path: Path):
    keeper = _ready(directory, tmp_path)
    (directory / "keyring").rename(directory / "away")
    keeper.poll()
    assert keeper.snapshot.state is State.DEGRADED
    assert keeper.restless
    keeper.poll()
    assert keeper.snapshot.state is State.ABSENT
    (directory / "away").rename(directory / "keyring")
    keeper.poll()
    assert keeper.snapshot.state is State.READY


def test_a_broken_module_is_an_absent_token(directory: Path, tmp_path: Path):
    keeper = _keeper(_BrokenModule(directory, os.urandom), tmp_path)
    for _ in range(3):
        keeper.poll()
        assert keeper.snapshot.state is State.ABSENT


def test_a_missing_pin_is_told(directory: Path, tmp_path: Path):
    source = f"file:{tmp_path}/pin"
    provider = SoftwareProvider(directory, os.urandom)
    keeper = _keeper(provider, tmp_path, secret=lambda: read_secret(source))
    keeper.poll()
    assert keeper.snapshot.state is State.LOGIN
    assert "does not exist" in keeper.snapshot.sentence
    (tmp_path / "pin").write_bytes(b"b" * 32)
    (tmp_path / "pin").chmod(0o600)
    keeper.poll()
    assert keeper.snapshot.state is State.VERIFY


def test_a_full_disk_is_told(directory: Path, tmp_path: Path):
    """Without the written attempt the PIN is not used."""
    keeper = _keeper(SoftwareProvider(directory, os.urandom), tmp_path / "missing")
    keeper.poll()
    assert keeper.snapshot.state is State.LOGIN
    assert "state directory cannot be used" in keeper.snapshot.sentence
