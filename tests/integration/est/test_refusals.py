"""What EST answers when it does not issue: not now, other names, encrypted keys, hostile bodies."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.enroll.requesters.doorkeeper import code_hash
from shared.issuance.ports import IssuingKey
from shared.kernel.errors import TokenUnavailableError
from shared.pki import keys
from shared.pki.algorithms import ECDSA_SHA256
from shared.pki.signed import SEQUENCE, join, tlv
from shared.policy.access import Access, Alias, Evidence
from shared.store import devices
from tests.support.est import Answer, EstClient, certificates, write_pem
from tests.support.rest_server import Server, request_pem

CODE = "ABCDE-23456-FGHJK-789MN"
CHANGE_SUBJECT_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
SLOW_S = 20  # far more than any body needs, on a busy box too


class Away:
    """A key whose token is not plugged in."""

    immediate = False

    def __init__(self, key: IssuingKey) -> None:
        self.issuer = key.issuer

    async def sign(self, *_document: Any, **_more: Any) -> bytes:
        raise TokenUnavailableError("The token is not plugged in.")


def token_away(server: Server) -> Any:
    """Pull the token; gives what plugs it in again."""
    keys_port: Any = server.ports.keys
    present = keys_port.key
    keys_port.key = Away(present)

    def plug_in() -> None:
        keys_port.key = present

    return plug_in


def issued(answer: Answer) -> x509.Certificate:
    assert answer.status == 200, answer.text
    [certificate] = certificates(base64.b64decode(answer.body))
    return certificate


async def test_not_now_is_202_and_the_same_request_is_taken_up(server: Server, client: EstClient):
    csr, login = client.request("dev-1", "/CN=dev-1"), ("-u", f":{server.token}")
    plug_in = token_away(server)
    waiting = await client.post("simpleenroll", csr, *login)
    assert waiting.status == 202
    assert int(waiting.headers["retry-after"]) > 0
    assert not server.events("enrollment.refused")
    plug_in()
    assert issued(await client.post("simpleenroll", csr, *login))
    assert len(server.events("certificate.issued")) == 1


async def test_a_code_is_good_again_when_the_token_did_not_sign(server: Server, client: EstClient):
    alias = Alias(name="tls-client", profile="tls-client", accepts=(Evidence.CODE,))
    server.rules.access = Access(aliases=(alias,))
    await server.database.writer.run(
        lambda tx: devices.put_code(tx, code_hash(CODE), "SN-7", alias="*", expires_at_us=1 << 52)
    )
    login = ("-u", f"SN-7:{CODE}")
    plug_in = token_away(server)
    first = client.request("dev-1", "/CN=dev-1")
    assert (await client.post("simpleenroll", first, *login)).status == 202
    assert not server.events("code.spent")
    plug_in()
    other = client.request("dev-2", "/CN=dev-2")
    certificate = issued(await client.post("simpleenroll", other, *login))
    [told] = server.events("code.spent")
    assert told["digest"] == code_hash(CODE)
    assert int(told["serial"], 16) == certificate.serial_number


def _renaming(folder: Path, subject: str, wanted: x509.Name) -> Path:
    """Write a request for the old name with ChangeSubjectName (RFC 6402 §2.8) for another.

    By hand: cryptography's builder writes attributes as text only.
    """
    key = keys.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    value = tlv(0x31, tlv(SEQUENCE, wanted.public_bytes()))
    attribute = tlv(SEQUENCE, asn1.encode_der(CHANGE_SUBJECT_NAME) + value)
    content = (asn1.encode_der(0), name.public_bytes(), keys.spki(key.public_key()))
    document = tlv(SEQUENCE, b"".join([*content, tlv(0xA0, attribute)]))
    signature = key.sign(document, ec.ECDSA(hashes.SHA256()))
    path = folder / "renaming.csr"
    path.write_bytes(join(document, ECDSA_SHA256, signature))
    return path


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_renewal_changes_names_where_the_alias_allows_it(
    server: Server, client: EstClient, *, allowed: bool
):
    alias = Alias(name="tls-client", profile="tls-client", change_subject=allowed)
    server.rules.access = Access(aliases=(alias,))
    csr = client.request("dev-1", "/CN=dev-1")
    first = issued(await client.post("simpleenroll", csr, "-u", f":{server.token}"))
    pem = write_pem(client.folder / "dev-1.pem", first)
    mine = ("--cert", str(pem), "--key", str(client.folder / "dev-1.key"))
    wanted = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1-moved")])
    renaming = _renaming(client.folder, "dev-1", wanted)
    answer = await client.post("simplereenroll", renaming, *mine)
    if allowed:
        assert issued(answer).subject == wanted
    else:
        assert (answer.status, "changes no names" in answer.text) == (403, True)


GOOD = x509.load_pem_x509_csr(request_pem("hostile").encode()).public_bytes(Encoding.DER)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Anything, and a good request with some bytes changed, cut or put into armour."""
    body = bytearray(GOOD)
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6)
    ):
        body[at] = value
    cut = bytes(body[: draw(st.integers(1, len(GOOD)))])
    encoded = base64.b64encode(cut)
    armoured = b"-----BEGIN X-----\n" + encoded + b"\n-----END X-----"
    deep = b"\x30\x80" * draw(st.integers(1, 2_000))
    return draw(st.sampled_from([cut, encoded, armoured, deep, draw(st.binary(max_size=2_000))]))


async def test_no_body_breaks_the_server(server: Server):
    operations = ("simpleenroll", "serverkeygen", "fullcmc")
    async with server.client(on="machines") as http:
        seen: list[tuple[str, bytes]] = []

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(operations), bodies())
        def collect(operation: str, body: bytes) -> None:
            seen.append((operation, body))

        collect()
        for operation, body in seen:
            begun = time.monotonic()
            url = f"/.well-known/est/tls-client/{operation}"
            answer = await http.post(url, content=body)
            assert answer.status_code in {200, 202, 400, 403, 413, 501}, (answer.text, body)
            assert time.monotonic() - begun < SLOW_S
