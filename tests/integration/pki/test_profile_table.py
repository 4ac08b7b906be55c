"""The table (key type, profile, protocol): each cell is a certificate that OpenSSL and pkilint
judge, or a refusal that names its rule.

Every shipped profile with every key type that it allows, over the real REST and EST listeners: the
client's key in a CSR, and a key that the server makes.
"""

import asyncio
import base64
import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from shared.enroll import key_maker
from shared.pki import formats, keys, names
from shared.pki.keys import KeyType, PrivateKey
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.policy.access import Access, Alias, Evidence, Requester
from shared.policy.profile import Profile
from shared.policy.shipped import SHIPPED
from shared.web.passwords import encode
from tests.support import lint, pki_keys, rest_server
from tests.support.est import certificates
from tests.support.pki_hierarchy import csr
from tests.support.processes import program
from tests.support.rest_server import Server, wish

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROFILES = {profile.name: profile for profile in SHIPPED}
#: What OpenSSL 3.0 is asked about each profile: purposes that must hold, and that must not. It has
#: none for code signing, and ``ocsphelper`` looks at nothing: what is forbidden proves these.
PURPOSES = {
    "tls-server": (("sslserver",), ("sslclient", "smimesign")),
    "tls-client": (("sslclient",), ("sslserver", "smimesign")),
    "idevid": (("sslclient",), ("crlsign",)),
    "ldevid": (("sslclient",), ("sslserver", "smimesign")),
    "opc-ua-rsa": (("sslserver", "sslclient"), ("smimesign", "timestampsign")),
    "opc-ua-ecc": (("sslserver", "sslclient"), ("smimesign", "timestampsign")),
    "dot1x-client": (("sslclient",), ("sslserver", "smimesign")),
    "smime": (("smimesign", "smimeencrypt"), ("sslclient", "sslserver")),
    "code-signing": (("any",), ("sslclient", "sslserver", "smimesign", "timestampsign")),
    "ocsp-responder": (("ocsphelper",), ("sslclient", "sslserver", "smimesign")),
    "sub-ca": (("crlsign",), ("smimesign", "timestampsign")),
}
#: The same by the certificate itself: extended key usage by its number in PKIX.
EXTENDED = {
    "tls-server": {1}, "tls-client": {2}, "idevid": set(), "ldevid": {2}, "opc-ua-rsa": {1, 2},
    "opc-ua-ecc": {1, 2}, "dot1x-client": {2}, "smime": {4}, "code-signing": {3},
    "ocsp-responder": {9}, "sub-ca": set(),
}  # fmt: skip
_PKIX_USAGE = "1.3.6.1.5.5.7.3."
_VALUES = {
    AltNameKind.DNS: "press-7.example",
    AltNameKind.IP: "192.0.2.7",
    AltNameKind.URI: "urn:press-7.example:app",
    AltNameKind.EMAIL: "press-7@plant.example",
    AltNameKind.HARDWARE_MODULE: "1.3.6.1.4.1.99999.1:SN-7",
}
#: Leaf profiles for RSA, which may be opened for other lengths too.
WITH_RSA = [
    profile.name
    for profile in SHIPPED
    if KeyType.RSA_3072 in profile.key_types and profile.ca_path_length is None
]
#: Types that no client's CSR can be signed with here: too slow to make for a test.
_UNSIGNED = {KeyType.RSA_8192}
_PASSWORD = "correct horse battery"


class Got(NamedTuple):
    """What a protocol gave: a certificate (DER) and the key that it came with, or a refusal."""

    status: int
    text: str
    der: bytes = b""
    key: PrivateKey | None = None


@cache
def private_key(kind: KeyType) -> PrivateKey:
    """A key of each type, made once; 2056 bits stand for all the other lengths."""
    if kind is KeyType.RSA_OTHER:
        return rsa.generate_private_key(keys.RSA_EXPONENT, 2056)
    return pki_keys.private_key(kind)


def subject_of(profile: Profile) -> dict[str, str]:
    """A common name, and what of a device's names the profile knows."""
    known = {rule.attribute for rule in profile.subject}
    values = {"common_name": "press-7.example", "serial_number": "SN-7"}
    return {name: value for name, value in values.items() if name in known}


