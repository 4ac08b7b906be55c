"""Extensions beyond those that every certificate has, each encoded as ``Plan.extensions`` wants it.

Pure: text in, (dotted OID, critical, DER) out. What does not fit raises ValueError with a reason.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_network

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtensionOID

from shared.pki import names, signed
from shared.pki.signed import tlv

#: (dotted OID, critical, DER value)
Encoded = tuple[str, bool, bytes]

#: szOID_ENROLL_CERTTYPE: the name of a Windows certificate template (MS-WCCE §2.2.2.7.7.1).
MICROSOFT_NAME = "1.3.6.1.4.1.311.20.2"
MICROSOFT_TEMPLATE = ExtensionOID.MS_CERTIFICATE_TEMPLATE.dotted_string
#: Arcs whose extensions have a field of their own; a private extension never speaks for them.
RESERVED_ARCS = ("2.5.29.", "1.3.6.1.5.5.7.1.", "1.3.6.1.5.5.7.48.1.")
_BMP_STRING, _UTF8_STRING, _IA5_STRING, _BOOLEAN = 0x1E, 0x0C, 0x16, 0x01
_INTEGER_DIGITS_MAX = 80


class ValueType(StrEnum):
    """The ASN.1 type of a private extension's value, which is given as text."""

    UTF8 = "utf8"
    IA5 = "ia5"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    OID = "oid"
    OCTETS = "octets"  # in hex


def certificate_policies(
    policies: Sequence[tuple[str, Sequence[str], str | None]], *, critical: bool
) -> Encoded:
    """Encode policies as (OID, CPS addresses, user notice); RFC 5280 §4.2.1.4."""
    information = [
        x509.PolicyInformation(
            x509.ObjectIdentifier(oid),
            [*cps, *([x509.UserNotice(None, notice)] if notice else [])] or None,
        )
        for oid, cps, notice in policies
    ]
    return _encoded(x509.CertificatePolicies(information), critical)


def name_constraints(
    permitted: Sequence[tuple[str, str]], excluded: Sequence[tuple[str, str]], *, critical: bool
) -> Encoded:
    """Encode subtrees as (dns | email | uri | ip, value); RFC 5280 §4.2.1.10."""
    inside, outside = (
        [_subtree(*subtree) for subtree in subtrees] or None for subtrees in (permitted, excluded)
    )
    return _encoded(x509.NameConstraints(inside, outside), critical)


def tls_feature(features: Sequence[str], *, critical: bool) -> Encoded:
    """Encode TLS features by name, ``status_request`` being must-staple; RFC 7633."""
    known = {feature.name: feature for feature in x509.TLSFeatureType}
    return _encoded(x509.TLSFeature([known[feature] for feature in features]), critical)


def microsoft_name(name: str) -> Encoded:
    """Encode the name of a Windows template (version 1)."""
    return MICROSOFT_NAME, False, tlv(_BMP_STRING, name.encode("utf-16-be"))


def microsoft_template(oid: str, major: int | None, minor: int | None) -> Encoded:
    """Encode OID and version of a Windows template (version 2)."""
    template = x509.MSCertificateTemplate(x509.ObjectIdentifier(oid), major, minor)
    return _encoded(template, critical=False)


def policy_mappings(mappings: Sequence[tuple[str, str]], *, critical: bool) -> Encoded:
    """Encode pairs of issuer's and subject's policy OID; RFC 5280 §4.2.1.5."""
    pairs = [
        tlv(signed.SEQUENCE, b"".join(asn1.encode_der(x509.ObjectIdentifier(oid)) for oid in pair))
        for pair in mappings
    ]
    value = tlv(signed.SEQUENCE, b"".join(pairs))
    return ExtensionOID.POLICY_MAPPINGS.dotted_string, critical, value


def policy_constraints(
    require_explicit: int | None, inhibit_mapping: int | None, *, critical: bool
) -> Encoded:
    """Encode after how many CAs policies must be named or mapping ends; RFC 5280 §4.2.1.11."""
    return _encoded(x509.PolicyConstraints(require_explicit, inhibit_mapping), critical)


def inhibit_any_policy(skip: int, *, critical: bool) -> Encoded:
    """Encode after how many CAs anyPolicy ends; RFC 5280 §4.2.1.14."""
    return _encoded(x509.InhibitAnyPolicy(skip), critical)


def private(oid: str, value_type: ValueType, text: str, *, critical: bool) -> Encoded:
    """Encode a value that is given as text under an OID of one's own."""
    return oid, critical, _ENCODERS[value_type](text)


def is_der(data: bytes) -> bool:
    """Tell if the bytes are exactly one DER value with a single-byte tag."""
    try:
        value = asn1.decode_der(asn1.TLV, data)
    except ValueError:
        return False
    return asn1.encode_der(value) == data


def _ia5(text: str) -> bytes:
    if not text.isascii():
        raise ValueError("holds characters beyond ASCII")
    return tlv(_IA5_STRING, text.encode("ascii"))


def _integer(text: str) -> bytes:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _INTEGER_DIGITS_MAX):
        raise ValueError(f"is no integer of at most {_INTEGER_DIGITS_MAX} digits")
    number = int(text)
    octets = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return tlv(signed.INTEGER, number.to_bytes(octets, "big", signed=True))


def _boolean(text: str) -> bytes:
    if text not in {"true", "false"}:
        raise ValueError("is neither true nor false")
    return tlv(_BOOLEAN, b"\xff" if text == "true" else b"\x00")


def _oid(text: str) -> bytes:
    if not re.fullmatch(names.OID_PATTERN, text):
        raise ValueError("is no object identifier")
    return asn1.encode_der(x509.ObjectIdentifier(text))


def _octets(text: str) -> bytes:
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", text):
        raise ValueError("is no hex")
    return tlv(signed.OCTET_STRING, bytes.fromhex(text))


_ENCODERS: Mapping[ValueType, Callable[[str], bytes]] = {
    ValueType.UTF8: lambda text: tlv(_UTF8_STRING, text.encode()),
    ValueType.IA5: _ia5,
    ValueType.INTEGER: _integer,
    ValueType.BOOLEAN: _boolean,
    ValueType.OID: _oid,
    ValueType.OCTETS: _octets,
}


def _subtree(kind: str, value: str) -> x509.GeneralName:
    match kind:
        case "dns":
            return x509.DNSName(value)
        case "email":
            return x509.RFC822Name(value)
        case "uri":
            return x509.UniformResourceIdentifier(value)
        case "ip":
            return x509.IPAddress(ip_network(value))
        case _:
            raise ValueError(f"knows no subtrees of kind {kind}")


def _encoded(extension: x509.ExtensionType, critical: bool) -> Encoded:
    return extension.oid.dotted_string, critical, extension.public_bytes()
