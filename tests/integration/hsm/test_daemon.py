"""The daemon on a real SoftHSM2 token signs what its policy names, and nothing else."""

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shared.hsm.client import HsmClient, RemoteIssuingKey
from shared.issuance.ports import Priority, Purpose
from shared.kernel import limits
from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TokenUnavailableError,
)
from shared.pki import certificates, crl, keys
from shared.pki.algorithms import ECDSA_SHA256
from shared.pki.crl import CrlEntry
from shared.pki.request import CertificationRequest
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan, subject
from tests.support.softhsm import KEY, Hsmd

_MANY = 250_000


async def _sign(key: RemoteIssuingKey, tbs: bytes, purpose: Purpose) -> bytes:
    return await key.sign(tbs, purpose, priority=Priority.LINE, reference="test")


def _responder_tbs(key: RemoteIssuingKey, spki: bytes, days: int) -> bytes:
    plan = certificates.responder_plan(
        subject("OCSP"), spki, not_before_us=NOW_US, not_after_us=NOW_US + days * DAY_US
    )
    return certificates.unsigned(plan, key.issuer, 7)


async def test_leaf(issuing_key: RemoteIssuingKey):
    tbs = certificates.unsigned(leaf_plan(), issuing_key.issuer, 1)
    signature = await _sign(issuing_key, tbs, Purpose.LEAF)
    der = certificates.assemble(tbs, signature, issuing_key.issuer)
    assert x509.load_der_x509_certificate(der).serial_number == 1


async def test_crl(issuing_key: RemoteIssuingKey):
    entries = [CrlEntry(serial, NOW_US, "key_compromise") for serial in range(1, 50)]
    tbs = crl.unsigned(issuing_key.issuer, 3, NOW_US, NOW_US + DAY_US, entries, b"heads")
    signature = await _sign(issuing_key, tbs, Purpose.CRL)
    der = crl.assemble(tbs, signature, issuing_key.issuer)
    assert len(list(x509.load_der_x509_crl(der))) == 49


async def test_a_crl_of_a_quarter_million_entries(issuing_key: RemoteIssuingKey):
    """What central takes in parts, the token's daemon signs; larger ones are refused at once."""
    entries = (CrlEntry(2**127 + serial, NOW_US, "superseded") for serial in range(_MANY))
    tbs = crl.unsigned(issuing_key.issuer, 3, NOW_US, NOW_US + DAY_US, entries, b"heads")
    assert len(tbs) > 8 * 1024 * 1024
    der = crl.assemble(tbs, await _sign(issuing_key, tbs, Purpose.CRL), issuing_key.issuer)
    assert len(der) < limits.CRL_BYTES_MAX
    with pytest.raises(ForbiddenError, match="at most"):
        await _sign(issuing_key, bytes(limits.CRL_BYTES_MAX), Purpose.CRL)


async def test_own_responder(issuing_key: RemoteIssuingKey):
    spki = keys.spki(keys.generate().public_key())
    tbs = _responder_tbs(issuing_key, spki, 7)
    signature = await _sign(issuing_key, tbs, Purpose.OWN_RESPONDER)
    certificates.assemble(tbs, signature, issuing_key.issuer)
    with pytest.raises(ForbiddenError, match="7 days"):
        await _sign(issuing_key, _responder_tbs(issuing_key, spki, 8), Purpose.OWN_RESPONDER)


async def test_central_responder_is_pinned_once(client: HsmClient, issuing_key: RemoteIssuingKey):
    spki, other = (keys.spki(keys.generate().public_key()) for _ in range(2))
    tbs = _responder_tbs(issuing_key, spki, 3650)
    with pytest.raises(ForbiddenError, match="pinned"):
        await _sign(issuing_key, tbs, Purpose.CENTRAL_RESPONDER)
    await client.pin_responder(KEY, spki)
    await client.pin_responder(KEY, spki)
    signature = await _sign(issuing_key, tbs, Purpose.CENTRAL_RESPONDER)
    certificates.assemble(tbs, signature, issuing_key.issuer)
    with pytest.raises(ConflictError):
        await client.pin_responder(KEY, other)
    with pytest.raises(ForbiddenError, match="pinned"):
        await _sign(issuing_key, _responder_tbs(issuing_key, other, 1), Purpose.CENTRAL_RESPONDER)


async def test_birth_request_proves_possession(client: HsmClient):
    der = await client.birth_csr(KEY, subject("gw-01 CA"))
    request = CertificationRequest.parse(der)
    assert request.subject == subject("gw-01 CA")
    assert request.public_key == (await client.state()).keys[KEY]


async def test_proof_is_no_document(client: HsmClient):
    proof = await client.prove(KEY, b"for central")
    assert proof.statement[0] == 0xFF
    assert proof.statement.endswith(b"for central")
    public_key = keys.load_spki((await client.state()).keys[KEY])
    ECDSA_SHA256.verify(public_key, proof.statement, proof.signature)
    with pytest.raises(InvalidSignature):
        ECDSA_SHA256.verify(public_key, proof.statement[1:], proof.signature)


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("document", [b"\x30\x00", b"x" * 200, b"\xff" * 64, b"\x30\x82\xff\xff"])
async def test_arbitrary_bytes_are_refused(
    issuing_key: RemoteIssuingKey, purpose: Purpose, document: bytes
):
    with pytest.raises(ForbiddenError):
        await _sign(issuing_key, document, purpose)


