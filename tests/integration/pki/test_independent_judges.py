"""OpenSSL and pkilint judge one of each kind that is issued: certificates, CRLs, OCSP answers."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder

from shared.kernel.clock import ClockQuality, Instant, datetime_of, utc_us_of
from shared.pki import certificates, crl, keys, ocsp
from shared.pki.crl import CrlEntry
from shared.pki.ocsp import State, Status
from shared.pki.plan import NO_EXPIRY_US, AltName, AltNameKind, Plan
from shared.policy.decide import Circumstances, decide
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.shipped import SHIPPED
from shared.system.clock import SystemClock
from tests.support import lint
from tests.support.pki_hierarchy import DAY_US, NOW_US, Authority, Hierarchy, leaf_plan, subject

HIERARCHY = Hierarchy()
GATEWAY = HIERARCHY.gateway
ALT_NAMES = (
    AltName(AltNameKind.DNS, "device-1.example"),
    AltName(AltNameKind.DNS, "host"),
    AltName(AltNameKind.IP, "10.0.0.1"),
    AltName(AltNameKind.IP, "fe80::1"),
    AltName(AltNameKind.URI, "urn:device-1:app"),
    AltName(AltNameKind.EMAIL, "line@plant.example"),
    AltName(AltNameKind.HARDWARE_MODULE, "1.3.6.1.4.1.99999.1:SN-0001"),
)


def decided(profile: str) -> Plan:
    """What policy plans for an ordinary request under a shipped profile."""
    request = EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol="rest",
        alias="line-1",
        profile=profile,
        principal="station:one",
        public_key=keys.spki(keys.generate().public_key()),
        subject=subject("Certificate"),
        device_id="SN-0001",
    )
    now = Instant(NOW_US, 0, "boot", ClockQuality.NTP)
    rules = next(item for item in SHIPPED if item.name == profile)
    plan = decide(rules, None, request, Circumstances(now, GATEWAY.issuer.limits, None))
    assert isinstance(plan, Plan), plan
    return plan


def responder(key, now_us: int = NOW_US) -> bytes:
    spki = keys.spki(key.public_key())
    return GATEWAY.issue(
        certificates.responder_plan(
            subject("Responder of gw-01"),
            spki,
            not_before_us=now_us,
            not_after_us=now_us + 7 * DAY_US,
        )
    )


KINDS = {
    "root": lambda: HIERARCHY.root.issuer.chain[0],
    "fleet CA": lambda: HIERARCHY.fleet.issuer.chain[0],
    "gateway CA": lambda: HIERARCHY.gateway.issuer.chain[0],
    "tls-server": lambda: GATEWAY.issue(decided("tls-server")),
    "tls-client": lambda: GATEWAY.issue(decided("tls-client")),
    "idevid": lambda: GATEWAY.issue(decided("idevid")),
    "all names": lambda: GATEWAY.issue(leaf_plan(alt_names=ALT_NAMES)),
    "no subject": lambda: GATEWAY.issue(leaf_plan(subject=())),
    "no expiry": lambda: GATEWAY.issue(leaf_plan(not_after_us=NO_EXPIRY_US)),
    "responder": lambda: responder(keys.generate()),
}


def revocation_list(
    authority: Authority, *entries: CrlEntry, heads: bytes | None = None, now_us: int = NOW_US
) -> bytes:
    tbs = crl.unsigned(authority.issuer, now_us, now_us - DAY_US, now_us + DAY_US, entries, heads)
    return crl.assemble(tbs, authority.sign(tbs), authority.issuer)


def write(path: Path, *ders: bytes, kind: str = "CERTIFICATE") -> Path:
    for der in ders:
        load = x509.load_der_x509_crl if kind == "CRL" else x509.load_der_x509_certificate
        with path.open("ab") as file:
            file.write(load(der).public_bytes(Encoding.PEM))
    return path


def openssl(*arguments: object) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


def verified(folder: Path, leaf: bytes, *options: object) -> str:
    root = write(folder / "root.pem", HIERARCHY.root.issuer.chain[0])
    chain = write(folder / "chain.pem", *GATEWAY.issuer.chain[:-1])
    file = write(folder / "leaf.pem", leaf)
    moment = int(datetime_of(NOW_US + DAY_US // 2).timestamp())
    return openssl(
        "verify", "-x509_strict", "-check_ss_sig", "-attime", moment, *options,
        "-CAfile", root, "-untrusted", chain, file,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pkilint_finds_nothing_in_certificates(kind):
    lint.assert_clean_certificate(KINDS[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_certificates(kind, tmp_path):
    assert verified(tmp_path, KINDS[kind]()).endswith("OK\nexit 0")


@pytest.mark.parametrize(
    ("profile", "purpose", "allowed"),
    [
        ("tls-server", "sslserver", True),
        ("tls-server", "sslclient", False),
        ("tls-client", "sslclient", True),
        ("tls-client", "sslserver", False),
        ("idevid", "sslclient", True),
    ],
)
def test_openssl_agrees_on_the_purpose(profile, purpose, allowed, tmp_path):
    outcome = verified(tmp_path, GATEWAY.issue(decided(profile)), "-purpose", purpose)
    assert outcome.endswith("exit 0") is allowed, outcome


def test_openssl_matches_the_host_name_of_the_brochure_call(tmp_path):
    leaf = GATEWAY.issue(decided("tls-server"))
    outcome = verified(tmp_path, leaf, "-verify_hostname", "certificate")
    assert outcome.endswith("exit 0"), outcome


ENTRIES = tuple(
    CrlEntry(serial, NOW_US - DAY_US, reason)
    for serial, reason in enumerate(sorted(crl.REASONS), start=1)
)


@pytest.mark.parametrize("entries", [(), ENTRIES])
@pytest.mark.parametrize("heads", [None, b"heads"])
def test_pkilint_finds_nothing_in_revocation_lists(entries, heads):
    lint.assert_clean_crl(revocation_list(GATEWAY, *entries, heads=heads))


@pytest.mark.parametrize("reason", [None, "key_compromise", "certificate_hold"])
def test_openssl_follows_revocation_lists(reason, tmp_path):
    leaf = GATEWAY.issue(leaf_plan(), serial=4711)
    entries = [CrlEntry(4711, NOW_US - DAY_US, reason)] if reason else []
    lists = (
        revocation_list(GATEWAY, *entries, heads=b"heads"),
        revocation_list(HIERARCHY.fleet),
        revocation_list(HIERARCHY.root),
    )
    file = write(tmp_path / "all.crl", *lists, kind="CRL")
    outcome = verified(tmp_path, leaf, "-crl_check_all", "-CRLfile", file)
    assert ("certificate revoked" in outcome) is (reason is not None)
    assert outcome.endswith("exit 0") is (reason is None), outcome


def test_openssl_prints_a_revocation_list_with_chain_heads(tmp_path):
    file = write(tmp_path / "a.crl", revocation_list(GATEWAY, heads=b"heads"), kind="CRL")
    chain = write(tmp_path / "chain.pem", *GATEWAY.issuer.chain)
    assert "verify OK" in openssl("crl", "-in", file, "-noout", "-CAfile", chain)


@pytest.mark.parametrize("algorithm", ["-sha1", "-sha256"])
def test_openssl_asks_for_several_certificates_at_once(algorithm, tmp_path):
    """Its clock is the machine's: so is the time in this answer."""
    now_us = SystemClock().now().utc_us
    leaves = [GATEWAY.issue(leaf_plan(), serial=serial) for serial in (1, 2, 3)]
    files = [write(tmp_path / f"{number}.pem", leaf) for number, leaf in enumerate(leaves)]
    issuer = write(tmp_path / "issuer.pem", GATEWAY.issuer.chain[0])
    anchors = write(tmp_path / "anchors.pem", *GATEWAY.issuer.chain)
    asked = tmp_path / "request.der"
    certificates_asked = [argument for file in files for argument in ("-cert", file)]
    made = openssl(
        "ocsp", algorithm, "-issuer", issuer, *certificates_asked, "-reqout", asked
    )  # fmt: skip
    assert made.endswith("exit 0"), made

    request = ocsp.parse(asked.read_bytes())
    statuses = {1: Status(State.GOOD), 2: Status(State.REVOKED, now_us - DAY_US, "superseded")}
    key = keys.generate()
    answer = ocsp.respond(
        request,
        [statuses.get(certid.serial, Status(State.UNKNOWN)) for certid in request.certids],
        responder_key=key,
        responder_certificate=x509.load_der_x509_certificate(responder(key, now_us)),
        this_update_us=now_us,
        next_update_us=now_us + DAY_US,
    )
    (tmp_path / "answer.der").write_bytes(answer)
    judge = ("ocsp", "-issuer", issuer, "-CAfile", anchors, "-respin", tmp_path / "answer.der")
    echoed = openssl(*judge, "-reqin", asked)  # compares the nonces
    assert "Response verify OK" in echoed, echoed
    told = openssl(*judge, "-no_nonce", algorithm, *certificates_asked)
    assert "Response verify OK" in told, told
    assert "0.pem: good" in told
    assert "1.pem: revoked" in told
    assert "Reason: superseded" in told
    assert "2.pem: unknown" in told


