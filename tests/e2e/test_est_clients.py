"""EST by clients of others, against central and against a gateway that is offline since its start.

curl with requests that openssl made, and strongSwan's ``pki``; OpenSSL judges what they got, with
nothing but the root and what ``cacerts`` gave.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.ids import serial_text
from tests.support.est import Answer, EstClient, certificates, write_pem
from tests.support.fleet import Fleet
from tests.support.processes import run, wait_until
from tests.support.products import rows, wait_equal

_ALIAS = "tls-client"


@dataclass(frozen=True, slots=True)
class End:
    """One server, a station's token there, and what it remembers."""

    url: str
    token: str
    database: Path | str


@pytest.fixture(scope="module")
def ends(fleet: Fleet) -> Iterator[dict[str, End]]:
    """Central; and a gateway that was stopped, whose link was cut, and that was started then."""
    central, [gateway] = fleet.central, fleet.gateways
    station = central.command("station", "add", "line-1", "--profile", _ALIAS).strip()
    # strongSwan 5.9.8 knows no labels: it asks for the alias ``default``.
    central.command("alias", "put", "default", "--profile", _ALIAS, "--accept", "token")
    wait_until(
        lambda: "default" in [one["name"] for one in _aliases(fleet)],
        what="the gateway heard of the alias",
    )
    gateway.process.stop()
    central.cut_link()
    gateway.start()
    yield {
        "central": End(central.machine_url, station, central.database),
        "gateway": End(gateway.machine_url, gateway.station_token, gateway.database),
    }
    central.restore_link()


def _aliases(fleet: Fleet) -> list[dict[str, str]]:
    [gateway] = fleet.gateways
    return json.loads(gateway.command("alias", "list", "--json"))


@pytest.fixture(params=["central", "gateway"])
def end(ends: dict[str, End], request: pytest.FixtureRequest) -> End:
    return ends[request.param]


@pytest.fixture
def client(fleet: Fleet, end: End, tmp_path: Path) -> EstClient:
    root = tmp_path / "root.pem"
    root.write_text(fleet.central.ca_bundle)
    return EstClient(tmp_path, f"{end.url}/.well-known/est/{_ALIAS}", root)


def _decoded(answer: Answer) -> list[x509.Certificate]:
    assert answer.status == 200, answer.text
    return certificates(base64.b64decode(answer.body))


def _count(end: End) -> int:
    own = "SELECT count(*) FROM certificate WHERE protocol = 'est' AND origin = ''"
    [(count,)] = rows(end.database, own)
    return count


def _assert_verifies(client: EstClient, leaf: x509.Certificate, given: list[x509.Certificate]):
    """Verify as a client does whose trust is the root and whose chain came by ``cacerts``."""
    between = client.folder / "cacerts.pem"
    between.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in given))
    run([
        "openssl", "verify", "-x509_strict", "-purpose", "sslclient",
        "-no-CAfile", "-no-CApath", "-trusted", str(client.root_pem), "-untrusted", str(between),
        str(write_pem(client.folder / "leaf.pem", leaf)),
    ])  # fmt: skip


@pytest.mark.parametrize("algorithm", ["EC:P-256", "RSA:2048"])
async def test_curl_with_openssl_requests(end: End, client: EstClient, algorithm: str):
    kind, size = algorithm.split(":")
    for name in ("first", "second"):
        option = "ec_paramgen_curve" if kind == "EC" else "rsa_keygen_bits"
        run(["openssl", "genpkey", "-algorithm", kind, "-pkeyopt", f"{option}:{size}",
             "-out", str(client.folder / f"{name}.key")])  # fmt: skip
    serial = f"{kind}-1"
    login = ("-u", f"station:{end.token}")
    before = _count(end)
    given = _decoded(await client.curl("cacerts"))
    attributes = await client.curl("csrattrs")
    assert attributes.status == 200
    csr = client.request(
        "first", f"/CN={serial}/serialNumber={serial}", san=f"DNS:{serial}.example"
    )
    first, again = [await client.post("simpleenroll", csr, *login) for _ in range(2)]
    [leaf] = _decoded(first)
    assert first.body == again.body
    assert leaf.subject.rfc4514_string() == f"2.5.4.5={serial},CN={serial}"
    _assert_verifies(client, leaf, given)

    mine = ("--cert", str(write_pem(client.folder / "first.pem", leaf)),
            "--key", str(client.folder / "first.key"))  # fmt: skip
    renewal = client.request("second", f"/CN={serial}/serialNumber={serial}")
    [successor] = _decoded(await client.post("simplereenroll", renewal, *mine))
    assert successor.subject == leaf.subject
    assert successor.public_key() != leaf.public_key()
    names = [
        one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for one in (leaf, successor)
    ]
    assert names[0] == names[1]
    _assert_verifies(client, successor, given)
    assert _count(end) == before + 2
    found = rows(end.database, "SELECT replaces FROM certificate WHERE replaces LIKE ?",
                 f"%/{serial_text(leaf.serial_number)}")  # fmt: skip
    assert len(found) == 1


