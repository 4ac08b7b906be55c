"""A key of each type. RSA keys beyond 3072 bits take long to make: theirs are public only."""

from functools import cache
from math import gcd

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from shared.pki import algorithms, keys
from shared.pki.keys import KeyType, PrivateKey

#: Types whose keys are made in less than a second; RSA-3072 stands for the longer ones.
SIGNING = tuple(kind for kind in keys.MADE_HERE if kind not in {KeyType.RSA_4096, KeyType.RSA_8192})
#: Each (key type, algorithm) that an issuer can have.
ISSUERS = tuple(
    (kind, algorithm.name) for kind in SIGNING for algorithm in algorithms.fitting(kind)
)
_RSA_BITS = {KeyType.RSA_4096: 4096, KeyType.RSA_8192: 8192, KeyType.RSA_OTHER: 2056}


@cache
def private_key(kind: KeyType) -> PrivateKey:
    return keys.generate(kind)


@cache
def spki(kind: KeyType) -> bytes:
    """A key to be certified; nobody has the private half of a long RSA key."""
    bits = _RSA_BITS.get(kind)
    if bits is None:
        return keys.spki(private_key(kind).public_key())
    return rsa_spki(modulus(bits))


def rsa_spki(modulus: int, exponent: int = keys.RSA_EXPONENT) -> bytes:
    return keys.spki(RSAPublicNumbers(exponent, modulus).public_key())


def modulus(bits: int) -> int:
    """A number like a modulus: nobody can tell that it was not made of two primes."""
    number = (1 << bits) - (1 << bits // 2) + 1
    small = 1
    for factor in range(3, 1000, 2):
        small *= factor
    while gcd(number, small) != 1:
        number += 2
    return number
