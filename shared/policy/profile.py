"""Profiles: what a certificate may contain. A (name, version) never changes its content."""

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.pki import names, plan
from shared.pki.extensions import Encoded
from shared.pki.keys import KeyType
from shared.pki.plan import NO_EXPIRY_US, AltNameKind, AuthorityKey, SubjectKey
from shared.policy import extensions
from shared.policy.conditions import Condition, MetadataKey, Slug
from shared.policy.document import Document
from shared.policy.extensions import Extension, Oid, Private, Uri
from shared.policy.patterns import Pattern
from shared.policy.templates import Template

_DAYS_MAX = 36_525  # a hundred years; what shall live longer has no expiry
_BACK_DATE_S_MAX = 7 * 24 * 3600


class TooLong(StrEnum):
    """What happens to a wish for more days than the profile or the issuer's end allow."""

    CLIP = "clip"
    REFUSE = "refuse"


class ClockInDoubt(StrEnum):
    """What happens while the time is not known (design.md §4, *Clock*)."""

    ISSUE = "issue"
    BACK_DATE = "back_date"  # valid from the issuer's own start
    HOLD = "hold"


class Duplicates(StrEnum):
    """What central does when a device has certificates of this profile at two gateways.

    In each case a question is written down with both sides; ``report`` leaves it to a person.
    """

    REPORT = "report"
    HOLD_BOTH = "hold_both"
    REVOKE_EARLIER = "revoke_earlier"


class Existing(StrEnum):
    """What happens when a device asks for a certificate and has a good one of this profile here.

    Renewals are none of its business: what they replace stays good until it ends.
    """

    ALLOW = "allow"
    REFUSE = "refuse"
    SUPERSEDE = "supersede"  # the earlier ones are revoked in the commit that releases the new one


class Mode(StrEnum):
    """Who signs (design.md §4). This version neither issues nor publishes ``stock``."""

    LOCAL = "local"  # the CA of the box that is asked
    FORWARD = "forward"  # central, when the request has reached it
    STOCK = "stock"  # central, ahead of time


class CsrHash(StrEnum):
    """With what a CSR's signature must hash at least."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


class UnheardSerials(StrEnum):
    """What central's OCSP says of serials that a trusted gateway has not reported yet."""

    GOOD = "good"
    UNKNOWN = "unknown"


def _known_attribute(name: str) -> str:
    if name not in names.BY_NAME:
        raise ValueError(f"must be one of {', '.join(names.BY_NAME)}")
    return name


Days = Annotated[int, Field(ge=1, le=_DAYS_MAX)]
KeyUsage = Literal[
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
]
_CA_USAGE = frozenset(("key_cert_sign", "crl_sign"))
_Patterns = Annotated[tuple[Pattern, ...], Field(max_length=16)]
_Templates = Annotated[tuple[Template, ...], Field(max_length=16)]


class ValueRule(Document):
    """What holds of the values of one subject attribute or one kind of alternative name.

    ``values`` are computed; with them nothing else may be asked for. ``defaults`` stand where
    nothing is asked for, as far as they can be computed. Each value must match one of
    ``allowed_patterns`` and none of ``forbidden_patterns``; each of ``required_patterns`` must be
    matched by a value.
    """

    required: bool = False
    values: _Templates = ()
    defaults: _Templates = ()
    required_patterns: _Patterns = ()
    allowed_patterns: _Patterns = ()
    forbidden_patterns: _Patterns = ()

    @cached_property
    def has_patterns(self) -> bool:
        """Whether any pattern is to be matched."""
        return bool(self.required_patterns or self.allowed_patterns or self.forbidden_patterns)

    @cached_property
    def is_silent(self) -> bool:
        """Whether it neither adds nor demands anything where nothing is asked for."""
        return not (self.required or self.values or self.defaults or self.required_patterns)


class SubjectRule(ValueRule):
    """One attribute that the subject may hold.

    With ``device_id`` it is filled from the device id and must equal it; with ``metadata_key`` it
    is filled from the request's metadata and must equal it.
    """

    attribute: Annotated[str, AfterValidator(_known_attribute)]
    count_max: Annotated[int, Field(ge=1, le=8)] = 1
    device_id: bool = False
    metadata_key: MetadataKey | None = None

    @cached_property
    def label(self) -> str:
        """Its name in verdicts."""
        return f"subject.{self.attribute}"

    @cached_property
    def is_silent(self) -> bool:
        """Whether it neither adds nor demands anything where nothing is asked for."""
        return super().is_silent and not self.device_id and self.metadata_key is None


class AltNameRule(ValueRule):
    """One kind of alternative name that the certificate may hold."""

    kind: AltNameKind
    count_max: Annotated[int, Field(ge=1, le=100)] = 10

    @cached_property
    def label(self) -> str:
        """Its name in verdicts."""
        return f"alt_names.{self.kind.value}"


