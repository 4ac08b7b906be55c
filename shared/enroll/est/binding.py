"""Proof that the key of a request and the TLS client are one (RFC 7030 §3.5)."""

import binascii
import hmac
from base64 import b64decode
from ssl import SSLObject

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import AttributeOID

from shared.kernel.errors import BadRequestError


def require(request: web.Request, csr: bytes) -> None:
    """Check that the challengePassword of the request (DER) is this connection's ``tls-unique``.

    Raises BadRequestError. TLS 1.3 has no ``tls-unique``; its successor ``tls-exporter``
    (RFC 9266) needs a function that Python's ssl does not have.
    """
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    unique = tls.get_channel_binding("tls-unique") if isinstance(tls, SSLObject) else None
    if not isinstance(tls, SSLObject) or tls.version() != "TLSv1.2" or not unique:
        raise BadRequestError(
            "This alias demands the proof tls-unique, which exists in TLS 1.2 only.",
            remedy="Connect with TLS 1.2 (curl: --tls-max 1.2), or have the alias changed.",
        )
    sent = challenge(csr)
    if sent is None or not hmac.compare_digest(sent, unique):
        raise BadRequestError(
            "The request's challengePassword is not the tls-unique value of this connection.",
            remedy="Put the base64 of tls-unique into the attribute challengePassword.",
        )


def challenge(csr: bytes) -> bytes | None:
    """Give the decoded challengePassword of a request in DER, if it holds base64."""
    try:
        attribute = x509.load_der_x509_csr(csr).attributes.get_attribute_for_oid(
            AttributeOID.CHALLENGE_PASSWORD
        )
        return b64decode(attribute.value, validate=True)
    except (x509.AttributeNotFound, binascii.Error, ValueError):
        return None