@pytest.mark.parametrize(
    "status",
    [
        Status(State.GOOD),
        Status(State.UNKNOWN),
        Status(State.REVOKED, NOW_US - DAY_US),
        Status(State.REVOKED, NOW_US - DAY_US, "key_compromise"),
    ],
    ids=lambda status: f"{status.state} {status.reason}",
)
def test_pkilint_finds_nothing_in_ocsp_answers(status):
    hashed = ocsp.issuer_hashes(GATEWAY.issuer.certificate)[1]
    builder = OCSPRequestBuilder().add_certificate_by_hash(
        hashed.name_hash, hashed.key_hash, 4711, SHA256()
    )
    request = builder.add_extension(x509.OCSPNonce(b"n" * 32), critical=False).build()
    key = keys.generate()
    certificate = x509.load_der_x509_certificate(responder(key))
    answer = ocsp.respond(
        ocsp.parse(request.public_bytes(Encoding.DER)),
        [status],
        responder_key=key,
        responder_certificate=certificate,
        this_update_us=NOW_US,
        next_update_us=NOW_US + DAY_US,
    )
    lint.assert_clean_ocsp(answer)
    assert utc_us_of(certificate.not_valid_before_utc) == NOW_US


@pytest.mark.parametrize("kind", ocsp.Failure)
def test_pkilint_finds_nothing_in_ocsp_failures(kind):
    lint.assert_clean_ocsp(ocsp.error(kind))


def test_the_linter_bites():
    """A certificate as we would never issue it: the key usage of a CA in an end entity."""
    wrong = GATEWAY.issue(leaf_plan(key_usage=("key_cert_sign",)))
    with pytest.raises(AssertionError, match="pkix"):
        lint.assert_clean_certificate(wrong)