class Validity(Document):
    """How long a certificate lives. Without days it has no expiry (99991231235959Z).

    ``not_after_us`` is a fixed end in UTC µs; nobody may ask for another, so it excludes days.
    """

    days_default: Days | None = None
    days_min: Days | None = None
    days_max: Days | None = None
    not_after_us: Annotated[int, Field(ge=0, lt=NO_EXPIRY_US)] | None = None
    back_date_s: Annotated[int, Field(ge=0, le=_BACK_DATE_S_MAX)] = 300
    too_long: TooLong = TooLong.CLIP
    clock_in_doubt: ClockInDoubt = ClockInDoubt.ISSUE

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.days_default is None) != (self.days_max is None):
            raise ValueError("days_default and days_max stand together")
        if self.days_default and self.days_max and self.days_default > self.days_max:
            raise ValueError("days_default must not exceed days_max")
        if self.days_min and self.days_min > (self.days_default or 0):
            raise ValueError("days_min must not exceed days_default")
        if self.not_after_us is not None and self.days_max is not None:
            raise ValueError("not_after_us excludes days")
        return self


def _filled_by_ca_id(url: str) -> str:
    if set("{}") & set(url.replace("{ca_id}", "")):
        raise ValueError("may hold {ca_id} and no other braces")
    return url


_Urls = Annotated[tuple[Annotated[Uri, AfterValidator(_filled_by_ca_id)], ...], Field(max_length=8)]


class Pointers(Document):
    """Where certificates say that status and issuer are found (RFC 5280 §4.2.1.13, §4.2.2.1).

    Of each, null means the issuing CA's own addresses and an empty list none at all. ``{ca_id}`` in
    an address stands for the issuing CA's. At ``crl_urls`` its complete CRL is to be found.
    """

    crl_urls: _Urls | None = None
    ocsp_urls: _Urls | None = None
    ca_urls: _Urls | None = None

    @cached_property
    def planned(self) -> plan.Pointers:
        """The same as a part of a plan."""
        return plan.Pointers(self.crl_urls, self.ocsp_urls, self.ca_urls)


class Profile(Document):
    """What a certificate may contain and how it is issued; the document is the identity."""

    name: Slug
    version: Annotated[int, Field(ge=1)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    purpose: Slug
    mode: Mode = Mode.LOCAL
    issuing_ca: Annotated[str, Field(min_length=1, max_length=64)] | None = None  # id or role
    key_types: Annotated[tuple[KeyType, ...], Field(min_length=1)]
    subject: tuple[SubjectRule, ...] = ()
    alt_names: tuple[AltNameRule, ...] = ()
    common_name_as_host: bool = False  # a host named by the CN becomes the missing alt. name
    key_usage: tuple[KeyUsage, ...] = ("digital_signature",)
    extended_key_usage: tuple[Oid, ...] = ()
    extensions: Annotated[tuple[Extension, ...], Field(max_length=32)] = ()
    ca_path_length: Annotated[int, Field(ge=0, le=16)] | None = None  # None: an end entity
    ocsp_no_check: bool = False  # id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1)
    pointers: Pointers = Pointers()
    subject_key_identifier: SubjectKey = SubjectKey.SHA256
    authority_key_identifier: AuthorityKey = AuthorityKey.KEY
    csr_hash_min: CsrHash = CsrHash.SHA256
    validity: Validity
    conditions: Condition = Condition()
    device_id_required: bool = False
    known_devices_only: bool = False  # those whose record is held here
    existing: Existing = Existing.ALLOW
    duplicates: Duplicates = Duplicates.REPORT
    unheard_serials: UnheardSerials = UnheardSerials.GOOD

    @model_validator(mode="after")
    def _one_rule_each(self) -> Self:
        if len(self.subject_rules) != len(self.subject):
            raise ValueError("subject names an attribute twice")
        if len(self.alt_name_rules) != len(self.alt_names):
            raise ValueError("alt_names names a kind twice")
        extensions.require_distinct(self.extensions)
        return self

    @model_validator(mode="after")
    def _ca_or_end_entity(self) -> Self:
        if self.ca_path_length is None:
            if _CA_USAGE.intersection(self.key_usage):
                raise ValueError("key_usage: only a CA signs certificates and CRLs")
            if any(isinstance(one, extensions.OF_CAS_ONLY) for one in self.extensions):
                raise ValueError("extensions holds one that only CAs have")
        elif self.subject_key_identifier is SubjectKey.NONE:
            raise ValueError("subject_key_identifier: what a CA signs names its key by it")
        elif not _CA_USAGE.issuperset(self.key_usage) or "key_cert_sign" not in self.key_usage:
            raise ValueError("key_usage of a CA is key_cert_sign, mostly with crl_sign")
        return self

    @cached_property
    def document(self) -> str:
        """The canonical JSON text: sorted keys, no white space, no defaults.

        So a field that a later version adds changes no document; defaults never change.
        """
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def sha256(self) -> str:
        """The hash of ``document`` in lower-case hex."""
        return hashlib.sha256(self.document.encode()).hexdigest()

    @cached_property
    def subject_rules(self) -> dict[str, SubjectRule]:
        """The subject rules by dotted OID."""
        return {names.BY_NAME[rule.attribute].oid.dotted_string: rule for rule in self.subject}

    @cached_property
    def alt_name_rules(self) -> dict[AltNameKind, AltNameRule]:
        """The alternative name rules by kind."""
        return {rule.kind: rule for rule in self.alt_names}

    @cached_property
    def constant_extensions(self) -> tuple[Encoded, ...] | None:
        """The extensions, encoded, if none of them depends on the request."""
        fixed = [one for one in self.extensions if not isinstance(one, Private)]
        if len(fixed) < len(self.extensions):
            return None
        return tuple(one.encoded() for one in fixed)
