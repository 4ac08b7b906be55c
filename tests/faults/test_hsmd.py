"""What a token and its daemon go through: kills, wrong PINs, strangers' tokens, hostile bytes."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import cbor2
import pytest

from shared.hsm.client import HsmClient, RemoteIssuingKey
from shared.hsm.memory import Attempt, Memory
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import OutcomeUnknownError, TokenUnavailableError
from shared.pki import certificates
from shared.system.processes import address_of
from tests.support.pki_hierarchy import Hierarchy, leaf_plan
from tests.support.processes import program
from tests.support.softhsm import Hsmd, SoftHsm, born, observed, settled


@pytest.fixture
def tokens(tmp_path: Path) -> SoftHsm:
    return SoftHsm(tmp_path / "hsm")


@pytest.fixture
def hsmd(tokens: SoftHsm, request: pytest.FixtureRequest) -> Hsmd:
    """A daemon whose URI names the token's label only, so that a stranger's can pass for it."""
    uri = tokens.initialise("gw-01")
    path, _, query = uri.partition("?")
    daemon = Hsmd(tokens.folder, f"{path.partition(';')[0]}?{query}", tokens.environ)
    request.addfinalizer(daemon.process.stop)
    return daemon


@pytest.fixture
async def client(hsmd: Hsmd):
    client = HsmClient(hsmd.socket, deadline_s=5)
    yield client
    await client.close()


def _logins(hsmd: Hsmd) -> int:
    """How many times the PIN was used, which the daemon logs before it does."""
    return hsmd.process.log.read_text().count("token login")


def _pin_in_doubt(tokens: SoftHsm) -> bool:
    """Whether the token says of itself that the last PIN it was given was wrong."""
    return "user PIN count low" in _pkcs11_tool(tokens, "--list-slots")


def _pkcs11_tool(tokens: SoftHsm, *arguments: str) -> str:
    return subprocess.run(
        [program("pkcs11-tool"), "--module", "/usr/lib/softhsm/libsofthsm2.so", *arguments],
        env=os.environ | tokens.environ,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


async def _leaf(key: RemoteIssuingKey, serial: int) -> bytes:
    tbs = certificates.unsigned(leaf_plan(), key.issuer, serial)
    signature = await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference=str(serial))
    return certificates.assemble(tbs, signature, key.issuer)


async def test_kill_under_load(hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    key = await born(client, Hierarchy().fleet)
    await _leaf(key, 1)
    unknown = 0
    for round_ in range(3):
        load = [asyncio.create_task(_leaf(key, n)) for n in range(2, 400)]
        await asyncio.sleep(random.uniform(0.005, 0.03))
        hsmd.process.kill()
        answers = await asyncio.gather(*load, return_exceptions=True)
        lost = [answer for answer in answers if not isinstance(answer, bytes)]
        assert all(isinstance(e, OutcomeUnknownError | TokenUnavailableError) for e in lost), lost
        unknown += sum(isinstance(error, OutcomeUnknownError) for error in lost)
        with pytest.raises(TokenUnavailableError, match="does not answer"):
            await _leaf(key, 1)
        hsmd.start()
        await settled(client, "ready")
        await _leaf(key, 1_000 + round_)
    assert unknown > 0


async def test_end_by_request_answers_what_was_accepted(hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    key = await born(client, Hierarchy().fleet)
    load = [asyncio.create_task(_leaf(key, n)) for n in range(1, 400)]
    await observed(client, lambda state: state.signed > 10)
    hsmd.process.signal(signal.SIGTERM)
    answers = await asyncio.gather(*load, return_exceptions=True)
    assert all(isinstance(answer, bytes | TokenUnavailableError) for answer in answers), answers
    assert await asyncio.to_thread(hsmd.process.wait_ended) == 0
    assert not hsmd.socket.exists()


async def test_wrong_pin_is_tried_once(tokens: SoftHsm, hsmd: Hsmd, client: HsmClient):
    right = tokens.pin_file.read_bytes()
    tokens.pin_file.write_bytes(b"not-the-pin-1234")
    for _ in range(2):  # a new process does not try either
        hsmd.start()
        state = await settled(client, "pin_blocked")
        assert "pin-attempt" in state.sentence
        await asyncio.sleep(0.5)
        with pytest.raises(TokenUnavailableError, match="PIN"):
            await client.generate("x")
        hsmd.process.kill()
    assert _logins(hsmd) == 1
    assert Memory(hsmd.state).attempt() is Attempt.WRONG
    assert _pin_in_doubt(tokens)
    tokens.pin_file.write_bytes(right)
    hsmd.start()
    await settled(client, "pin_blocked")
    Memory(hsmd.state).attempt_path.unlink()
    await settled(client, "ready")
    assert _logins(hsmd) == 2


@pytest.mark.parametrize("was_wrong", [False, True])
async def test_death_while_the_pin_was_tried(
    tokens: SoftHsm, hsmd: Hsmd, client: HsmClient, was_wrong: bool
):
    """The marker of an unfinished try blocks only if the token says that the try was wrong."""
    if was_wrong:
        _pkcs11_tool(tokens, "--login", "--pin", "12345678", "--list-objects")
        assert _pin_in_doubt(tokens)
    hsmd.state.mkdir(mode=0o700)
    Memory(hsmd.state).attempt_begins()
    hsmd.start()
    await settled(client, "pin_blocked" if was_wrong else "ready")
    assert _logins(hsmd) == (0 if was_wrong else 1)
    assert Memory(hsmd.state).attempt() is (Attempt.UNRESOLVED if was_wrong else Attempt.SETTLED)


async def test_strange_token_costs_no_pin(
    tokens: SoftHsm, hsmd: Hsmd, client: HsmClient, tmp_path: Path
):
    hsmd.start()
    await settled(client, "ready")
    key = await born(client, Hierarchy().fleet)
    stranger = SoftHsm(tmp_path / "stranger")
    stranger.initialise("gw-01")
    logins = _logins(hsmd)
    ours = tmp_path / "ours"
    shutil.move(tokens.tokens, ours)
    shutil.copytree(stranger.tokens, tokens.tokens)
    state = await settled(client, "foreign")
    assert "not the token of this installation" in state.sentence
    with pytest.raises(TokenUnavailableError):
        await _leaf(key, 1)
    await asyncio.sleep(0.5)
    assert _logins(hsmd) == logins
    assert not _pin_in_doubt(tokens)
    shutil.rmtree(tokens.tokens)
    shutil.move(ours, tokens.tokens)
    await settled(client, "ready")
    await _leaf(key, 2)


async def test_two_tokens_of_one_name(tokens: SoftHsm, hsmd: Hsmd, client: HsmClient):
    twin = SoftHsm(tokens.folder.parent / "twin")
    twin.initialise("gw-01")
    for directory in twin.tokens.iterdir():
        shutil.move(directory, tokens.tokens / directory.name)
    hsmd.start()
    await observed(client, lambda state: "Several tokens" in state.sentence)
    assert _logins(hsmd) == 0


async def test_pulled_token_comes_back(tokens: SoftHsm, hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    key = await born(client, Hierarchy().fleet)
    for serial in range(1, 4):
        away = tokens.folder / "away"
        shutil.move(tokens.tokens, away)
        tokens.tokens.mkdir()
        await settled(client, "absent")
        with pytest.raises(TokenUnavailableError, match="not plugged in"):
            await _leaf(key, serial)
        tokens.tokens.rmdir()
        shutil.move(away, tokens.tokens)
        await settled(client, "ready")
        await _leaf(key, serial + 10)


async def test_second_daemon_is_refused(hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    second = await asyncio.to_thread(
        subprocess.run,
        [program("tma-hsmd"), "--config", hsmd.folder / "hsmd.toml"],
        env=os.environ | hsmd.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 78
    assert "Another process" in second.stderr
    assert await client.ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user takes root")
async def test_other_users_are_turned_away(hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    hsmd.socket.chmod(0o666)  # so that only the kernel's word on the peer is left
    script = (
        "import os, socket, sys\n"
        "os.chdir(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.settimeout(10)\n"
        "connection.connect(sys.argv[2])\n"
        "print(connection.recv(1))"
    )
    command = [program("python3"), "-c", script, str(hsmd.folder), hsmd.socket.name]
    answer = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "b''"
    assert await client.ready()


def _hostile(source: random.Random) -> bytes:
    """Bytes from noise to almost right."""
    good = {"id": 1, "do": "state"}
    body = source.choice(
        [
            source.randbytes(source.randrange(64)),
            cbor2.dumps(good | {"do": source.choice(["sign", "", 7, None, "adopt", "generate"])}),
            cbor2.dumps(good | {"id": source.choice([-1, 2**64, "x", None, 1.5])}),
            cbor2.dumps(good | {"key": "../../etc/passwd", "do": "generate"}),
            cbor2.dumps([good] * source.randrange(5)),
            cbor2.dumps({1: 2}),
            b"\x9f" * source.randrange(2_000),
            b"\x81" * 100_000,
            cbor2.dumps(
                good | {"do": "sign", "key": "gateway-ca", "priority": "line", "deadline_ms": 9}
                | {"documents": [{"tbs": source.randbytes(80), "purpose": "leaf", "reference": ""}]}
            ),
        ]
    )  # fmt: skip
    length = source.choice([len(body)] * 4 + [0, 5, 2**24, 2**32 - 1])
    return length.to_bytes(4, "big") + body[: source.choice([len(body), 3])]


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with address_of(path) as address:
        return await asyncio.open_unix_connection(address)


async def test_hostile_frames(hsmd: Hsmd, client: HsmClient):
    hsmd.start()
    await settled(client, "ready")
    await born(client, Hierarchy().fleet)
    pid, source = hsmd.process.pid, random.Random(7)

    async def attack() -> None:
        reader, writer = await _connected(hsmd.socket)
        try:
            for _ in range(source.randrange(1, 6)):
                writer.write(_hostile(source))
            if source.random() < 0.8:
                writer.write_eof()
                await reader.read()
        except OSError:
            pass  # the daemon hung up: it may
        finally:
            writer.close()

    for _ in range(20):
        await asyncio.gather(*(attack() for _ in range(20)))
        assert await client.ready()
    assert hsmd.process.running
    assert hsmd.process.pid == pid
    assert "Traceback" not in hsmd.process.log.read_text()
