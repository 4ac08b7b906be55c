"""Profiles: what a certificate may contain. A (name, version) never changes its content."""

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.kernel import limits
from shared.pki import names
from shared.pki.keys import KeyType
from shared.pki.plan import AltNameKind
from shared.policy.document import Document

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
    """What central does when a device has certificates of this profile at two gateways."""

    REPORT = "report"
    REVOKE_EARLIER = "revoke_earlier"


class UnheardSerials(StrEnum):
    """What central's OCSP says of serials that a trusted gateway has not reported yet."""

    GOOD = "good"
    UNKNOWN = "unknown"


def _known_attribute(name: str) -> str:
    if name not in names.BY_NAME:
        raise ValueError(f"must be one of {', '.join(names.BY_NAME)}")
    return name


Days = Annotated[int, Field(ge=1, le=_DAYS_MAX)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Oid = Annotated[str, Field(pattern=rf"^(?:{names.OID_PATTERN})$")]
KeyUsage = Literal[
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
]
MetadataKey = Annotated[str, Field(min_length=1, max_length=limits.METADATA_KEY_CHARS_MAX)]


class SubjectRule(Document):
    """One attribute that the subject may hold.

    With ``device_id`` it is filled from the device id and must equal it; with ``metadata_key`` it
    is filled from the request's metadata and must equal it.
    """

    attribute: Annotated[str, AfterValidator(_known_attribute)]
    required: bool = False
    count_max: Annotated[int, Field(ge=1, le=8)] = 1
    device_id: bool = False
    metadata_key: MetadataKey | None = None


class AltNameRule(Document):
    """One kind of alternative name that the certificate may hold."""

    kind: AltNameKind
    required: bool = False
    count_max: Annotated[int, Field(ge=1, le=100)] = 10


class Validity(Document):
    """How long a certificate lives. Without days it has no expiry (99991231235959Z)."""

    days_default: Days | None = None
    days_max: Days | None = None
    back_date_s: Annotated[int, Field(ge=0, le=_BACK_DATE_S_MAX)] = 300
    too_long: TooLong = TooLong.CLIP
    clock_in_doubt: ClockInDoubt = ClockInDoubt.ISSUE

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.days_default is None) != (self.days_max is None):
            raise ValueError("days_default and days_max stand together")
        if self.days_default and self.days_max and self.days_default > self.days_max:
            raise ValueError("days_default must not exceed days_max")
        return self


class Profile(Document):
    """What a certificate may contain and how it is issued; the document is the identity."""

    name: Slug
    version: Annotated[int, Field(ge=1)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    purpose: Slug
    mode: Literal["local"] = "local"  # the gateway's CA signs (design.md §4)
    key_types: Annotated[tuple[KeyType, ...], Field(min_length=1)]
    subject: tuple[SubjectRule, ...] = ()
    alt_names: tuple[AltNameRule, ...] = ()
    common_name_as_host: bool = False  # a host named by the CN becomes the missing alt. name
    key_usage: tuple[KeyUsage, ...] = ("digital_signature",)
    extended_key_usage: tuple[Oid, ...] = ()
    validity: Validity
    device_id_required: bool = False
    duplicates: Duplicates = Duplicates.REPORT
    unheard_serials: UnheardSerials = UnheardSerials.GOOD

    @model_validator(mode="after")
    def _one_rule_each(self) -> Self:
        if len(self.subject_rules) != len(self.subject):
            raise ValueError("subject names an attribute twice")
        if len(self.alt_name_rules) != len(self.alt_names):
            raise ValueError("alt_names names a kind twice")
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


_DESCRIPTIVE = tuple(
    SubjectRule(attribute=attribute, count_max=count_max)
    for attribute, count_max in (
        ("country_name", 1),
        ("state_name", 1),
        ("locality_name", 1),
        ("organization_name", 1),
        ("organizational_unit_name", 4),
    )
)

#: The profiles that every installation begins with.
SHIPPED = (
    Profile(
        name="tls-server",
        version=1,
        title="TLS server",
        purpose="tls-server",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name"),
            SubjectRule(attribute="serial_number"),
            *_DESCRIPTIVE,
        ),
        alt_names=(
            AltNameRule(kind=AltNameKind.DNS, count_max=100),
            AltNameRule(kind=AltNameKind.IP, count_max=100),
            AltNameRule(kind=AltNameKind.URI),
        ),
        common_name_as_host=True,
        extended_key_usage=("1.3.6.1.5.5.7.3.1",),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="tls-client",
        version=1,
        title="TLS client",
        purpose="tls-client",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name", required=True),
            SubjectRule(attribute="serial_number"),
            *_DESCRIPTIVE,
        ),
        alt_names=tuple(AltNameRule(kind=kind) for kind in AltNameKind),
        extended_key_usage=("1.3.6.1.5.5.7.3.2",),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="idevid",
        version=1,
        title="Device identity for life (IEEE 802.1AR IDevID)",
        purpose="idevid",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name"),
            SubjectRule(attribute="serial_number", required=True, device_id=True),
            *_DESCRIPTIVE,
        ),
        alt_names=(AltNameRule(kind=AltNameKind.HARDWARE_MODULE, count_max=1),),
        validity=Validity(too_long=TooLong.REFUSE),
        device_id_required=True,
    ),
)