def alt_names_of(profile: Profile) -> list[AltName]:
    return [AltName(kind, _VALUES[kind]) for kind in profile.alt_name_rules]


def request_der(profile: Profile, kind: KeyType) -> bytes:
    """A CSR with all names that the profile allows."""
    attributes = [
        NameAttribute(names.BY_NAME[name].oid.dotted_string, value)
        for name, value in subject_of(profile).items()
    ]
    alternatives = [names.encode_alt_name(name) for name in alt_names_of(profile)]
    extensions = [x509.SubjectAlternativeName(alternatives)] if alternatives else []
    return csr(private_key(kind), names.encode_name(tuple(attributes)), *extensions)


async def rest_csr(client: httpx.AsyncClient, profile: Profile, kind: KeyType) -> Got:
    pem = x509.load_der_x509_csr(request_der(profile, kind)).public_bytes(Encoding.PEM).decode()
    return _of_rest(await _ask_rest(client, {"profile": profile.name, "csr": pem}))


async def rest_made(client: httpx.AsyncClient, profile: Profile, kind: KeyType) -> Got:
    alt_names = {name.kind.value: [name.value] for name in alt_names_of(profile)}
    attributes = {"profile": profile.name, "key_type": kind.value, "subject": subject_of(profile)}
    return _of_rest(await _ask_rest(client, attributes | {"alt_names": alt_names}))


async def est_csr(client: httpx.AsyncClient, profile: Profile, kind: KeyType) -> Got:
    answer = await _ask_est(client, profile.name, "simpleenroll", request_der(profile, kind))
    if answer.status_code != 200:
        return Got(answer.status_code, answer.text)
    [certificate] = certificates(base64.b64decode(answer.content))
    return Got(answer.status_code, "", certificate.public_bytes(Encoding.DER))


async def est_made(client: httpx.AsyncClient, profile: Profile, kind: KeyType) -> Got:
    """EST cannot ask for a key type: the server takes P-256, else the profile's first one.

    For the others stands a profile that allows nothing else. The CSR's own key is not used.
    """
    name = profile.name if kind is _chosen(profile) else _narrowed(profile, kind).name
    answer = await _ask_est(client, name, "serverkeygen", request_der(profile, KeyType.EC_P256))
    if answer.status_code != 200:
        return Got(answer.status_code, answer.text)
    boundary = answer.headers["Content-Type"].split('"')[1].encode()
    _, key, certificate, _ = answer.content.split(b"--" + boundary)
    [made] = certificates(base64.b64decode(certificate.split(b"\r\n\r\n")[1]))
    private = load_der_private_key(
        base64.b64decode(key.split(b"\r\n\r\n")[1]), None, unsafe_skip_rsa_key_validation=True
    )
    return Got(answer.status_code, "", made.public_bytes(Encoding.DER), private)


PROTOCOLS: dict[str, Callable[[httpx.AsyncClient, Profile, KeyType], Awaitable[Got]]] = {
    "REST, CSR": rest_csr,
    "REST, key of the server": rest_made,
    "EST simpleenroll": est_csr,
    "EST serverkeygen": est_made,
}
CELLS = {
    f"{profile.name}-{kind}-{protocol}": (profile, kind, protocol)
    for profile in SHIPPED
    for kind in profile.key_types
    for protocol in PROTOCOLS
}


async def _ask_rest(client: httpx.AsyncClient, attributes: dict) -> httpx.Response:
    return await client.post("/api/v2.0/certificates", json=wish(attributes))


async def _ask_est(
    client: httpx.AsyncClient, alias: str, operation: str, body: bytes
) -> httpx.Response:
    headers = {"Content-Type": "application/pkcs10"}
    path = f"/.well-known/est/{alias}/{operation}"
    return await client.post(path, content=body, headers=headers)


def _of_rest(answer: httpx.Response) -> Got:
    if answer.status_code != 201:
        return Got(answer.status_code, answer.text)
    found = answer.json()["data"]["attributes"]
    [der] = formats.certificates(found["certificate"].encode())
    pem = found.get("private_key", "").encode()
    # The certificate's public key is compared: nobody needs a second proof that a modulus is good.
    load = partial(load_pem_private_key, password=None, unsafe_skip_rsa_key_validation=True)
    return Got(answer.status_code, "", der, load(pem) if pem else None)


