"""Names in certificates: which attributes and alternative names exist, and what text they may hold.

The ``…_problem`` functions give a sentence or None, so that policy can refuse and builders raise.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat import asn1

from shared.kernel.errors import BadRequestError
from shared.pki import oids
from shared.pki.plan import AltName, AltNameKind, NameAttribute


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The characters that the DER string type of an attribute can hold."""

    form: re.Pattern[str]
    description: str


_PRINTABLE = Alphabet(  # PrintableString, X.680 §41.4
    re.compile(r"[A-Za-z0-9 '()+,\-./:=?]+"), "letters, digits, space and '()+,-./:=?"
)
_COUNTRY = Alphabet(re.compile(r"[A-Z]{2}"), "a country code of two capital letters")
_IA5 = Alphabet(re.compile(r"[ -~]+"), "ASCII characters")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}")
_URI = re.compile(r"(?=.{1,2048}\Z)[A-Za-z][A-Za-z0-9+.\-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@(?:{_LABEL}\.)+{_LABEL}")
#: A dotted OID; its size is bounded so that every decoder of X.509 can hold it.
OID_PATTERN = r"(?:[01]\.[1-3]?[0-9]|2\.(?:0|[1-9][0-9]{0,7}))(?:\.(?:0|[1-9][0-9]{0,7})){0,12}"
_HARDWARE = re.compile(rf"{OID_PATTERN}:[!-~]{{1,64}}")

_ALT_NAME_FORMS = {
    AltNameKind.DNS: (_DNS, "a host name of letters, digits and hyphens"),
    AltNameKind.URI: (_URI, "an absolute URI in ASCII"),
    AltNameKind.EMAIL: (_EMAIL, "an e-mail address"),
    AltNameKind.HARDWARE_MODULE: (_HARDWARE, "a type OID, a colon and a serial number in ASCII"),
}


@dataclass(frozen=True, slots=True)
class AttributeType:
    """A subject attribute: its name in profiles, OID, most bytes in UTF-8 and alphabet.

    cryptography encodes each in the string type of RFC 5280 appendix A.1. The upper bounds are
    from there too, but count bytes as cryptography does. No alphabet stands for UTF8String.
    """

    name: str
    oid: x509.ObjectIdentifier
    bytes_max: int
    alphabet: Alphabet | None = None


_TYPES = (
    AttributeType("common_name", x509.NameOID.COMMON_NAME, 64),
    AttributeType("serial_number", x509.NameOID.SERIAL_NUMBER, 64, _PRINTABLE),
    AttributeType("country_name", x509.NameOID.COUNTRY_NAME, 2, _COUNTRY),
    AttributeType("state_name", x509.NameOID.STATE_OR_PROVINCE_NAME, 128),
    AttributeType("locality_name", x509.NameOID.LOCALITY_NAME, 128),
    AttributeType("organization_name", x509.NameOID.ORGANIZATION_NAME, 64),
    AttributeType("organizational_unit_name", x509.NameOID.ORGANIZATIONAL_UNIT_NAME, 64),
    AttributeType("domain_component", x509.NameOID.DOMAIN_COMPONENT, 63, _IA5),
    AttributeType("dn_qualifier", x509.NameOID.DN_QUALIFIER, 64, _PRINTABLE),
    AttributeType("pseudonym", x509.NameOID.PSEUDONYM, 128),
    AttributeType("email_address", x509.NameOID.EMAIL_ADDRESS, 255, _IA5),
)
BY_NAME = {kind.name: kind for kind in _TYPES}
BY_OID = {kind.oid.dotted_string: kind for kind in _TYPES}
COMMON_NAME = x509.NameOID.COMMON_NAME.dotted_string
SERIAL_NUMBER = x509.NameOID.SERIAL_NUMBER.dotted_string


@asn1.sequence
class HardwareModuleName:
    """HardwareModuleName of RFC 4108 §5."""

    hardware_type: x509.ObjectIdentifier
    hardware_serial: bytes


def text_problem(value: str, chars_max: int) -> str | None:
    """Say why this is no text that people can read and compare; None if it is.

    Refused are NUL and other controls, line breaks, bidirectional and other format characters,
    lone surrogates and unassigned code points, and white space at either end.
    """
    if not value:
        return "must not be empty"
    if len(value) > chars_max:
        return f"has {len(value)} characters; at most {chars_max} are allowed"
    if not value.isprintable():
        return "holds a control, formatting or unassigned character"
    if value[0] == " " or value[-1] == " ":
        return "begins or ends with a space"
    return None


