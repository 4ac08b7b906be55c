"""OCSP as a relying party asks it, built without the product's code."""

import hashlib

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp


def ocsp_status(base: str, issuer: x509.Certificate, serial: str) -> str:
    """Give good, revoked or unknown, or why there is no answer, in capitals."""
    point = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = issuer.subject.public_bytes()
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        _sha256(name), _sha256(point), int(serial, 16), SHA256()
    )
    request = builder.build().public_bytes(Encoding.DER)
    answer = ocsp.load_der_ocsp_response(httpx.post(f"{base}/ocsp", content=request).content)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return answer.response_status.name
    return answer.certificate_status.name


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