async def test_no_further_ca(issuing_key: RemoteIssuingKey):
    plan = certificates.ca_plan(
        subject("gw-01 CA"),
        keys.spki(keys.generate().public_key()),
        path_length=0,
        not_before_us=NOW_US,
    )
    tbs = certificates.unsigned(plan, issuing_key.issuer, 9)
    for purpose in Purpose:
        with pytest.raises(ForbiddenError):
            await _sign(issuing_key, tbs, purpose)


async def test_foreign_issuer_is_refused(issuing_key: RemoteIssuingKey, hierarchy: Hierarchy):
    tbs = certificates.unsigned(leaf_plan(), hierarchy.gateway.issuer, 1)
    with pytest.raises(ForbiddenError, match="issuer"):
        await _sign(issuing_key, tbs, Purpose.LEAF)


async def test_one_refused_document_stops_no_other(issuing_key: RemoteIssuingKey):
    good = [
        certificates.unsigned(leaf_plan(), issuing_key.issuer, serial) for serial in range(1, 6)
    ]
    results = await asyncio.gather(
        *(_sign(issuing_key, tbs, Purpose.LEAF) for tbs in (*good, b"\x30\x00")),
        return_exceptions=True,
    )
    assert isinstance(results.pop(), ForbiddenError)
    for tbs, signature in zip(good, results, strict=True):
        assert isinstance(signature, bytes)
        certificates.assemble(tbs, signature, issuing_key.issuer)


async def test_64_clients_at_once(daemon: Hsmd, issuing_key: RemoteIssuingKey):
    async def work(serial: int) -> None:
        client = HsmClient(daemon.socket)
        key = RemoteIssuingKey(issuing_key.issuer, client, KEY)
        documents = [certificates.unsigned(leaf_plan(), key.issuer, serial + n) for n in (0, 1, 2)]
        signatures = await asyncio.gather(*(_sign(key, tbs, Purpose.LEAF) for tbs in documents))
        for tbs, signature in zip(documents, signatures, strict=True):
            certificates.assemble(tbs, signature, key.issuer)
        await client.close()

    await asyncio.gather(*(work(serial) for serial in range(1, 640, 10)))


async def test_more_documents_than_a_frame_holds(issuing_key: RemoteIssuingKey):
    tbs = certificates.unsigned(leaf_plan(), issuing_key.issuer, 5)
    signatures = await asyncio.gather(*(_sign(issuing_key, tbs, Purpose.LEAF) for _ in range(600)))
    assert len(set(signatures)) == 600


async def test_keys_are_never_overwritten(client: HsmClient):
    spki = await client.generate("second")
    assert (await client.state()).keys["second"] == spki
    with pytest.raises(ConflictError):
        await client.generate("second")
    with pytest.raises(BadRequestError):
        await client.generate("../second")


async def test_key_without_certificate_signs_no_document(
    client: HsmClient, issuing_key: RemoteIssuingKey
):
    await client.generate("unborn")
    tbs = certificates.unsigned(leaf_plan(), issuing_key.issuer, 1)
    with pytest.raises(ForbiddenError, match="no CA certificate"):
        await client.sign(tbs, Purpose.LEAF, key="unborn", priority=Priority.LINE, reference="test")


async def test_unknown_key_was_surely_not_used(client: HsmClient):
    with pytest.raises(TokenUnavailableError, match="holds no key nobody"):
        await client.sign(
            b"\x30\x00", Purpose.LEAF, key="nobody", priority=Priority.LINE, reference=""
        )
    with pytest.raises(NotFoundError):
        await client.birth_csr("nobody", subject("x"))


async def test_adopted_certificate_cannot_widen(
    client: HsmClient, issuing_key: RemoteIssuingKey, hierarchy: Hierarchy
):
    spki = (await client.state()).keys[KEY]
    plan = certificates.ca_plan(subject("gw-01 CA"), spki, path_length=0, not_before_us=NOW_US)
    await client.adopt(KEY, hierarchy.fleet.issue(plan))  # renewed: the same name and length
    for changed in (replace(plan, ca_path_length=1), replace(plan, subject=subject("other"))):
        with pytest.raises(ForbiddenError, match="must not change"):
            await client.adopt(KEY, hierarchy.fleet.issue(changed))
    with pytest.raises(ForbiddenError, match="not for this key"):
        await client.adopt(KEY, hierarchy.gateway.issuer.chain[0])
    with pytest.raises(ForbiddenError, match="not that of a CA"):
        await client.adopt(KEY, hierarchy.gateway.issue(leaf_plan()))
    with pytest.raises(BadRequestError):
        await client.adopt(KEY, b"\x30\x00")


def test_socket_and_files_are_private(daemon: Hsmd):
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert daemon.socket.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in daemon.state.iterdir())
    pin = (daemon.folder / "pin").read_text()
    assert pin not in (daemon.folder / "hsmd.log").read_text()
    process = Path("/proc") / str(daemon.process.pid)
    for name in ("environ", "cmdline"):
        assert pin.encode() not in (process / name).read_bytes()
