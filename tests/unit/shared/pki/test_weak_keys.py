"""Weak RSA keys: each defect is found, and sound keys pass."""

import math

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.keys import KeyType
from shared.pki.weak_keys import rsa_problem
from tests.support import pki_keys

SOUND = pki_keys.private_key(KeyType.RSA_2048).public_key().public_numbers()


def _next_prime(start: int) -> int:
    """Good enough for a test: Fermat's little theorem to three bases."""
    candidate = start | 1
    while any(pow(base, candidate - 1, candidate) != 1 for base in (2, 3, 5)):
        candidate += 2
    return candidate


CLOSE = _next_prime((3 << 1022) + 12_345)
#: The form of the faulty generator: p = k * M + (65537 ^ a mod M) for a primorial M.
PRIMORIAL = math.prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))
ROCA = pow(65_537, 1_234_567, PRIMORIAL) + PRIMORIAL * ((1 << 2047) // PRIMORIAL + 7)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (RSAPublicNumbers(3, SOUND.n), "exponent"),
        (RSAPublicNumbers(65_535, SOUND.n), "exponent"),
        (RSAPublicNumbers(65_538, SOUND.n), "exponent"),
        (RSAPublicNumbers((1 << 257) + 1, SOUND.n), "exponent"),
        (RSAPublicNumbers(65_537, SOUND.n + 1), "small factor"),
        (RSAPublicNumbers(65_537, 751 * _next_prime(1 << 2039)), "small factor"),
        (RSAPublicNumbers(65_537, CLOSE * _next_prime(CLOSE + 2)), "close together"),
        (RSAPublicNumbers(65_537, ROCA), "ROCA"),
    ],
)
def test_a_weak_key_is_named(numbers, words):
    assert words in (rsa_problem(numbers) or "")


def test_a_weak_key_is_not_loaded():
    with pytest.raises(BadRequestError, match="close together"):
        keys.load_spki(pki_keys.rsa_spki(CLOSE * _next_prime(CLOSE + 2)))


@pytest.mark.parametrize("kind", [kind for kind in KeyType if kind.value.startswith("rsa")])
def test_sound_keys_pass(kind):
    key = keys.load_spki(pki_keys.spki(kind))
    assert rsa_problem(key.public_numbers()) is None
