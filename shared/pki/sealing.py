"""Secrets addressed to one box: HPKE (RFC 9180) to its exchange key, bound to what they are for."""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from shared.kernel.errors import UntrustedError
from shared.pki import keys

_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL = b"TMA Edge sealed "
#: What a webhook's secret is sealed for.
WEBHOOK: Final = "webhook"


def seal(secret: bytes, exchange_spki: bytes, purpose: str) -> bytes:
    """Encrypt to the box that holds this key (DER SubjectPublicKeyInfo, P-256)."""
    return _SUITE.encrypt(secret, keys.load_p256(exchange_spki), _info(purpose))


def unseal(sealed: bytes, exchange_key: ec.EllipticCurvePrivateKey, purpose: str) -> bytes:
    """Decrypt; raises UntrustedError when it was sealed to another key or for another purpose."""
    try:
        return _SUITE.decrypt(sealed, exchange_key, _info(purpose))
    except (InvalidTag, ValueError) as error:
        raise UntrustedError("This was not sealed to this box.") from error


def _info(purpose: str) -> bytes:
    return _LABEL + purpose.encode()


def codes(batch: str) -> str:
    """Name what a batch of one-time codes is sealed for."""
    return f"codes {batch}"
