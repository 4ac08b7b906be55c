"""Names in certificates: which attributes and alternative names exist, and what text they may hold.

The ``…_problem`` functions give a sentence or None, so that policy can refuse and builders raise.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509

from shared.kernel.errors import BadRequestError
from shared.pki import other_names
from shared.pki.other_names import OID_PATTERN
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
_WILDCARD = re.compile(rf"(?=.{{1,253}}\Z)\*\.(?:{_LABEL}\.)+{_LABEL}")
_REGISTERED_ID = re.compile(OID_PATTERN)

_ALT_NAME_FORMS = {
    AltNameKind.DNS: (_DNS, "a host name of letters, digits and hyphens"),
    AltNameKind.DNS_WILDCARD: (_WILDCARD, "“*.” and a host name of two labels or more"),
    AltNameKind.URI: (_URI, "an absolute URI in ASCII"),
    AltNameKind.EMAIL: (_EMAIL, "an e-mail address"),
    AltNameKind.REGISTERED_ID: (_REGISTERED_ID, "a dotted OID"),
}
_DNS_KINDS = frozenset({AltNameKind.DNS, AltNameKind.DNS_WILDCARD})
_A_LABEL_PREFIX = "xn--"
_DIRECTORY_CHARS_MAX = 1024
_DIRECTORY_ATTRIBUTES_MAX = 16
_WILDCARD_PREFIX = "*."


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
    AttributeType("given_name", x509.NameOID.GIVEN_NAME, 64),
    AttributeType("surname", x509.NameOID.SURNAME, 64),
    AttributeType("initials", x509.NameOID.INITIALS, 64),
    AttributeType("generation_qualifier", x509.NameOID.GENERATION_QUALIFIER, 64),
    AttributeType("title", x509.NameOID.TITLE, 64),
    AttributeType("name", x509.ObjectIdentifier("2.5.4.41"), 128),
    AttributeType("description", x509.ObjectIdentifier("2.5.4.13"), 1024),
    AttributeType("street_address", x509.NameOID.STREET_ADDRESS, 128),
    AttributeType("postal_code", x509.NameOID.POSTAL_CODE, 40),
    AttributeType("business_category", x509.NameOID.BUSINESS_CATEGORY, 128),
    AttributeType("organization_identifier", x509.NameOID.ORGANIZATION_IDENTIFIER, 256),
    AttributeType("user_id", x509.NameOID.USER_ID, 256),
    AttributeType("unstructured_name", x509.NameOID.UNSTRUCTURED_NAME, 255),
    AttributeType("jurisdiction_country", x509.NameOID.JURISDICTION_COUNTRY_NAME, 2, _COUNTRY),
    AttributeType("jurisdiction_state", x509.NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME, 128),
    AttributeType("jurisdiction_locality", x509.NameOID.JURISDICTION_LOCALITY_NAME, 128),
)
BY_NAME = {kind.name: kind for kind in _TYPES}
BY_OID = {kind.oid.dotted_string: kind for kind in _TYPES}
COMMON_NAME = x509.NameOID.COMMON_NAME.dotted_string
SERIAL_NUMBER = x509.NameOID.SERIAL_NUMBER.dotted_string


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
    if alt_name.kind is AltNameKind.DIRECTORY:
        return _directory_problem(alt_name.value)
    if alt_name.kind in other_names.KINDS:
        return other_names.problem(alt_name)
    form, description = _ALT_NAME_FORMS[alt_name.kind]
    if not form.fullmatch(alt_name.value):
        return f"is not {description}"
    return _label_problem(alt_name.value) if alt_name.kind in _DNS_KINDS else None


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
    make = _MAKERS.get(alt_name.kind)
    return make(alt_name.value) if make else other_names.encode(alt_name)


def decode_alt_name(general_name: x509.GeneralName) -> AltName:
    """Read a general name; raises BadRequestError for a kind that is never certified.

    Those are x400Address and ediPartyName, which nothing uses.
    """
    match general_name:
        case x509.DNSName(value=str(value)):
            wildcard = value.startswith(_WILDCARD_PREFIX)
            return AltName(AltNameKind.DNS_WILDCARD if wildcard else AltNameKind.DNS, value)
        case x509.IPAddress(value=IPv4Address() | IPv6Address() as address):
            return AltName(AltNameKind.IP, str(address))
        case x509.UniformResourceIdentifier() | x509.RFC822Name():
            return AltName(_TEXT_KINDS[type(general_name)], general_name.value)
        case x509.DirectoryName(value=x509.Name() as name) if decode_name(name):
            return AltName(AltNameKind.DIRECTORY, name.rfc4514_string())
        case x509.RegisteredID(value=oid):
            return AltName(AltNameKind.REGISTERED_ID, oid.dotted_string)
        case x509.OtherName():
            return other_names.decode(general_name)
        case _:
            raise BadRequestError(
                f"Alternative names of kind {type(general_name).__name__} are not supported."
            )


_MAKERS: dict[AltNameKind, Callable[[str], x509.GeneralName]] = {
    AltNameKind.DNS: x509.DNSName,
    AltNameKind.DNS_WILDCARD: x509.DNSName,
    AltNameKind.IP: lambda value: x509.IPAddress(ip_address(value)),
    AltNameKind.URI: x509.UniformResourceIdentifier,
    AltNameKind.EMAIL: x509.RFC822Name,
    AltNameKind.DIRECTORY: lambda value: x509.DirectoryName(x509.Name.from_rfc4514_string(value)),
    AltNameKind.REGISTERED_ID: lambda value: x509.RegisteredID(x509.ObjectIdentifier(value)),
}
_TEXT_KINDS: dict[type[x509.GeneralName], AltNameKind] = {
    x509.UniformResourceIdentifier: AltNameKind.URI,
    x509.RFC822Name: AltNameKind.EMAIL,
}


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


def _label_problem(host: str) -> str | None:
    """Say which label only looks like an internationalised one (A-label, RFC 5890 §2.3.2.1)."""
    for label in host.split("."):
        if not label.lower().startswith(_A_LABEL_PREFIX):
            continue
        try:
            text = label[len(_A_LABEL_PREFIX) :].encode("ascii").decode("punycode")
        except UnicodeError:
            text = ""
        if text.isascii() or not text.isprintable():
            return f"holds the label {label}, which is no internationalised label"
    return None


def _directory_problem(value: str) -> str | None:
    """Say why this text is no distinguished name of attributes that are known here."""
    if problem := text_problem(value, _DIRECTORY_CHARS_MAX):
        return problem
    try:
        attributes = decode_name(x509.Name.from_rfc4514_string(value))
    except (ValueError, BadRequestError):
        return "is not a distinguished name like CN=device,O=plant"
    if not 0 < len(attributes) <= _DIRECTORY_ATTRIBUTES_MAX:
        return f"has more than {_DIRECTORY_ATTRIBUTES_MAX} attributes"
    for attribute in attributes:
        kind = BY_OID.get(attribute.oid)
        if kind is None:
            return f"holds the attribute {attribute.oid}, which is not supported"
        if problem := attribute_problem(kind, attribute.value):
            return f"holds a {kind.name} that {problem}"
    return None
