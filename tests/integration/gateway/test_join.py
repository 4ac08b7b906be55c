"""Joining: whom a newborn gateway believes, what it sends, and that a retry changes nothing."""

import sqlite3

import pytest

from shared.sync.join import SECRET_BYTES
from tests.support.gateway_birth import Birthplace, keys_of
from tests.support.gateway_box import GatewayBox
from tests.support.processes import ProcessError


async def test_a_box_joins_once(box: GatewayBox, birthplace: Birthplace):
    printed = await box.join(birthplace.token())
    assert "gw-01" in printed
    assert "Recovery secret" in printed
    with pytest.raises(ProcessError, match="is the gateway gw-01 already"):
        await box.join(birthplace.token())
    await box.start()
    shown = await box.snapshot()
    assert shown["gateway"] == "gw-01"
    assert shown["token"]["state"] == "ready"
    assert shown["verdict"]["headline"] == "Production possible"
    assert shown["authority"]["quota"] == 1000


async def test_a_lost_answer_is_asked_for_again_with_the_same_keys(
    box: GatewayBox, birthplace: Birthplace
):
    birthplace.fails = 1
    with pytest.raises(ProcessError, match="status 4"):
        await box.join(birthplace.token())
    await box.join(birthplace.token())
    first, second = birthplace.requests
    assert keys_of(first) == keys_of(second)
    assert len(birthplace.answers) == 1


@pytest.mark.parametrize("pin", ["transport_root_hash", "directive_key_hash"])
async def test_another_server_gets_no_gateway(box: GatewayBox, birthplace: Birthplace, pin: str):
    with pytest.raises(ProcessError, match="status 1"):
        await box.join(birthplace.token(**{pin: bytes(32)}))
    # The secret is only sent to the server whose root the token names.
    assert len(birthplace.requests) == (0 if pin == "transport_root_hash" else 1)
    with pytest.raises(ProcessError, match="has not joined"):
        await box.command("run")


async def test_an_impostor_that_shows_the_right_root_gets_no_secret(
    box: GatewayBox, birthplace: Birthplace, tmp_path
):
    folder = tmp_path / "impostor"
    folder.mkdir()
    async with Birthplace(folder).listening() as impostor:
        genuine_root = birthplace.transport.issuer.chain[0]
        impostor.shown_root = genuine_root
        token = birthplace.token(address=f"127.0.0.1:{impostor.port}")
        with pytest.raises(ProcessError, match="is not the central"):
            await box.join(token)
        assert impostor.requests == []


async def test_a_damaged_token_is_a_wrong_usage(box: GatewayBox, birthplace: Birthplace):
    with pytest.raises(ProcessError, match="status 2"):
        await box.join(birthplace.token()[:-8])
    with pytest.raises(ProcessError, match="status 2"):
        await box.join("hello")


async def test_no_secret_lies_in_the_clear(box: GatewayBox, birthplace: Birthplace):
    await box.join(birthplace.token())
    assert (box.state / "box.key").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(box.state / "gateway.db") as database:
        content = b"".join(
            str(row).encode()
            for table in ("fact", "key_envelope")
            for row in database.execute(f"SELECT * FROM {table}")
        )
    assert birthplace.secret.hex().encode() not in content
    assert b"PRIVATE KEY" not in content
    assert len(birthplace.secret) == SECRET_BYTES
