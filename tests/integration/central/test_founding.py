"""The CAs of a new central, with key types and signatures of choice: OpenSSL verifies them."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from central.authority.hierarchy import Founder, KeyTypes, NewAuthority
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
