"""Each key type under each profile, from issuers of each kind: OpenSSL and pkilint judge."""

import asyncio
import subprocess
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509

from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.ports import Priority, Purpose
from shared.kernel.clock import ClockQuality, Instant, datetime_of
from shared.pki import certificates, formats, keys
from shared.pki.keys import KeyType
from shared.pki.plan import Plan
from shared.policy.decide import Circumstances, decide
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.shipped import SHIPPED
from tests.support import lint, pki_keys
from tests.support.pki_hierarchy import (
    DAY_US,
    NOW_US,
    Authority,
    root_authority,
    subject,
    subordinate,
)

PROFILES = tuple(
    profile.model_copy(update={"key_types": tuple(KeyType)})
    for profile in SHIPPED
    if profile.name in {"tls-server", "tls-client", "idevid"}
)
#: Key type and signature algorithm of the root (None: the usual one); the issuer has the same type.
ISSUERS = (
    (KeyType.EC_P256, None),
    (KeyType.EC_P384, None),
    (KeyType.EC_P521, None),
    (KeyType.EC_BRAINPOOL_P256, None),
    (KeyType.EC_SECP256K1, None),
    (KeyType.ED25519, None),
    (KeyType.ED448, None),
    (KeyType.RSA_2048, None),
    (KeyType.RSA_2048, "rsa-pss-sha512"),
    (KeyType.RSA_3072, "rsa-sha512"),
)
#: OpenSSL 3.0 of Debian 12 does not know ML-DSA.
JUDGED = tuple(kind for kind in KeyType if not keys.FORMS[kind].experimental)


@cache
def authorities(kind: KeyType, signature: str | None) -> tuple[Authority, Authority]:
    root = root_authority("Root", kind, signature)
    return root, subordinate(root, "Issuing CA", 0, kind=kind)


async def issued(issuer: Authority, kind: KeyType, profile) -> bytes:
    """All rooms of an enrollment but the ledger, which has no part in what is said."""
    request = EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol="rest",
        alias="line-1",
        profile=profile.name,
        principal="station:one",
        public_key=pki_keys.spki(kind),
        subject=subject("device-1.example"),
        device_id="SN-0001",
    )
    now = Instant(NOW_US, 0, "boot", ClockQuality.NTP)
    plan = decide(profile, None, request, Circumstances(now, issuer.issuer.limits, None))
    assert isinstance(plan, Plan), plan
    tbs = certificates.unsigned(plan, issuer.issuer, 4711 + list(KeyType).index(kind))
    key = SoftwareIssuingKey(issuer.issuer, issuer.key)
    signature = await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")
    return certificates.assemble(tbs, signature, issuer.issuer)


@pytest.mark.parametrize(("kind", "signature"), ISSUERS)
async def test_openssl_verifies_every_key_type_from_this_issuer(kind, signature, tmp_path: Path):
    root, issuer = authorities(kind, signature)
    (tmp_path / "root.pem").write_text(formats.pem([root.issuer.chain[0]]))
    (tmp_path / "issuer.pem").write_text(formats.pem([issuer.issuer.chain[0]]))
    files: list[Path] = []
    for profile in PROFILES:
        for subject_kind in JUDGED:
            file = tmp_path / f"{profile.name}-{subject_kind.value}.pem"
            file.write_text(formats.pem([await issued(issuer, subject_kind, profile)]))
            files.append(file)
    outcome = await asyncio.to_thread(
        subprocess.run,
        ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-attime",
         str(int(datetime_of(NOW_US + DAY_US // 2).timestamp())), "-CAfile",
         tmp_path / "root.pem", "-untrusted", tmp_path / "issuer.pem", *files],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count(": OK") == len(files)


@pytest.mark.parametrize("kind", KeyType)
async def test_pkilint_finds_nothing_in_a_certificate_for_this_key_type(kind):
    _, issuer = authorities(KeyType.EC_P256, None)
    for profile in PROFILES:
        lint.assert_clean_certificate(await issued(issuer, kind, profile))


@pytest.mark.parametrize(("kind", "signature"), ISSUERS)
async def test_pkilint_finds_nothing_in_what_this_issuer_signs(kind, signature):
    root, issuer = authorities(kind, signature)
    leaf = await issued(issuer, KeyType.EC_P256, PROFILES[0])
    for der in (root.issuer.chain[0], issuer.issuer.chain[0], leaf):
        lint.assert_clean_certificate(der)


@pytest.mark.parametrize("kind", [KeyType.ML_DSA_44, KeyType.ML_DSA_65, KeyType.ML_DSA_87])
async def test_an_experimental_issuer_is_verified_by_the_library(kind):
    root, issuer = authorities(kind, None)
    leaf = x509.load_der_x509_certificate(await issued(issuer, kind, PROFILES[0]))
    issuing = x509.load_der_x509_certificate(issuer.issuer.chain[0])
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(x509.load_der_x509_certificate(root.issuer.chain[0]))
