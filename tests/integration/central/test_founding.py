"""The CAs of a new central, with key types and signatures of choice: OpenSSL verifies them."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from central import core
from central.authority.hierarchy import Founder, KeyTypes, NewAuthority
from central.config import CentralSettings
from central.founding import found
from shared.kernel.errors import BadRequestError
from shared.pki import formats
from shared.pki.keys import KeyType
from shared.system.clock import SystemClock
from tests.support.processes import program


async def founded(kinds: KeyTypes) -> list[NewAuthority]:
    now_us = SystemClock().now().utc_us
    return await Founder("Plant", "http://central.example", now_us, os.urandom, kinds).found()


@pytest.mark.parametrize(
    ("kinds", "signed_with"),
    [
        (KeyTypes(), "ecdsa-sha256"),
        (KeyTypes(KeyType.EC_P384, KeyType.EC_P256, KeyType.EC_P256), "ecdsa-sha384"),
        (KeyTypes(*[KeyType.RSA_2048] * 3, signature="rsa-pss-sha256"), "rsa-pss-sha256"),
        (KeyTypes(*[KeyType.ED25519] * 3), "ed25519"),
    ],
)
async def test_openssl_verifies_the_hierarchy(kinds: KeyTypes, signed_with: str, tmp_path: Path):
    root, fleet, issuing, transport = await founded(kinds)
    assert root.key.issuer.algorithm.name == signed_with
    assert transport.key.issuer.algorithm.name == "ecdsa-sha256"
    if kinds.signature is not None:
        assert issuing.key.issuer.algorithm.name == kinds.signature
    for name, authority in (("root", root), ("fleet", fleet), ("issuing", issuing)):
        (tmp_path / name).write_text(formats.pem([authority.der]))
    outcome = await asyncio.to_thread(
        subprocess.run,
        [program("openssl"), "verify", "-x509_strict", "-check_ss_sig", "-CAfile",
         tmp_path / "root", "-untrusted", tmp_path / "fleet", tmp_path / "issuing"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr


async def test_a_signature_that_the_roots_key_cannot_make_is_refused():
    with pytest.raises(BadRequestError, match="rsa-sha256"):
        await founded(KeyTypes(signature="rsa-sha256"))


async def test_with_deltas_the_ca_for_devices_makes_them_from_birth_on(tmp_path: Path):
    """The CAs above do not: gateways get their CRLs whole."""
    wanted = {"state": tmp_path / "state", "authority": {"crl_delta_hours": 1}}
    settings = CentralSettings.model_validate(wanted)
    await asyncio.to_thread(found, settings, "admin", KeyTypes())
    async with core.opened(settings) as central:
        hierarchy = central.hierarchy
        for key in hierarchy.own:
            ca_id = key.issuer.ca_id
            row, delta = (
                await central.reads.current_crl(ca_id),
                await central.reads.current_delta(ca_id),
            )
            assert row is not None
            named = {extension.oid for extension in x509.load_der_x509_crl(row.der).extensions}
            ours = key is hierarchy.issuing
            assert (x509.FreshestCRL.oid in named, delta is not None) == (ours, ours)
