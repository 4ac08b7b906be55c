"""Certificates and CRLs from files that people have."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.errors import BadRequestError
from shared.pki import formats

_BYTES_MAX = 1024 * 1024
_DER_MARK = b"\x30"


def certificates(path: Path) -> list[bytes]:
    """Read certificates in PEM or DER; raises BadRequestError."""
    return formats.certificates(_content(path))


def crl(path: Path) -> bytes:
    """Read one CRL in PEM or DER; gives it in DER. Raises BadRequestError."""
    return crl_of(_content(path), path.name)


def crl_of(data: bytes, name: str) -> bytes:
    """Read one CRL in PEM or DER; gives it in DER. Raises BadRequestError naming the file."""
    try:
        loaded = (
            x509.load_der_x509_crl(data) if data[:1] == _DER_MARK else x509.load_pem_x509_crl(data)
        )
    except ValueError as error:
        raise BadRequestError(f"{name} is no CRL in PEM or DER.") from error
    return loaded.public_bytes(Encoding.DER)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MAX)
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}.") from error
