"""A token with keys of many types: each proves itself, issues, and never makes a CA."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from shared.hsm.client import HsmClient
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import BadRequestError, ForbiddenError
from shared.pki import algorithms, certificates, crl, keys
from shared.pki.keys import KeyType
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, leaf_plan
from tests.support.softhsm import Hsmd, SoftHsm, born, settled

TYPES = (
    KeyType.EC_P384,
    KeyType.EC_P521,
    KeyType.EC_BRAINPOOL_P256,
    KeyType.EC_BRAINPOOL_P384,
    KeyType.EC_BRAINPOOL_P512,
    KeyType.EC_SECP256K1,
    KeyType.ED25519,
    KeyType.ED448,
    KeyType.RSA_2048,
    KeyType.RSA_3072,
)


@pytest.fixture(scope="module")
def hsmd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hsmd]:
    tokens = SoftHsm(tmp_path_factory.mktemp("types"))
    daemon = Hsmd(tokens.folder, tokens.initialise("types"), tokens.environ)
    daemon.start()
    yield daemon
    daemon.process.stop()


@pytest.fixture
async def client(hsmd: Hsmd) -> AsyncIterator[HsmClient]:
    client = HsmClient(hsmd.socket)
    await settled(client, "ready")
    yield client
    await client.close()


@pytest.mark.parametrize("kind", TYPES)
async def test_a_key_of_this_type_issues_and_is_trusted_again(
    client: HsmClient, hierarchy: Hierarchy, kind: KeyType
):
    label = f"ca-{kind.value}"
    spki = await client.generate(label, kind)
    assert keys.key_type(spki) is kind
    proof = await client.prove(label, b"context")
    public_key = keys.load_spki(spki)
    algorithms.usual(public_key).verify(public_key, proof.statement, proof.signature)

    key = await born(client, hierarchy.fleet, label)
    for algorithm in algorithms.fitting(kind):
        issuer = replace(key.issuer, signature=algorithm)
        tbs = certificates.unsigned(leaf_plan(), issuer, 7)
        signature = await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")
        certificates.assemble(tbs, signature, issuer)
    tbs = crl.unsigned(key.issuer, 1, NOW_US, NOW_US + DAY_US, [], None)
    signature = await key.sign(tbs, Purpose.CRL, priority=Priority.LINE, reference="")
    crl.assemble(tbs, signature, key.issuer)

    rogue = certificates.unsigned(leaf_plan(ca_path_length=0), key.issuer, 8)
    for purpose in (Purpose.LEAF, Purpose.CA):
        with pytest.raises(ForbiddenError):
            await key.sign(rogue, purpose, priority=Priority.LINE, reference="")


async def test_a_document_that_names_an_alien_algorithm_is_refused(
    client: HsmClient, hierarchy: Hierarchy
):
    await client.generate("alien", KeyType.ED25519)
    key = await born(client, hierarchy.fleet, "alien")
    issuer = replace(key.issuer, signature=algorithms.ECDSA_SHA256)
    tbs = certificates.unsigned(leaf_plan(), issuer, 7)
    with pytest.raises(ForbiddenError, match="ed25519"):
        await key.sign(tbs, Purpose.LEAF, priority=Priority.LINE, reference="")


async def test_tokens_make_no_ml_dsa(client: HsmClient):
    with pytest.raises(BadRequestError, match="ml-dsa-65"):
        await client.generate("pq", KeyType.ML_DSA_65)


async def test_all_of_them_are_challenged_at_the_next_start(hsmd: Hsmd, client: HsmClient):
    before = (await client.state()).keys
    hsmd.process.stop()
    hsmd.start()
    await settled(client, "ready")
    assert (await client.state()).keys == before
