"""Signed messages: COSE_Sign1 of RFC 9052 §4.2 with ES256, in exactly one form.

The form is tag 18, protected header {1: -7, 4: kid, 16: type}, an empty unprotected header, an
attached payload and the raw r ‖ s of RFC 9053 §2.1, all in deterministic CBOR.
"""

from collections.abc import Callable

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from shared.kernel import cbor
from shared.kernel.errors import UntrustedError

_SIGN1_TAG = 18
_ALGORITHM, _KEY_ID, _TYPE = 1, 4, 16  # header labels: RFC 9052 §3.1, RFC 9596
_ES256 = -7
_ECDSA = ec.ECDSA(hashes.SHA256())
_COORDINATE_BYTES = 32


def sign1(
    payload: bytes,
    *,
    key: ec.EllipticCurvePrivateKey,
    kid: bytes,
    type: str,  # noqa: A002  # the header's name in RFC 9596
    external_aad: bytes,
) -> bytes:
    """Sign the payload with a P-256 key; ``external_aad`` is signed too but not carried."""
    protected = cbor.encode({_ALGORITHM: _ES256, _KEY_ID: kid, _TYPE: type})
    signature = key.sign(_to_be_signed(protected, external_aad, payload), _ECDSA)
    halves = (half.to_bytes(_COORDINATE_BYTES, "big") for half in decode_dss_signature(signature))
    return _message(protected, payload, b"".join(halves))


def open1(
    data: bytes,
    *,
    find_key: Callable[[bytes], ec.EllipticCurvePublicKey],
    type: str,  # noqa: A002
    external_aad: bytes,
    limit: int,
) -> bytes:
    """Verify a message of at most ``limit`` bytes and give its payload.

    ``find_key`` gives the P-256 key for a kid or raises UntrustedError. Raises UntrustedError when
    the message is too long, is not in the one form above, has another type, or does not verify.
    """
    if len(data) > limit:
        raise UntrustedError(f"The signed message has {len(data)} bytes; the limit is {limit}.")
    try:
        protected, _, payload, signature = cbor2.loads(data).value
        kid = cbor2.loads(protected)[_KEY_ID]
        first, second = signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]
        exact = (
            data == _message(protected, payload, signature)
            and protected == cbor.encode({_ALGORITHM: _ES256, _KEY_ID: kid, _TYPE: type})
            and all(isinstance(item, bytes) for item in (kid, protected, payload, signature))
            and len(second) == _COORDINATE_BYTES
        )
    except Exception as error:  # cbor2 and unpacking raise many types on hostile input
        raise UntrustedError("The message is not a COSE_Sign1 message.") from error
    if not exact:
        raise UntrustedError(f"The message is not a {type} message in its one encoding.")
    to_be_signed = _to_be_signed(protected, external_aad, payload)
    value = encode_dss_signature(int.from_bytes(first, "big"), int.from_bytes(second, "big"))
    try:
        find_key(kid).verify(value, to_be_signed, _ECDSA)
    except InvalidSignature as error:
        raise UntrustedError("The signature of the message does not hold.") from error
    return payload


def _message(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    return cbor.encode(cbor2.CBORTag(_SIGN1_TAG, [protected, {}, payload, signature]))


def _to_be_signed(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """Build the Sig_structure of RFC 9052 §4.4."""
    return cbor.encode(["Signature1", protected, external_aad, payload])
