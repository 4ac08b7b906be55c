"""Certificates as REST shows them."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.enroll.rest.finding import certificate_id
from shared.enroll.rest.models import Format
from shared.enroll.rest.ports import AuthorityRow, CertificateRow
from shared.issuance.service import Issued
from shared.kernel.clock import datetime_of, utc_us_of
from shared.pki import formats
from shared.pki.keys import PrivateKey

BASE = "/api/v2.0"
_TEXT_FORM = "%Y-%m-%dT%H:%M:%SZ"


class Certified(NamedTuple):
    """A certificate on its way to its requester."""

    ca_id: str
    serial: str
    attributes: dict[str, Any]


def without_key(issued: Issued, chain: Sequence[bytes], packing: Format = Format.PEM) -> Certified:
    """Show a certificate whose key the requester holds; ``chain``: DER from its CA to the root."""
    certificate = x509.load_der_x509_certificate(issued.der)
    attributes = {
        "certificate": formats.pem([issued.der]),
        "chain": _chain_pem(tuple(chain)),
        "ca_id": issued.ca_id,
        "serial": issued.serial,
        "sha256": hashlib.sha256(issued.der).hexdigest(),
        "not_before": time_text(utc_us_of(certificate.not_valid_before_utc)),
        "not_after": time_text(utc_us_of(certificate.not_valid_after_utc)),
    }
    if packing is Format.DER:
        attributes["der"] = b64encode(issued.der).decode()
    elif packing is Format.PKCS7:
        packed = formats.pkcs7((issued.der, *chain))
        attributes["pkcs7"] = b64encode(packed).decode()
    return Certified(issued.ca_id, issued.serial, attributes)


def with_plain_key(
    issued: Issued, chain: Sequence[bytes], private_key: PrivateKey, packing: Format
) -> Certified:
    """Show a certificate with the key that the server made for it, as PKCS#8 in PEM."""
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certified = without_key(issued, chain, packing)
    return certified._replace(attributes=certified.attributes | {"private_key": pem.decode()})


def with_encrypted_key(
    issued: Issued,
    chain: Sequence[bytes],
    private_key: PrivateKey,
    packing: Format,
    password: bytes,
) -> Certified:
    """Show a certificate with its key under a password, as PKCS#12 or as PKCS#8 in PEM."""
    certified = without_key(issued, chain)
    if packing is Format.PKCS12:
        file = formats.pkcs12(private_key, issued.der, chain, password)
        packed = {"pkcs12": b64encode(file).decode()}
    else:
        packed = {"private_key": formats.pkcs8(private_key, password).decode()}
    return certified._replace(attributes=certified.attributes | packed)


def resource(certified: Certified, type_name: str) -> dict[str, Any]:
    """Wrap a certificate as a JSON:API document."""
    return _document(
        type_name, certificate_id(certified.ca_id, certified.serial), certified.attributes
    )


def row_resource(row: CertificateRow) -> dict[str, Any]:
    """Show a certificate of the ledger; the certificate itself is behind its link."""
    attributes = {
        "ca_id": row.ca_id,
        "serial": row.serial,
        "state": row.state,
        "status": row.status,
        "origin": row.origin,
        "cn": row.subject_cn,
        "device_id": row.device_id,
        "profile": row.profile,
        "principal": row.principal,
        "protocol": row.protocol,
        "test": row.test,
        "sha256": row.sha256,
        "not_before": time_text(row.not_before_us),
        "not_after": time_text(row.not_after_us),
        "issued_at": time_text(row.issued_at_us),
        "revoked_at": time_text(row.revoked_at_us),
        "reason": row.reason,
        "replaces": row.replaces.replace("/", "-") if row.replaces else None,
        "metadata": dict(row.metadata),
    }
    return _document("certificate", certificate_id(row.ca_id, row.serial), attributes)


def authority_resource(row: AuthorityRow) -> dict[str, Any]:
    """Show a CA."""
    attributes = {
        "name": row.name,
        "kind": row.kind,
        "state": row.state,
        "certificate": formats.pem([row.der]),
        "not_after": time_text(row.not_after_us),
    }
    return {"type": "ca", "id": row.ca_id, "attributes": attributes}


def time_text(utc_us: int | None) -> str | None:
    """Write a time in RFC 3339, UTC to the second."""
    return None if utc_us is None else datetime_of(utc_us).strftime(_TEXT_FORM)


def _document(type_name: str, identifier: str, attributes: dict[str, Any]) -> dict[str, Any]:
    data = {
        "type": type_name,
        "id": identifier,
        "attributes": attributes,
        "links": {"self": f"{BASE}/certificates/{identifier}"},
    }
    return {"data": data}


@lru_cache(maxsize=64)
def _chain_pem(chain: tuple[bytes, ...]) -> str:
    return formats.pem(chain)
