"""Wrapped key files behind the daemon, and keys in process."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from shared.hsm.client import HsmClient
from shared.hsm.software import SoftwareIssuingKey, SoftwareProvider
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import ConflictError, ForbiddenError
from shared.pki import certificates, keywrap
from shared.pki.keys import KeyType
from shared.system import files
from tests.support.pki_hierarchy import Hierarchy, leaf_plan
from tests.support.processes import run
from tests.support.softhsm import KEY, Hsmd, born, settled


@pytest.fixture
def hsmd(tmp_path: Path, request: pytest.FixtureRequest) -> Hsmd:
    box_secret = str(tmp_path / "box-secret")
    printed = run(
        ["tma-provision", "keys", "init", str(tmp_path / "keys"), "--box-secret", box_secret]
    ).splitlines()
    (tmp_path / "recovery").write_text(printed[-2])
    daemon = Hsmd(tmp_path, printed[-1])
    request.addfinalizer(daemon.process.stop)
    return daemon


async def test_the_daemon_holds_wrapped_keys(hsmd: Hsmd):
    hsmd.start()
    client = HsmClient(hsmd.socket)
    await settled(client, "verify")
    await client.generate(KEY)
    assert await client.ready()
    key = await born(client, Hierarchy().fleet)
    for serial in (1, 2):
        tbs = certificates.unsigned(leaf_plan(), key.issuer, serial)
        signature = await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")
        certificates.assemble(tbs, signature, key.issuer)
        hsmd.process.stop()
        hsmd.start()
        await settled(client, "ready")
    await client.close()


async def test_recovery_on_another_box(hsmd: Hsmd, tmp_path: Path):
    """A backup of the directory and the paper open the keys; the box secret was not backed up."""
    hsmd.start()
    client = HsmClient(hsmd.socket)
    await settled(client, "verify")
    spki = await client.generate(KEY)
    hsmd.process.stop()
    other_box = os.urandom(32)
    backup = tmp_path / "other" / "keys"
    shutil.copytree(tmp_path / "keys", backup)
    restored = keywrap.Keyring.recover(
        (backup / "keyring").read_bytes(),
        recovery_secret=keywrap.recovery_secret((tmp_path / "recovery").read_text()),
        box_secret=other_box,
        random=os.urandom,
    )
    files.write_private(backup / "keyring", restored.document(), replace=True)
    provider = SoftwareProvider(backup, os.urandom)
    provider.login(other_box)
    assert provider.keys() == {KEY: spki}
    await client.close()


async def test_wrong_box_secret_is_tried_once(hsmd: Hsmd, tmp_path: Path):
    files.write_private(tmp_path / "box-secret", os.urandom(32), replace=True)
    hsmd.start()
    client = HsmClient(hsmd.socket)
    await settled(client, "pin_blocked")
    await asyncio.sleep(0.3)
    assert hsmd.process.log.read_text().count("token login") == 1
    await client.close()


async def test_key_files_are_never_overwritten(hsmd: Hsmd, tmp_path: Path):
    provider = SoftwareProvider(tmp_path / "keys", os.urandom)
    provider.login((tmp_path / "box-secret").read_bytes())
    provider.generate(KEY, KeyType.EC_P256)
    with pytest.raises(ConflictError):
        provider.generate(KEY, KeyType.EC_P256)
    with pytest.raises(ConflictError):
        SoftwareProvider.create(
            tmp_path / "keys", box_secret=b"b" * 32, recovery_secret=b"r" * 32, random=os.urandom
        )


async def test_in_process_key_follows_the_same_rule():
    authority = Hierarchy().gateway
    key = SoftwareIssuingKey(authority.issuer, authority.key)
    tbs = certificates.unsigned(leaf_plan(), key.issuer, 1)
    signature = await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")
    certificates.assemble(tbs, signature, key.issuer)
    for document, purpose in ((tbs, Purpose.CRL), (tbs, Purpose.CA), (b"\x30\x00", Purpose.LEAF)):
        with pytest.raises(ForbiddenError):
            await key.sign(document, purpose, priority=Priority.LINE, reference="")
    narrow = SoftwareIssuingKey(authority.issuer, authority.key, purposes=frozenset({Purpose.CRL}))
    with pytest.raises(ForbiddenError):
        await narrow.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")