def _chosen(profile: Profile) -> KeyType:
    allowed = profile.key_types
    return KeyType.EC_P256 if KeyType.EC_P256 in allowed else allowed[0]


def _narrowed(profile: Profile, *kinds: KeyType) -> Profile:
    """The profile as an administrator narrows or opens it to these key types."""
    document = profile.to_document() | {
        "name": "-".join([profile.name, "for", *kinds]),
        "key_types": [kind.value for kind in kinds],
    }
    return Profile.from_document(document)


@pytest.fixture(scope="module", autouse=True)
def given_keys() -> Iterator[None]:
    """Keys that the server makes are made once for all cells; profiles for one key type."""

    def made(kind: KeyType) -> bytes:
        return private_key(kind).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    narrowed = [
        _narrowed(one, kind) for one in SHIPPED for kind in one.key_types if kind != _chosen(one)
    ]
    opened = [_narrowed(one, KeyType.RSA_OTHER) for one in SHIPPED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_maker, "_make", made)
        patch.setattr(rest_server, "SHIPPED", (*SHIPPED, *narrowed, *opened))
        yield


class Tier(NamedTuple):
    """A server, and a station that may use every profile, at the port for both protocols."""

    server: Server
    client: httpx.AsyncClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tier]:
    """An issuing CA, as every gateway has one and central too."""
    async with _tier(tmp_path_factory.mktemp("issuing"), "gateway") as tier:
        yield tier


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def above(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tier]:
    """A CA that may have one more below it, as central has them."""
    async with _tier(tmp_path_factory.mktemp("above"), "fleet") as tier:
        yield tier


@contextlib.asynccontextmanager
async def _tier(folder: Path, name: str) -> AsyncIterator[Tier]:
    async with (
        rest_server.serve(folder, tier=name) as server,
        server.client(on="machines") as client,
    ):
        yield Tier(server, client)


