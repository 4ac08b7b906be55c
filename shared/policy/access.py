"""Who may enroll, by which address and for what: one document, ordered by central, held offline.

An *alias* is one protocol endpoint: its name is the EST label. A *requester* is somebody without a
station token who may ask. A *manufacturer* is a trust store of device CAs (IEEE 802.1AR). What is
not named here is refused.
"""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from cryptography import x509
from pydantic import AfterValidator, Field, model_validator

from shared.kernel import limits
from shared.policy.document import Document
from shared.policy.profile import Profile, Slug

#: Stands for all aliases, profiles or gateways where names are listed.
ALL = "*"
_DER_BYTES_MAX = 16 * 1024
_CRL_BYTES_MAX = 64 * 1024
_DIGIT, _ONE, _ANY = "#", "?", "*"


class Evidence(StrEnum):
    """How somebody may prove who he is at an alias."""

    TOKEN = "token"  # noqa: S105  # a station's token, or the certificate that it is bound to
    CERTIFICATE = "certificate"  # a client certificate that a requester names
    PASSWORD = "password"  # noqa: S105  # name and password of a requester
    CODE = "code"  # a device's serial number and its one-time code
    MANUFACTURER = "manufacturer"  # a device certificate of a manufacturer's CA (IDevID)
    WEBHOOK = "webhook"  # name and password that another system judges


class Wrapping(StrEnum):
    """Line breaks in base64 answers of EST."""

    AUTO = "auto"  # one line, but lines of 64 for clients that need them (libest)
    ALWAYS = "always"
    NEVER = "never"


def _crl(der: bytes) -> bytes:
    try:
        x509.load_der_x509_crl(der)
    except ValueError as error:
        raise ValueError("must be a CRL in DER") from error
    return der


def _authority(der: bytes) -> bytes:
    try:
        certificate = x509.load_der_x509_certificate(der)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ValueError("must be the certificate of a CA in DER") from error
    if not basic.ca:
        raise ValueError("must be the certificate of a CA")
    return der


Listed = Annotated[str, Field(pattern=r"^(?:\*|[a-z0-9_][a-z0-9._-]{0,63})$")]
RequesterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
Title = Annotated[str, Field(max_length=200)]
Days = Annotated[int, Field(ge=1, le=3650)]


class Alias(Document):
    """One enrollment address. ``serial_pattern`` holds text, ``#`` digit, ``?`` one, ``*`` any.

    ``renewal_window_days`` None: a certificate may be renewed at any time of its life.
    """

    name: Slug
    profile: Slug
    protocol: Literal["est"] = "est"
    title: Title = ""
    enabled: bool = True
    accepts: Annotated[tuple[Evidence, ...], Field(max_length=len(Evidence))] = (Evidence.TOKEN,)
    manufacturers: Annotated[tuple[Slug, ...], Field(max_length=32)] = ()
    serial_pattern: Annotated[str, Field(min_length=1, max_length=64)] = _ANY
    known_devices_only: bool = False
    server_keys: bool = False
    renewal: bool = True
    renewal_window_days: Days | None = None
    change_subject: bool = False
    channel_binding: bool = False
    wrapping: Wrapping = Wrapping.AUTO

    @classmethod
    def of_profile(cls, profile: Profile) -> Self:
        """Give the alias that each profile has without anybody naming it: for stations only."""
        return cls(name=profile.name, profile=profile.name, title=profile.title, server_keys=True)

    @model_validator(mode="after")
    def _names_its_manufacturers(self) -> Self:
        if (Evidence.MANUFACTURER in self.accepts) != bool(self.manufacturers):
            raise ValueError("manufacturers and their acceptance stand together")
        return self

    def fits(self, serial: str) -> bool:
        """Tell if a device's serial number is one of this alias's."""
        return _fits(self.serial_pattern, serial)


