"""Signature algorithms: named in DER as another implementation names them; no key signs alien."""

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.errors import BadRequestError
from shared.pki import algorithms, signed
from shared.pki.algorithms import BY_NAME, Scheme
from shared.pki.keys import KeyType
from tests.support import pki_keys
from tests.support.pki_hierarchy import root_authority, subordinate


@pytest.mark.parametrize(("kind", "name"), pki_keys.ISSUERS)
def test_another_builder_names_it_the_same(kind, name):
    algorithm, key = BY_NAME[name], pki_keys.private_key(kind)
    padding = algorithm.arguments[0] if algorithm.scheme is Scheme.RSA_PSS else None
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, algorithm.hash, rsa_padding=padding)
    body = csr.tbs_certrequest_bytes
    assert signed.join(body, algorithm, csr.signature) == csr.public_bytes(Encoding.DER)
    algorithm.verify(key.public_key(), body, csr.signature)


@pytest.mark.parametrize(("kind", "name"), pki_keys.ISSUERS)
def test_what_is_signed_verifies_and_nothing_else(kind, name):
    algorithm, key = BY_NAME[name], pki_keys.private_key(kind)
    signature = algorithm.sign(key, b"data")
    algorithm.verify(key.public_key(), b"data", signature)
    for data, value in ((b"date", signature), (b"data", signature[:-1]), (b"data", b"")):
        with pytest.raises(InvalidSignature):
            algorithm.verify(key.public_key(), data, value)


def test_a_key_of_another_type_never_verifies():
    signature = algorithms.ECDSA_SHA256.sign(pki_keys.private_key(KeyType.EC_P256), b"data")
    for kind in (KeyType.RSA_2048, KeyType.ED25519, KeyType.EC_P384, KeyType.ML_DSA_44):
        public_key = pki_keys.private_key(kind).public_key()
        with pytest.raises(InvalidSignature):
            algorithms.ECDSA_SHA256.verify(public_key, b"data", signature)


@pytest.mark.parametrize("kind", KeyType)
def test_the_usual_algorithm_fits(kind):
    usual = algorithms.fitting(kind)[0]
    assert usual.scheme is not Scheme.RSA_PSS


def test_a_choice_that_does_not_fit_names_those_that_do():
    key = pki_keys.private_key(KeyType.EC_P256).public_key()
    assert algorithms.chosen(key, None) is algorithms.ECDSA_SHA256
    assert algorithms.chosen(key, "ecdsa-sha512") is algorithms.ECDSA_SHA512
    with pytest.raises(BadRequestError) as caught:
        algorithms.chosen(key, "rsa-sha256")
    assert "ecdsa-sha384" in caught.value.remedy


@pytest.mark.parametrize(
    ("root_kind", "signature", "kind", "expected"),
    [
        (KeyType.RSA_2048, "rsa-pss-sha512", KeyType.RSA_2048, "rsa-pss-sha512"),
        (KeyType.RSA_2048, "rsa-pss-sha256", KeyType.RSA_3072, "rsa-pss-sha256"),
        (KeyType.RSA_2048, "rsa-pss-sha256", KeyType.EC_P256, "ecdsa-sha256"),
        (KeyType.EC_P256, "ecdsa-sha512", KeyType.EC_P256, "ecdsa-sha512"),
        (KeyType.EC_P256, None, KeyType.EC_P384, "ecdsa-sha384"),
        (KeyType.ED25519, None, KeyType.ED448, "ed448"),
    ],
)
def test_what_is_chosen_for_a_root_holds_below_it(root_kind, signature, kind, expected):
    root = root_authority("Root", root_kind, signature)
    stored = algorithms.of_issuer(root.issuer.public_key, root.issuer.certificate)
    assert stored is root.issuer.algorithm
    issuing = subordinate(root, "Issuing", 0, kind=kind)
    assert issuing.issuer.algorithm is BY_NAME[expected]
