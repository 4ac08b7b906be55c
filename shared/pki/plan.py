"""The decided content of one certificate: what policy hands to the certificate builder.

It sits in ``pki`` so that this layer never imports policy.
"""

from dataclasses import dataclass
from enum import StrEnum

#: 99991231235959Z, "no well-defined expiration date" (RFC 5280 §4.1.2.5), in UTC µs.
NO_EXPIRY_US = 253_402_300_799_000_000


class AltNameKind(StrEnum):
    """Kinds of subject alternative name (RFC 5280 §4.2.1.6), each with its text form.

    A wildcard is a kind of its own, so that a profile allows it only by name.
    """

    DNS = "dns"
    IP = "ip"
    URI = "uri"
    EMAIL = "email"
    HARDWARE_MODULE = "hardware_module"  # RFC 4108 §5: "type-OID:serial", for IDevIDs
    DNS_WILDCARD = "dns_wildcard"  # RFC 9525 §6.3: "*." and a host name of two labels or more
    DIRECTORY = "directory"  # RFC 4514: "CN=x,O=y"; the most special attribute first
    REGISTERED_ID = "registered_id"  # a dotted OID
    UPN = "upn"  # Microsoft's user principal name: "user@domain"
    PERMANENT_IDENTIFIER = "permanent_identifier"  # RFC 4043: "assigner-OID:value", OID optional
    SMTP_UTF8_MAILBOX = "smtp_utf8_mailbox"  # RFC 9598: e-mail whose local part is not ASCII
    OTHER = "other"  # any otherName: "OID;UTF8:text", "OID;IA5:text" or "OID;DER:hex"


@dataclass(frozen=True, slots=True)
class NameAttribute:
    """One attribute of a distinguished name: dotted OID and text."""

    oid: str
    value: str


@dataclass(frozen=True, slots=True)
class AltName:
    """One subject alternative name in text form."""

    kind: AltNameKind
    value: str


class SubjectKey(StrEnum):
    """How a certificate names its own key (RFC 5280 §4.2.1.2)."""

    SHA256 = "sha256"  # 160 bits of it (RFC 7093 §2 method 1)
    SHA1 = "sha1"  # RFC 5280 §4.2.1.2 method 1, for devices that compute it themselves
    NONE = "none"


class AuthorityKey(StrEnum):
    """How a certificate names its issuer's key (RFC 5280 §4.2.1.1)."""

    KEY = "key"  # by its identifier
    KEY_AND_ISSUER = "key_and_issuer"  # also by issuer and serial number of its certificate


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where status and issuer are found; of each, None: at the issuer's addresses, (): not said.

    ``{ca_id}`` in an address of ``crl_urls``, ``ocsp_urls`` (OCSP responders) and ``ca_urls`` (CA
    certificate) stands for the issuer's.
    """

    crl_urls: tuple[str, ...] | None = None
    ocsp_urls: tuple[str, ...] | None = None
    ca_urls: tuple[str, ...] | None = None


#: Those of a certificate whose status nobody is to ask for.
NO_POINTERS = Pointers(crl_urls=(), ocsp_urls=(), ca_urls=())


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a certificate will say, except its issuer and serial number.

    Times are UTC µs and fall on whole seconds. ``public_key`` is a DER SubjectPublicKeyInfo.
    ``key_usage`` holds RFC 5280 bit names in snake case, ``extended_key_usage`` dotted OIDs,
    ``extensions`` further ones as (dotted OID, critical, DER value).
    """

    profile: str
    profile_version: int
    purpose: str
    subject: tuple[NameAttribute, ...]
    alt_names: tuple[AltName, ...]
    public_key: bytes
    not_before_us: int
    not_after_us: int
    key_usage: tuple[str, ...]
    extended_key_usage: tuple[str, ...]
    extensions: tuple[tuple[str, bool, bytes], ...] = ()
    ca_path_length: int | None = None  # None: an end entity (CA:FALSE)
    no_check: bool = False  # id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1)
    pointers: Pointers = Pointers()
    subject_key: SubjectKey = SubjectKey.SHA256
    authority_key: AuthorityKey = AuthorityKey.KEY
