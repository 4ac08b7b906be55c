"""By which words a certificate is found, besides the columns of its row. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cryptography import x509

from shared.kernel.clock import datetime_of, utc_us_of
from shared.kernel.errors import BadRequestError
from shared.pki import keys, names
from shared.pki.plan import AltNameKind

#: Longer values are found by their beginning: an index entry must stay small.
VALUE_CHARS_MAX = 256
META = "meta."
EXPIRES, ISSUED = "expires", "issued"
#: Names of terms that are neither of the subject nor alternative names, with what they mean.
OWN_NAMES: Mapping[str, str] = {
    "key": "key identifier (SHA-1 of the public key, hex)",
    "key_type": "type of the key, as in profiles: ec-p256, rsa-2048",
    "requester": "who asked: station:line-7, user:ann",
    "alias": "alias of the enrollment",
    "protocol": "rest, est",
    EXPIRES: "last day of validity: expires<2027-01-01",
    ISSUED: "day of issue: issued>2026-11-01",
}
#: What people write for the names of the subject's attributes.
SHORT: Mapping[str, str] = {
    "cn": "common_name",
    "sn": "serial_number",
    "c": "country_name",
    "st": "state_name",
    "l": "locality_name",
    "o": "organization_name",
    "ou": "organizational_unit_name",
    "dc": "domain_component",
}
_ALTERNATIVE = {kind.value for kind in AltNameKind} - {AltNameKind.DNS_WILDCARD.value}
NAMES = frozenset({*names.BY_NAME, *_ALTERNATIVE, *OWN_NAMES})


class Found(NamedTuple):
    """What the row of a certificate says of it, beside its DER."""

    principal: str | None
    alias: str | None
    protocol: str | None
    issued_at_us: int
    metadata: Mapping[str, str]


def day(utc_us: int) -> str:
    """Write a day so that its text sorts by time."""
    return f"{datetime_of(utc_us):%Y-%m-%d}"


def folded(value: str) -> str:
    """Write a value as it is stored and looked for: case does not count."""
    return value.casefold()[:VALUE_CHARS_MAX]


def terms_of(der: bytes, found: Found) -> set[tuple[str, str]]:
    """Give the terms, name and value, of one certificate. What cannot be read is left out."""
    certificate = x509.load_der_x509_certificate(der)
    all_terms = [
        *_of_subject(certificate),
        *_of_alternative_names(certificate),
        *_of_key(certificate),
        (EXPIRES, day(utc_us_of(certificate.not_valid_after_utc))),
        (ISSUED, day(found.issued_at_us)),
        ("requester", found.principal),
        ("alias", found.alias),
        ("protocol", found.protocol),
        *((f"{META}{name}", value) for name, value in found.metadata.items()),
    ]
    return {(name.casefold(), folded(value)) for name, value in all_terms if value}


def _of_subject(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    for attribute in certificate.subject:
        kind = names.BY_OID.get(attribute.oid.dotted_string)
        if kind is not None and isinstance(attribute.value, str):
            yield kind.name, attribute.value


def _of_alternative_names(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return
    for general_name in extension.value:
        try:
            name = names.decode_alt_name(general_name)
        except BadRequestError:
            continue
        wildcard = name.kind is AltNameKind.DNS_WILDCARD
        yield (AltNameKind.DNS if wildcard else name.kind).value, name.value


def _of_key(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    spki = keys.spki_of(certificate)
    if spki is not None:
        yield "key", keys.key_identifier(spki).hex()
        kind = keys.key_type(spki)
        if kind is not None:
            yield "key_type", kind.value
