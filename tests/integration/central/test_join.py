"""Joining at the real server: who holds the token is born once, everybody else is refused."""

import asyncio
import ssl

import httpx
import pytest
from cryptography import x509

from gateway.introduction import introduce
from shared.kernel.errors import UntrustedError
from shared.pki import chain
from shared.sync.join import JOIN_PATH, ROOT_PATH, JoinAnswer, JoinToken
from shared.web.console import AnsweredError
from tests.support.central_puppet import PuppetKeys
from tests.support.products import rows


async def test_answer_holds_all_that_a_gateway_needs(newborn):
    puppet = await newborn()
    answer = puppet.answer
    certificate = x509.load_der_x509_certificate(answer.authority)
    *parents, root = answer.authority_chain
    now_us = certificate.not_valid_before_utc.timestamp() * 1_000_000 + 7_200_000_000
    chain.verify(answer.authority, parents, [root], int(now_us))
    chain.verify(answer.transport_certificate, [], [answer.transport_root], int(now_us))
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    transport = x509.load_der_x509_certificate(answer.transport_certificate)
    usage = transport.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH], "a gateway must never serve"
    async with puppet.open():
        kinds = [event.type for event in puppet.received]
    assert kinds == [
        "directive.bundle",
        "directive.grant",
        "directive.responder",
        "directive.crl",
        "directive.crl",
    ]


async def test_equal_request_gets_the_equal_answer_and_other_keys_none(central, invite):
    token = JoinToken.parse(await invite("twice"))
    own = PuppetKeys()
    first = await introduce(token, own.request(token))
    assert await introduce(token, own.request(token)) == first
    with pytest.raises(AnsweredError, match="other keys"):
        await introduce(token, PuppetKeys().request(token))
    assert len(rows(central.database, "SELECT 1 FROM ca WHERE gateway = 'twice'")) == 1


async def test_new_invitation_voids_the_earlier_token(invite):
    stale = JoinToken.parse(await invite("again"))
    await invite("again")
    with pytest.raises(AnsweredError, match="not valid"):
        await introduce(stale, PuppetKeys().request(stale))


async def test_wrong_secret_and_unknown_name_are_told_the_same(invite):
    token = JoinToken.parse(await invite("guarded"))
    messages: set[str] = set()
    for changes in ({"secret": bytes(16)}, {"name": "nobody-knows"}):
        with pytest.raises(AnsweredError) as refused:
            await introduce(token, PuppetKeys().request(token, **changes))
        messages.add(str(refused.value))
    assert len(messages) == 1


async def test_one_key_for_two_uses_is_refused(invite):
    token = JoinToken.parse(await invite("lazy"))
    request = PuppetKeys().request(token)
    lazy = request.model_copy(update={"exchange_csr": request.event_csr})
    with pytest.raises(AnsweredError, match="four must differ"):
        await introduce(token, lazy)


async def test_token_of_another_central_does_not_reveal_its_secret(invite):
    token = JoinToken.parse(await invite("lured"))
    foreign = token.model_copy(update={"transport_root_hash": bytes(32)})
    with pytest.raises(UntrustedError, match="is not the central"):
        await introduce(foreign, PuppetKeys().request(foreign))


@pytest.mark.parametrize("body", [b"", b"\xff" * 64, b"\xa1aaa", b"\x81" * 5000])
def test_what_is_no_join_request_is_a_problem_document(central, body):
    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname, unproven.verify_mode = False, ssl.CERT_NONE
    base = f"https://127.0.0.1:{central.ports.joining}"
    with httpx.Client(verify=unproven, base_url=base) as client:
        x509.load_der_x509_certificate(client.get(ROOT_PATH).content)
        answer = client.post(JOIN_PATH, content=body, headers={"Content-Type": "application/cbor"})
        wrong_type = client.post(JOIN_PATH, content=body)
    assert answer.status_code == wrong_type.status_code == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert "Traceback" not in answer.text


async def test_secrets_are_stored_as_hashes_only(central, invite):
    token = JoinToken.parse(await invite("hashed"))
    stored = rows(central.database, "SELECT join_secret_hash FROM gateway WHERE name = 'hashed'")
    assert stored[0][0] != token.secret
    for path in (central.folder / "state").rglob("central.db*"):
        assert token.secret not in path.read_bytes()


async def test_second_life_ends_the_first(central, newborn, invite, tmp_path):
    first = await newborn()
    async with first.open(), first.online():
        await first.drained()
    second = await type(first).join(await invite(first.name), tmp_path / "second")
    assert isinstance(second.answer, JoinAnswer)
    async with second.open(), second.online():
        await second.emit("certificate.issued", second.certificate("SN-second"))
        await second.drained()
        async with first.open(), first.online():
            await first.emit("certificate.issued", first.certificate("SN-first"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(4):
                    await first.drained()
    states = dict(rows(central.database, "SELECT ca_id, state FROM ca WHERE gateway = ?",
                       first.name))  # fmt: skip
    assert states[first.authority.issuer.ca_id] == "retired"
    assert states[second.authority.issuer.ca_id] == "active"
    devices = rows(central.database, "SELECT device_id FROM certificate WHERE origin = ?",
                   first.name)  # fmt: skip
    assert devices == [("SN-second",)]
