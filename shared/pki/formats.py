"""How keys and certificates travel: PEM, DER, PKCS#7, PKCS#8, PKCS#12 and Java trust stores."""

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PBES,
    PKCS12Certificate,
    PKCS12PrivateKeyTypes,
    serialize_java_truststore,
    serialize_key_and_certificates,
)

from shared.kernel.errors import BadRequestError
from shared.pki import signed
from shared.pki.keys import PrivateKey

_DER_MARK = bytes((signed.SEQUENCE,))
_PKCS12_ROUNDS = 100_000


def pem(ders: Iterable[bytes]) -> str:
    """Write DER certificates one after the other in PEM (RFC 7468 §5)."""
    return "".join(_load(der).public_bytes(Encoding.PEM).decode("ascii") for der in ders)


def request_pem(der: bytes) -> str:
    """Write a certification request in PEM (RFC 7468 §7)."""
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode("ascii")


def certificates(data: bytes) -> list[bytes]:
    """Read one DER or any number of PEM certificates; gives each in DER.

    Raises BadRequestError when there is none or one is malformed. The caller bounds the input.
    """
    try:
        found = (
            [x509.load_der_x509_certificate(data)]
            if data[:1] == _DER_MARK
            else x509.load_pem_x509_certificates(data)
        )
    except ValueError as error:
        raise BadRequestError("These are no certificates in PEM or DER.") from error
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


def pkcs12(
    key: PrivateKey,
    certificate: bytes,
    chain: Sequence[bytes],
    password: bytes,
) -> bytes:
    """Pack key, DER certificate and DER chain into PKCS#12 (RFC 7292), AES-256 and SHA-256.

    Deriving the key from the password takes about 0.1 s: call it in a thread. Raises
    BadRequestError for an empty password.
    """
    _require(password)
    if not isinstance(key, PKCS12PrivateKeyTypes):
        raise BadRequestError(
            "PKCS#12 holds no ML-DSA keys yet.", remedy="Ask for the format pem or pkcs8."
        )
    chain_certificates = [_load(der) for der in chain]
    return serialize_key_and_certificates(
        None, key, _load(certificate), chain_certificates, _encryption(password)
    )


def pkcs7(ders: Iterable[bytes]) -> bytes:
    """Pack certificates into a certs-only PKCS#7 SignedData in DER (RFC 5652 §5, RFC 8551 §3.8)."""
    return serialize_certificates([_load(der) for der in ders], Encoding.DER)


def java_truststore(ders: Iterable[bytes], password: bytes) -> bytes:
    """Pack trust anchors into a PKCS#12 that Java reads as a trust store.

    Their aliases are ca-1, ca-2 and so on. The password protects nothing secret: Java only insists
    on one (``changeit`` is its custom). Raises BadRequestError for an empty one.
    """
    _require(password)
    entries = [
        PKCS12Certificate(_load(der), b"ca-%d" % number) for number, der in enumerate(ders, 1)
    ]
    return serialize_java_truststore(entries, _encryption(password))


def pkcs8(key: PrivateKey, password: bytes) -> bytes:
    """Encrypt a private key as PEM PKCS#8 (RFC 5958); raises BadRequestError without password."""
    _require(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def _encryption(password: bytes) -> KeySerializationEncryption:
    return (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_PKCS12_ROUNDS)
        .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(SHA256())
        .build(password)
    )


def _load(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def _require(password: bytes) -> None:
    if not password:
        raise BadRequestError("A private key leaves only under a password; send one.")
