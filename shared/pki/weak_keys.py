"""RSA keys that anybody can break: found by what is cheap to compute from the public key alone."""

from functools import lru_cache
from math import gcd, isqrt

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

_EXPONENT_MIN = 65_537  # FIPS 186-5 §A.1.1
_EXPONENT_BITS_MAX = 256
_SIEVE_MAX = 752  # NIST SP 800-89 §5.3.3: no factor smaller than this
_FERMAT_ROUNDS = 100  # CA/Browser Forum Baseline Requirements §6.1.1.3
_ROCA_PRIMES_MAX = 167


def _primes(below: int) -> list[int]:
    return [n for n in range(3, below, 2) if all(n % d for d in range(3, isqrt(n) + 1, 2))]


def _product(factors: list[int]) -> int:
    product = 1
    for factor in factors:
        product *= factor
    return product


_SMALL_PRIMES = _product(_primes(_SIEVE_MAX))
#: CVE-2017-15361: both primes, hence the modulus, are powers of 65537 modulo each small prime.
_ROCA = tuple(
    (prime, frozenset(pow(_EXPONENT_MIN, power, prime) for power in range(prime)))
    for prime in _primes(_ROCA_PRIMES_MAX + 1)
)


def rsa_problem(key: RSAPublicNumbers) -> str | None:
    """Say why this key must not be certified; None if nothing is known against it.

    Looked for are exponents and moduli that no sound generator makes, small factors, primes close
    together (Fermat) and the form of CVE-2017-15361 (ROCA).
    """
    if key.e < _EXPONENT_MIN or key.e % 2 == 0 or key.e.bit_length() > _EXPONENT_BITS_MAX:
        return f"has an exponent that is even, longer than 256 bits or less than {_EXPONENT_MIN}"
    return _modulus_problem(key.n)


@lru_cache(maxsize=256)
def _modulus_problem(modulus: int) -> str | None:
    if modulus % 2 == 0 or gcd(modulus, _SMALL_PRIMES) != 1:
        return "has a modulus with a small factor"
    if all(modulus % prime in powers for prime, powers in _ROCA):
        return "was made by a faulty generator (ROCA, CVE-2017-15361)"
    if _primes_are_close(modulus):
        return "has a modulus whose primes are too close together"
    return None


def _primes_are_close(modulus: int) -> bool:
    """Try Fermat's factorisation: modulus = a² - b² for an a near the square root."""
    a = isqrt(modulus - 1) + 1
    square = a * a - modulus
    for _ in range(_FERMAT_ROUNDS):
        if square % 16 in {0, 1, 4, 9} and isqrt(square) ** 2 == square:
            return True
        square += 2 * a + 1
        a += 1
    return False