async def verified(server: Server, folder: Path, leaf: bytes, purpose: str) -> str:
    root, chain, file = (folder / name for name in ("root.pem", "chain.pem", "leaf.pem"))
    issuers = server.authority.issuer.chain
    root.write_text(formats.pem(issuers[-1:]))
    chain.write_text(formats.pem(issuers[:-1]))
    file.write_text(formats.pem([leaf]))
    outcome = await asyncio.to_thread(
        subprocess.run,
        [program("openssl"), "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose,
         "-CAfile", root, "-untrusted", chain, file],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return "OK" if outcome.returncode == 0 else outcome.stderr


async def assert_judged(server: Server, folder: Path, profile: Profile, kind: KeyType, got: Got):
    """Let the certificate say what was asked for, and let OpenSSL and pkilint have no finding."""
    assert got.der, f"{got.status}: {got.text}"
    certificate = x509.load_der_x509_certificate(got.der)
    spki = keys.spki(certificate.public_key())
    assert keys.key_type(spki) is kind
    assert spki == keys.spki((got.key or private_key(kind)).public_key())
    for purpose in PURPOSES[profile.name][0]:
        assert await verified(server, folder, got.der, purpose) == "OK", purpose
    assert _extended(certificate) == EXTENDED[profile.name]
    lint.assert_clean_certificate(got.der)


def _extended(certificate: x509.Certificate) -> set[int]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return set()
    return {int(usage.dotted_string.removeprefix(_PKIX_USAGE)) for usage in found}


async def test_the_table_has_every_shipped_profile():
    assert set(PURPOSES) == set(EXTENDED) == set(PROFILES)


@pytest.mark.parametrize("cell", CELLS)
async def test_a_cell_is_a_certificate_that_the_judges_accept(
    issuing: Tier, above: Tier, tmp_path: Path, cell: str
):
    profile, kind, protocol = CELLS[cell]
    tier = issuing if profile.ca_path_length is None else above
    got = await PROTOCOLS[protocol](tier.client, profile, kind)
    await assert_judged(tier.server, tmp_path, profile, kind, got)
    assert (got.key is not None) is (PROTOCOLS[protocol] in {rest_made, est_made})


@pytest.mark.parametrize("name", PROFILES)
async def test_openssl_refuses_it_for_another_purpose(
    issuing: Tier, above: Tier, tmp_path: Path, name: str
):
    profile = PROFILES[name]
    tier = issuing if profile.ca_path_length is None else above
    got = await rest_csr(tier.client, profile, profile.key_types[0])
    for purpose in PURPOSES[name][1]:
        said = await verified(tier.server, tmp_path, got.der, purpose)
        assert "error 26 at 0 depth lookup: unsuitable certificate purpose" in said, (purpose, said)


@pytest.mark.parametrize("protocol", ["REST, CSR", "EST simpleenroll"])
@pytest.mark.parametrize("name", WITH_RSA)
async def test_an_rsa_key_of_another_length_is_certified_where_a_profile_is_opened_for_it(
    issuing: Tier, tmp_path: Path, name: str, protocol: str
):
    """No shipped profile allows it; and nobody is made one here."""
    kind = KeyType.RSA_OTHER
    opened = _narrowed(PROFILES[name], kind)
    got = await PROTOCOLS[protocol](issuing.client, opened, kind)
    await assert_judged(issuing.server, tmp_path, PROFILES[name], kind, got)


@pytest.mark.parametrize("name", PROFILES)
async def test_a_key_type_that_the_profile_does_not_allow_is_refused_by_every_protocol(
    issuing: Tier, above: Tier, name: str
):
    """EST's ``serverkeygen`` has no such cell: the profile alone says what is made."""
    profile = PROFILES[name]
    tier = issuing if profile.ca_path_length is None else above
    wrong: list[str] = []
    for kind in set(KeyType) - set(profile.key_types):
        for protocol, ask in PROTOCOLS.items():
            if ask is est_made or (kind in _UNSIGNED and ask is not rest_made):
                continue
            got = await ask(tier.client, profile, kind)
            allowed = all(one.value in got.text for one in profile.key_types)
            if got.der or got.status not in {400, 403} or not allowed:
                wrong.append(f"{kind} {protocol}: {got.status} {got.text}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_ca_below_an_issuing_ca_is_refused(issuing: Tier, protocol: str):
    """So no gateway makes a CA: its own has the path length 0."""
    got = await PROTOCOLS[protocol](issuing.client, PROFILES["sub-ca"], KeyType.EC_P256)
    assert (got.status, got.der) == (403, b"")
    assert "cannot issue a CA certificate" in got.text
    assert "Ask central" in got.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_device_below_a_ca_of_cas_is_refused(above: Tier, protocol: str):
    got = await PROTOCOLS[protocol](above.client, PROFILES["tls-server"], KeyType.EC_P256)
    assert (got.status, got.der) == (403, b"")
    assert "does not sign documents for the purpose leaf" in got.text


@pytest.mark.parametrize("name", ["ocsp-responder", "sub-ca"])
@pytest.mark.parametrize("operation", ["simpleenroll", "serverkeygen"])
async def test_what_only_people_and_stations_get_is_refused_to_others(
    issuing: Tier, above: Tier, name: str, operation: str
):
    """A requester with a password is admitted at the alias; the profile's condition stops him."""
    tier = issuing if name == "ocsp-responder" else above
    server, profile = tier.server, PROFILES[name]
    requester = Requester(
        name="mes", aliases=("*",), kind="password", password_hash=encode(_PASSWORD)
    )
    aliases = [
        Alias(name="for-all", profile=one, accepts=(Evidence.PASSWORD,), server_keys=True)
        for one in (name, "tls-client")
    ]
    statuses: list[int] = []
    body = request_der(profile, KeyType.EC_P256)
    async with server.client(None, on="machines") as stranger:
        for alias in aliases:
            server.rules.access = Access(aliases=(alias,), requesters=(requester,))
            answer = await stranger.post(
                f"/.well-known/est/for-all/{operation}", content=body, auth=("mes", _PASSWORD)
            )
            statuses.append(answer.status_code)
            if alias.profile == name:
                assert "is for requests with principals: user, station" in answer.text
    server.rules.access = Access()
    # The same requester is served for another profile, where this CA signs such certificates.
    assert statuses == [403, 200 if tier is issuing else 403]