def attribute_problem(kind: AttributeType, value: str) -> str | None:
    """Say why the text does not fit this attribute; None if it does."""
    if problem := text_problem(value, kind.bytes_max):
        return problem
    if len(value.encode()) > kind.bytes_max:
        return f"has more than {kind.bytes_max} bytes in UTF-8"
    if kind.alphabet and not kind.alphabet.form.fullmatch(value):
        return f"may hold only {kind.alphabet.description}"
    return None


def alt_name_problem(alt_name: AltName) -> str | None:
    """Say why the text does not fit its kind of alternative name; None if it does."""
    if alt_name.kind is AltNameKind.IP:
        return None if _is_ip(alt_name.value) else "is not an IPv4 or IPv6 address"
    form, description = _ALT_NAME_FORMS[alt_name.kind]
    return None if form.fullmatch(alt_name.value) else f"is not {description}"


def host_name(value: str) -> AltName:
    """Name a host as what it is: an IP address if it is one, else a DNS name."""
    return AltName(AltNameKind.IP if _is_ip(value) else AltNameKind.DNS, value)


def encode_name(attributes: tuple[NameAttribute, ...]) -> x509.Name:
    """Build the distinguished name, one attribute per RDN, in the DER string type of each.

    Raises BadRequestError for an unknown attribute or text that does not fit.
    """
    return x509.Name([_encode_attribute(attribute) for attribute in attributes])


def decode_name(name: x509.Name) -> tuple[NameAttribute, ...]:
    """Read a distinguished name as it stands; policy judges attributes and text.

    Raises BadRequestError for an attribute whose value is not text.
    """
    return tuple(
        NameAttribute(attribute.oid.dotted_string, _text(attribute.value)) for attribute in name
    )


def encode_alt_name(alt_name: AltName) -> x509.GeneralName:
    """Build the general name; raises BadRequestError when the text does not fit its kind."""
    if problem := alt_name_problem(alt_name):
        raise BadRequestError(f"The alternative name {alt_name.value!r} {problem}.")
    match alt_name.kind:
        case AltNameKind.DNS:
            return x509.DNSName(alt_name.value)
        case AltNameKind.IP:
            return x509.IPAddress(ip_address(alt_name.value))
        case AltNameKind.URI:
            return x509.UniformResourceIdentifier(alt_name.value)
        case AltNameKind.EMAIL:
            return x509.RFC822Name(alt_name.value)
        case AltNameKind.HARDWARE_MODULE:
            return _encode_hardware_module(alt_name.value)


def decode_alt_name(general_name: x509.GeneralName) -> AltName:
    """Read a general name; raises BadRequestError for a kind that is never certified."""
    match general_name:
        case x509.DNSName(value=str(value)):
            return AltName(AltNameKind.DNS, value)
        case x509.IPAddress(value=IPv4Address() | IPv6Address() as address):
            return AltName(AltNameKind.IP, str(address))
        case x509.UniformResourceIdentifier(value=str(value)):
            return AltName(AltNameKind.URI, value)
        case x509.RFC822Name(value=str(value)):
            return AltName(AltNameKind.EMAIL, value)
        case x509.OtherName(type_id=oids.HARDWARE_MODULE_NAME, value=bytes(value)):
            return AltName(AltNameKind.HARDWARE_MODULE, _decode_hardware_module(value))
        case _:
            raise BadRequestError(
                f"Alternative names of kind {type(general_name).__name__} are not supported; "
                "use DNS, IP, URI, e-mail or hardwareModuleName."
            )


def _encode_attribute(attribute: NameAttribute) -> x509.NameAttribute[str]:
    kind = BY_OID.get(attribute.oid)
    if kind is None:
        raise BadRequestError(f"The subject attribute {attribute.oid} is not supported.")
    if problem := attribute_problem(kind, attribute.value):
        raise BadRequestError(f"The subject's {kind.name} {problem}.")
    return x509.NameAttribute(kind.oid, attribute.value)


def _text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        raise BadRequestError("The subject holds an attribute that is not text.")
    return value


def _is_ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return "%" not in value  # an IPv6 scope means something on one machine only


def _encode_hardware_module(value: str) -> x509.OtherName:
    hardware_type, _, serial = value.partition(":")
    module = HardwareModuleName(
        hardware_type=x509.ObjectIdentifier(hardware_type),
        hardware_serial=serial.encode("ascii"),
    )
    return x509.OtherName(oids.HARDWARE_MODULE_NAME, asn1.encode_der(module))


def _decode_hardware_module(value: bytes) -> str:
    try:
        module = asn1.decode_der(HardwareModuleName, value)
        return f"{module.hardware_type.dotted_string}:{module.hardware_serial.decode('ascii')}"
    except ValueError as error:
        raise BadRequestError("The hardwareModuleName is malformed.") from error