async def test_curl_gets_a_key_that_the_server_makes(end: End, client: EstClient):
    csr = client.request("asked", "/CN=made-1")
    answer = await client.post("serverkeygen", csr, "-u", f"station:{end.token}")
    assert answer.status == 200, answer.text
    boundary = answer.headers["content-type"].split('"')[1].encode()
    _, key, certificate, _ = answer.body.split(b"--" + boundary)
    (client.folder / "made.key").write_bytes(base64.b64decode(key.split(b"\r\n\r\n")[1]))
    [leaf] = certificates(base64.b64decode(certificate.split(b"\r\n\r\n")[1]))
    write_pem(client.folder / "made.pem", leaf)
    of_key = run(["openssl", "pkey", "-inform", "DER", "-in", f"{client.folder}/made.key",
                  "-pubout"])  # fmt: skip
    of_leaf = run(["openssl", "x509", "-in", f"{client.folder}/made.pem", "-noout", "-pubkey"])
    assert of_key == of_leaf
    _assert_verifies(client, leaf, _decoded(await client.curl("cacerts")))


async def test_strongswan_fetches_the_ca_enrolls_and_renews(end: End, client: EstClient):
    folder = client.folder
    csr = client.request("sw", "/CN=sw-1")
    asked = ("pki", "--est", "--url", end.url, "--in", str(csr), "--cacert", str(client.root_pem),
             "--outform", "pem")  # fmt: skip
    before = _count(end)
    await client.tool("pki", "--estca", "--url", end.url, "--cacert", str(client.root_pem),
                      "--caout", f"{folder}/ca.der")  # fmt: skip
    fetched = sorted(folder.glob("ca*.der"))
    given = [x509.load_der_x509_certificate(file.read_bytes()) for file in fetched]
    assert x509.load_pem_x509_certificate(client.root_pem.read_bytes()) in given
    pem = await client.tool(*asked, "--userpass", f"station:{end.token}")
    (folder / "sw.pem").write_text(pem)
    again = await client.tool(*asked, "--cert", f"{folder}/sw.pem", "--key", f"{folder}/sw.key")
    old, new = (x509.load_pem_x509_certificate(text.encode()) for text in (pem, again))
    assert old.subject == new.subject
    assert old.serial_number != new.serial_number
    for leaf in (old, new):
        _assert_verifies(client, leaf, given)
    assert _count(end) == before + 2


async def test_who_has_no_or_a_wrong_login_gets_nothing(end: End, client: EstClient):
    csr = client.request("stranger", "/CN=stranger")
    before = _count(end)
    refused = [
        await client.post("simpleenroll", csr, *login)
        for login in ((), ("-u", "station:tma_no-such-token"))
    ]
    without = await client.post("simplereenroll", csr, "-u", f"station:{end.token}")
    assert [answer.status for answer in (*refused, without)] == [401, 401, 401]
    assert _count(end) == before


def test_the_gateway_never_had_a_link_and_central_knows_all_when_it_has(
    fleet: Fleet, ends: dict[str, End]
):
    [gateway] = fleet.gateways
    issued = _count(ends["gateway"])
    known = "SELECT count(*) FROM certificate WHERE protocol = 'est' AND origin = ?"
    assert issued > 0
    assert rows(fleet.central.database, known, gateway.name) == [(0,)]
    assert gateway.snapshot()["link"]["online"] is False
    fleet.central.restore_link()
    wait_equal(fleet)
    assert rows(fleet.central.database, known, gateway.name) == [(issued,)]
