"""The CAs of a new central, with key types and signatures of choice: OpenSSL verifies them."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from central import core
from central.authority.hierarchy import Founder, NewAuthority
from central.config import CentralSettings
from central.first_order import FirstOrder
from central.founding import Founded, found
from shared.kernel.errors import BadRequestError
from shared.pki import formats
from shared.pki.keys import KeyType
from shared.system.clock import SystemClock
from tests.support.processes import program


async def founded(order: FirstOrder) -> list[NewAuthority]:
    now_us = SystemClock().now().utc_us
    return await Founder(order, "http://central.example", now_us, os.urandom).found()


def wish(**values: object) -> FirstOrder:
    return FirstOrder.model_validate({"organization": "Plant"} | values)


@pytest.mark.parametrize(
    ("order", "signed_with"),
    [
        (wish(), "ecdsa-sha256"),
        (wish(root_key_type=KeyType.EC_P384), "ecdsa-sha384"),
        (wish(key_type=KeyType.RSA_2048, signature="rsa-pss-sha256"), "rsa-pss-sha256"),
        (wish(key_type=KeyType.ED25519, days=1), "ed25519"),
    ],
)
async def test_openssl_verifies_the_hierarchy(order: FirstOrder, signed_with: str, tmp_path: Path):
    root, fleet, issuing, transport = await founded(order)
    assert root.key.issuer.algorithm.name == signed_with
    assert transport.key.issuer.algorithm.name == "ecdsa-sha256"
    if order.signature is not None:
        assert issuing.key.issuer.algorithm.name == order.signature
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
        await founded(wish(signature="rsa-sha256"))


def test_what_nobody_saw_is_made_anew(tmp_path: Path):
    """As if the terminal were gone when the secrets came: the next `init` gives others."""
    settings = CentralSettings.model_validate({"state": tmp_path / "state"})
    shown: list[Founded] = []

    def gone(founded: Founded) -> None:
        shown.append(founded)
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        found(settings, wish(root_name="One"), gone)
    for _ in range(2):
        found(settings, wish(root_name="Two"), shown.append)
    unseen, seen, again = shown
    assert (again.password, again.recovery_secret) == (None, None)
    assert len({unseen.root_sha256, seen.root_sha256, again.root_sha256}) == 1
    assert seen.recovery_secret is not None
    assert unseen.recovery_secret != seen.recovery_secret
    assert unseen.password != seen.password


async def test_nothing_outlives_a_root_that_ends(tmp_path: Path):
    """Neither a CA, nor what it issues to central itself; the link has a root of its own."""
    settings = CentralSettings.model_validate({"state": tmp_path / "state"})
    await asyncio.to_thread(found, settings, wish(days=30), lambda _founded: None)
    async with core.opened(settings) as central:
        web = x509.load_der_x509_certificate((await central.web_identity()).certificate)
        ends = {key.issuer.certificate.not_valid_after_utc for key in central.hierarchy.public}
        assert ends == {web.not_valid_after_utc}
        assert central.hierarchy.transport.issuer.certificate.not_valid_after_utc.year == 9999


async def test_with_deltas_the_ca_for_devices_makes_them_from_birth_on(tmp_path: Path):
    """The CAs above do not: gateways get their CRLs whole."""
    wanted = {"state": tmp_path / "state", "authority": {"crl_delta_hours": 1}}
    settings = CentralSettings.model_validate(wanted)
    await asyncio.to_thread(found, settings, wish(), lambda _founded: None)
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
