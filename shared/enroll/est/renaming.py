"""The attribute ChangeSubjectName of a certification request (RFC 6402 §2.8)."""

from ipaddress import ip_address
from typing import Any

from asn1crypto import core
from asn1crypto import x509 as asn1
from cryptography import x509

from shared.kernel.errors import BadRequestError
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.pki.signed import SEQUENCE, tlv

_CHANGE_SUBJECT_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
_KINDS = {
    "dns_name": AltNameKind.DNS,
    "ip_address": AltNameKind.IP,
    "uniform_resource_identifier": AltNameKind.URI,
    "rfc822_name": AltNameKind.EMAIL,
}


class _ChangeSubjectName(core.Sequence):
    _fields = [  # noqa: RUF012  # asn1crypto's own form
        ("subject", asn1.Name, {"optional": True}),
        ("subject_alt", asn1.GeneralNames, {"optional": True, "implicit": 1}),
    ]


def change_subject_name(
    csr: bytes,
) -> tuple[tuple[NameAttribute, ...], tuple[AltName, ...] | None] | None:
    """Give the new subject (empty: as it was) and alternative names (None: as they were).

    None: the request (DER) does not hold the attribute. Raises BadRequestError.
    """
    try:
        attribute = x509.load_der_x509_csr(csr).attributes.get_attribute_for_oid(
            _CHANGE_SUBJECT_NAME
        )
    except x509.AttributeNotFound:
        return None
    load: Any = _ChangeSubjectName.load  # pyright: ignore[reportUnknownVariableType]  # untyped
    try:
        wanted: dict[str, Any] = load(tlv(SEQUENCE, attribute.value), strict=True)
        return _subject(wanted["subject"]), _alt_names(wanted["subject_alt"])
    except (TypeError, ValueError, KeyError) as error:
        raise BadRequestError("The attribute ChangeSubjectName is malformed.") from error


def _subject(name: Any) -> tuple[NameAttribute, ...]:
    if name.native is None:
        return ()
    parts: list[Any] = [part for rdn in name.chosen for part in rdn]
    return tuple(NameAttribute(part["type"].dotted, str(part["value"].native)) for part in parts)


def _alt_names(general_names: Any) -> tuple[AltName, ...] | None:
    return None if general_names.native is None else tuple(map(_alt_name, list(general_names)))


def _alt_name(general: Any) -> AltName:
    kind = _KINDS.get(general.name)
    if kind is None:
        raise BadRequestError(f"Alternative names of kind {general.name} are not changed.")
    value = str(general.native)
    return AltName(kind, str(ip_address(value)) if kind is AltNameKind.IP else value)
