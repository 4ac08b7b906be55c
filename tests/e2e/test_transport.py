"""No certificate of a device ever speaks as a gateway: the transport is a hierarchy of its own."""

import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.fleet import HOST, Fleet

_TIMEOUT_S = 10
#: MQTT 5 §3.1: CONNECT, clean start, keep alive 60 s, no properties, client id "gw-01".
_CONNECT = bytes.fromhex("101200044d5154540502003c000005") + b"gw-01"


@pytest.fixture(scope="module")
def impostor(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for CN=gw-01 that the gateway's own CA issued, with its key and chain."""
    [gateway] = fleet.gateways
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, gateway.name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    answer = httpx.post(
        f"{gateway.web_url}/api/v2.0/cert_tls-client",
        json={
            "data": {
                "type": "cert_tls-client",
                "attributes": {"csr": csr.public_bytes(Encoding.PEM).decode()},
            }
        },
        headers={"Authorization": f"Bearer {gateway.station_token}"},
        verify=ssl.create_default_context(cadata=fleet.central.ca_bundle),
        trust_env=False,
    )
    attributes = answer.json()["data"]["attributes"]
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path = tmp_path_factory.mktemp("impostor") / "identity.pem"
    path.write_text(private + attributes["certificate"] + attributes["chain"])
    return path


def _unverified(identity: Path | None) -> ssl.SSLContext:
    """The impostor does not care who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity:
        context.load_cert_chain(identity)
    return context


def _speak(port: int, identity: Path | None, words: bytes) -> bytes:
    """Say something over TLS and give the first answer; b"" when the door stays shut."""
    with socket.create_connection((HOST, port), timeout=_TIMEOUT_S) as plain:
        try:
            with _unverified(identity).wrap_socket(plain) as connection:
                connection.sendall(words)
                return connection.recv(1024)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_the_name_alone_opens_no_broker(fleet: Fleet, impostor: Path):
    assert _speak(fleet.ports.broker, impostor, _CONNECT) == b""
    assert _speak(fleet.ports.broker, None, _CONNECT) == b""


def test_the_words_are_right(fleet: Fleet, tmp_path: Path):
    """The same words from who may speak are answered: the test above fails for no other reason."""
    broker = fleet.central.broker_config.parent
    context = tmp_path / "broker-identity.pem"
    context.write_bytes((broker / "server.key").read_bytes() + (broker / "server.pem").read_bytes())
    answer = _speak(fleet.ports.broker, context, _CONNECT)
    assert answer[:1] == b"\x20", "MQTT 5 §3.2: CONNACK"


def test_the_gateway_listener_does_not_know_it(fleet: Fleet, impostor: Path):
    """The join listener asks for no certificate; one of a device gives no identity there."""
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    answer = _speak(fleet.ports.joining, impostor, request)
    assert answer.startswith(b"HTTP/1.1 4")


def test_the_gateway_is_still_online(fleet: Fleet, impostor: Path):
    _speak(fleet.ports.broker, impostor, _CONNECT)
    assert fleet.central.gateways()["gw-01"]["link"] == "online"
