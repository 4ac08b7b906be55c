"""Alternative names of the kind otherName (RFC 5280 §4.2.1.6): text to DER and back.

Each has a text form, given at ``plan.AltNameKind``; ``problem`` says why a text does not fit.
"""

import re

from cryptography import x509
from cryptography.hazmat import asn1

from shared.kernel.errors import BadRequestError
from shared.pki import oids
from shared.pki.plan import AltName, AltNameKind

#: A dotted OID; its size is bounded so that every decoder of X.509 can hold it.
OID_PATTERN = r"(?:[01]\.[1-3]?[0-9]|2\.(?:0|[1-9][0-9]{0,7}))(?:\.(?:0|[1-9][0-9]{0,7})){0,12}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_LABEL}\.)*{_LABEL}"
#: Text that people can read; ``str.isprintable`` is asked besides.
_TEXT = r"[^\x00-\x1f]"
_FORMS = {
    AltNameKind.HARDWARE_MODULE: (
        re.compile(rf"{OID_PATTERN}:[!-~]{{1,64}}"),
        "a type OID, a colon and a serial number in ASCII",
    ),
    AltNameKind.UPN: (
        re.compile(rf"[^\s@]{{1,64}}@(?=.{{1,253}}\Z){_DOMAIN}"),
        "a user principal name like user@domain",
    ),
    AltNameKind.PERMANENT_IDENTIFIER: (
        re.compile(rf"(?:{OID_PATTERN})?:{_TEXT}{{1,128}}"),
        "an assigner's OID or nothing, a colon and a value",
    ),
    AltNameKind.SMTP_UTF8_MAILBOX: (
        re.compile(rf"(?=[^@]*[^\x00-\x7f])[^\s@]{{1,64}}@(?=.{{1,253}}\Z){_DOMAIN}"),
        "an e-mail address whose local part is not all ASCII",
    ),
    AltNameKind.OTHER: (
        re.compile(
            rf"{OID_PATTERN};(?:UTF8:{_TEXT}{{1,512}}|IA5:[ -~]{{1,512}}"
            r"|DER:(?:[0-9a-f]{2}){2,1024})"
        ),
        "an OID, a semicolon and UTF8:text, IA5:text or DER:hex",
    ),
}
KINDS = frozenset(_FORMS)
_BY_OID = {
    oids.HARDWARE_MODULE_NAME: AltNameKind.HARDWARE_MODULE,
    oids.USER_PRINCIPAL_NAME: AltNameKind.UPN,
    oids.PERMANENT_IDENTIFIER: AltNameKind.PERMANENT_IDENTIFIER,
    oids.SMTP_UTF8_MAILBOX: AltNameKind.SMTP_UTF8_MAILBOX,
}
_OIDS = {kind: oid for oid, kind in _BY_OID.items()}
_UTF8, _IA5, _DER = "UTF8:", "IA5:", "DER:"


@asn1.sequence
class HardwareModuleName:
    """HardwareModuleName of RFC 4108 §5."""

    hardware_type: x509.ObjectIdentifier
    hardware_serial: bytes


@asn1.sequence
class _PermanentIdentifier:
    """PermanentIdentifier of RFC 4043 §2."""

    value: str | None
    assigner: x509.ObjectIdentifier | None


def problem(alt_name: AltName) -> str | None:
    """Say why the text does not fit its kind; None if it does."""
    form, description = _FORMS[alt_name.kind]
    if not (alt_name.value.isprintable() and form.fullmatch(alt_name.value)):
        return f"is not {description}"
    if alt_name.kind is AltNameKind.OTHER:
        oid, _, value = alt_name.value.partition(";")
        if x509.ObjectIdentifier(oid) in _BY_OID:
            return f"has the OID of the kind {_BY_OID[x509.ObjectIdentifier(oid)].value}: use that"
        if value.startswith(_DER) and not _is_der(bytes.fromhex(value.removeprefix(_DER))):
            return "holds bytes that are not one value in DER"
    return None


def encode(alt_name: AltName) -> x509.OtherName:
    """Build the otherName of a text without ``problem``."""
    match alt_name.kind:
        case AltNameKind.HARDWARE_MODULE:
            hardware_type, _, serial = alt_name.value.partition(":")
            content = asn1.encode_der(
                HardwareModuleName(
                    hardware_type=x509.ObjectIdentifier(hardware_type),
                    hardware_serial=serial.encode("ascii"),
                )
            )
        case AltNameKind.PERMANENT_IDENTIFIER:
            assigner, _, value = alt_name.value.partition(":")
            identifier = _PermanentIdentifier(
                value=value, assigner=x509.ObjectIdentifier(assigner) if assigner else None
            )
            content = asn1.encode_der(identifier)
        case AltNameKind.OTHER:
            return _encode_any(alt_name.value)
        case _:
            content = asn1.encode_der(alt_name.value)
    return x509.OtherName(_OIDS[alt_name.kind], content)


def decode(name: x509.OtherName) -> AltName:
    """Read an otherName; raises BadRequestError when one of a known OID is malformed."""
    kind = _BY_OID.get(name.type_id)
    try:
        match kind:
            case None:
                return AltName(AltNameKind.OTHER, _decode_any(name))
            case AltNameKind.HARDWARE_MODULE:
                module = asn1.decode_der(HardwareModuleName, name.value)
                serial = module.hardware_serial.decode("ascii")
                return AltName(kind, f"{module.hardware_type.dotted_string}:{serial}")
            case AltNameKind.PERMANENT_IDENTIFIER:
                identifier = asn1.decode_der(_PermanentIdentifier, name.value)
                assigner = identifier.assigner.dotted_string if identifier.assigner else ""
                return AltName(kind, f"{assigner}:{identifier.value or ''}")
            case _:
                return AltName(kind, asn1.decode_der(str, name.value))
    except ValueError as error:
        what = kind.value if kind else name.type_id.dotted_string
        raise BadRequestError(f"The alternative name of kind {what} is malformed.") from error


def _encode_any(text: str) -> x509.OtherName:
    oid, _, value = text.partition(";")
    if value.startswith(_UTF8):
        content = asn1.encode_der(value.removeprefix(_UTF8))
    elif value.startswith(_IA5):
        content = asn1.encode_der(asn1.IA5String(value.removeprefix(_IA5)))
    else:
        content = bytes.fromhex(value.removeprefix(_DER))
    return x509.OtherName(x509.ObjectIdentifier(oid), content)


def _decode_any(name: x509.OtherName) -> str:
    """Show the value as text where it is one of the two string types, in hex else."""
    oid = name.type_id.dotted_string
    try:
        text = f"{oid};{_UTF8}{asn1.decode_der(str, name.value)}"
    except ValueError:
        try:
            text = f"{oid};{_IA5}{asn1.decode_der(asn1.IA5String, name.value).as_str()}"
        except ValueError:
            text = ""
    if text and problem(AltName(AltNameKind.OTHER, text)) is None:
        return text
    return f"{oid};{_DER}{name.value.hex()}"


def _is_der(value: bytes) -> bool:
    try:
        asn1.decode_der(asn1.TLV, value)
    except ValueError:
        return False
    return True
