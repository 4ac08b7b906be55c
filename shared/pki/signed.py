"""The common form of certificates, CRLs and OCSP answers: document, algorithm, signature."""

from cryptography.exceptions import InvalidSignature

from shared.kernel.errors import IntegrityError
from shared.pki import keys
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.keys import PublicKey

#: Signs twins with ``algorithms.ECDSA_SHA256``; the signature is thrown away: no secret.
THROWAWAY_KEY = keys.generate()

#: Universal tags (X.680 §8.6).
INTEGER, BIT_STRING, OCTET_STRING, ENUMERATED = 0x02, 0x03, 0x04, 0x0A
UTC_TIME, GENERALIZED_TIME, SEQUENCE = 0x17, 0x18, 0x30
_LONG_LENGTH = 0x80


def tlv(tag: int, content: bytes) -> bytes:
    """Encode one DER value with a single-byte tag (X.690 §8.1, §10.1)."""
    length = len(content)
    if length < _LONG_LENGTH:
        return bytes((tag, length)) + content
    length_bytes = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_LENGTH | len(length_bytes))) + length_bytes + content


def is_sequence(document: bytes) -> bool:
    """Tell whether this is one DER SEQUENCE, by its length (X.690 §8.1.3), and nothing else."""
    length = document[1] if len(document) > 1 else 0
    start = 2 if length < _LONG_LENGTH else 2 + length - _LONG_LENGTH
    return document == tlv(SEQUENCE, document[start:])


def join(
    document: bytes, algorithm: SignatureAlgorithm, signature: bytes, trailer: bytes = b""
) -> bytes:
    """Join a DER document and its signature value; an OCSP answer's trailer are certificates."""
    value = tlv(BIT_STRING, b"\x00" + signature)
    return tlv(SEQUENCE, document + algorithm.identifier + value + trailer)


def assemble(
    document: bytes, signature: bytes, public_key: PublicKey, algorithm: SignatureAlgorithm
) -> bytes:
    """Join a DER document and its signature value.

    Raises IntegrityError when the signature is not by this key over exactly this document.
    """
    try:
        algorithm.verify(public_key, document, signature)
    except InvalidSignature as error:
        raise IntegrityError("The signature was not made by the issuing CA's key.") from error
    return join(document, algorithm, signature)


def with_algorithm(
    twin: bytes, before: bytes, algorithm: SignatureAlgorithm, wanted: SignatureAlgorithm
) -> bytes:
    """Name another signature algorithm in a DER document that has it right behind ``before``."""
    if wanted is algorithm:
        return twin
    named = before + algorithm.identifier
    return tlv(SEQUENCE, before + wanted.identifier + twin[twin.index(named) + len(named) :])