class Requester(Document):
    """Somebody who may ask at the named aliases, for the named profiles, at the named gateways.

    ``gateways`` may name ``_central``. ``expires_at_us`` is UTC µs. A webhook's ``secret`` is
    sealed to the box that the document is for (``shared.pki.sealing``).
    """

    name: RequesterName
    kind: Literal["password", "certificate", "webhook"]
    aliases: Annotated[tuple[Listed, ...], Field(min_length=1, max_length=64)]
    profiles: Annotated[tuple[Listed, ...], Field(min_length=1, max_length=64)] = (ALL,)
    gateways: Annotated[tuple[Listed, ...], Field(min_length=1, max_length=500)] = (ALL,)
    expires_at_us: Annotated[int, Field(ge=0)] | None = None
    password_hash: Annotated[str, Field(pattern=r"^\$argon2id\$", max_length=256)] | None = None
    certificate_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    url: Annotated[str, Field(pattern=r"^https?://[!-~]{1,500}$")] | None = None
    secret: Annotated[bytes, Field(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _holds_what_its_kind_needs(self) -> Self:
        needed = {
            "password": (self.password_hash,),
            "certificate": (self.certificate_sha256,),
            "webhook": (self.url, self.secret),
        }
        given = {kind for kind, values in needed.items() if any(values)}
        if given != {self.kind} or not all(needed[self.kind]):
            raise ValueError(f"a requester of kind {self.kind} holds exactly what this kind needs")
        return self

    def may_use(self, alias: Alias, now_us: int) -> bool:
        """Tell if this alias, for its profile, is the requester's at this time."""
        return (
            bool({alias.name, ALL} & set(self.aliases))
            and bool({alias.profile, ALL} & set(self.profiles))
            and (self.expires_at_us is None or now_us < self.expires_at_us)
        )


class Manufacturer(Document):
    """CAs whose device certificates are believed, with their CRLs if there are any (all DER)."""

    name: Slug
    title: Title = ""
    certificates: Annotated[
        tuple[Annotated[bytes, Field(max_length=_DER_BYTES_MAX), AfterValidator(_authority)], ...],
        Field(min_length=1, max_length=16),
    ]
    crls: Annotated[
        tuple[Annotated[bytes, Field(max_length=_CRL_BYTES_MAX), AfterValidator(_crl)], ...],
        Field(max_length=16),
    ] = ()


class Access(Document):
    """Everything about who may enroll at one box."""

    version: Annotated[int, Field(ge=0)] = 0
    aliases: Annotated[tuple[Alias, ...], Field(max_length=limits.ALIASES_MAX)] = ()
    requesters: Annotated[tuple[Requester, ...], Field(max_length=limits.REQUESTERS_MAX)] = ()
    manufacturers: Annotated[tuple[Manufacturer, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for field in ("aliases", "requesters", "manufacturers"):
            given = [one.name for one in getattr(self, field)]
            if len(set(given)) != len(given):
                raise ValueError(f"{field} holds a name twice")
        return self

    @cached_property
    def by_alias(self) -> dict[str, Alias]:
        """The aliases by name."""
        return {one.name: one for one in self.aliases}

    @cached_property
    def by_requester(self) -> dict[str, Requester]:
        """The requesters by name."""
        return {one.name: one for one in self.requesters}

    @cached_property
    def by_certificate(self) -> dict[str, Requester]:
        """The requesters by the hex SHA-256 of their certificate."""
        return {one.certificate_sha256: one for one in self.requesters if one.certificate_sha256}

    @cached_property
    def by_manufacturer(self) -> dict[str, Manufacturer]:
        """The manufacturers by name."""
        return {one.name: one for one in self.manufacturers}


def _fits(pattern: str, text: str) -> bool:
    """Match greedily with one way back, so that no pattern takes longer than |pattern| x |text|."""
    at = position = 0
    star = mark = -1
    while position < len(text):
        if at < len(pattern) and pattern[at] == _ANY:
            star, mark, at = at, position, at + 1
        elif at < len(pattern) and _is(pattern[at], text[position]):
            at, position = at + 1, position + 1
        elif star >= 0:
            mark += 1
            at, position = star + 1, mark
        else:
            return False
    return not pattern[at:].strip(_ANY)


def _is(wanted: str, character: str) -> bool:
    if wanted == _DIGIT:
        return character.isascii() and character.isdigit()
    return wanted in {_ONE, character}
