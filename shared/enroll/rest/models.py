"""What clients send: the models that validate it and describe it in the OpenAPI document."""

from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from shared.issuance.status import REASONS
from shared.kernel import limits
from shared.pki import names
from shared.pki.keys import KeyType
from shared.pki.plan import AltNameKind
from shared.policy.selection import Selection

_CSR_CHARS_MAX = 24 * 1024  # CSR_BYTES_MAX in base64, with line breaks
_ALT_NAMES_MAX = 64
_DAYS_MAX = 36_500

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Type = Annotated[str, StringConstraints(max_length=80)]
Attributes = TypeVar("Attributes", bound=BaseModel)


class _Strict(BaseModel):
    """A field that nobody reads is a mistake of the client and is said to be one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict, Generic[Attributes]):
    """A JSON:API resource: its type and attributes."""

    type: Type
    attributes: Attributes


class Document(_Strict, Generic[Attributes]):
    """A JSON:API document with one resource."""

    data: Data[Attributes]


class Format(StrEnum):
    """How key and certificate come back."""

    PEM = "pem"
    DER = "der"
    PKCS7 = "pkcs7"
    PKCS12 = "pkcs12"
    PKCS8 = "pkcs8"


class SubjectAttributes(_Strict):
    """The subject's distinguished name, from the most general attribute to the most special."""

    jurisdiction_country: Text | None = None
    jurisdiction_state: Text | None = None
    jurisdiction_locality: Text | None = None
    business_category: Text | None = None
    country_name: Text | None = None
    state_name: Text | None = None
    locality_name: Text | None = None
    postal_code: Text | None = None
    street_address: Text | None = None
    organization_name: Text | None = None
    organization_identifier: Text | None = None
    organizational_unit_name: Text | None = None
    domain_component: Text | None = None
    dn_qualifier: Text | None = None
    title: Text | None = None
    surname: Text | None = None
    given_name: Text | None = None
    initials: Text | None = None
    generation_qualifier: Text | None = None
    name: Text | None = None
    pseudonym: Text | None = None
    user_id: Text | None = None
    description: Text | None = None
    unstructured_name: Text | None = None
    email_address: Text | None = None
    common_name: Text | None = None
    serial_number: Text | None = None


assert set(SubjectAttributes.model_fields) == set(names.BY_NAME)


_AltNames = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=2048)]],
    Field(max_length=_ALT_NAMES_MAX),
]


class AltNamesAttributes(_Strict):
    """Subject alternative names by kind."""

    dns: _AltNames = []
    ip: _AltNames = []
    uri: _AltNames = []
    email: _AltNames = []
    hardware_module: _AltNames = Field(
        [], description="RFC 4108 hardwareModuleName as `type-OID:serial`, for IDevIDs."
    )
    dns_wildcard: _AltNames = Field([], description="`*.` and a host name, e.g. `*.line.example`.")
    directory: _AltNames = Field([], description="RFC 4514 text, e.g. `CN=device,O=plant`.")
    registered_id: _AltNames = Field([], description="A dotted OID.")
    upn: _AltNames = Field([], description="Microsoft's user principal name: `user@domain`.")
    permanent_identifier: _AltNames = Field(
        [], description="RFC 4043: `assigner-OID:value`; the OID may be missing."
    )
    smtp_utf8_mailbox: _AltNames = Field(
        [], description="RFC 9598: an e-mail address whose local part is not all ASCII."
    )
    other: _AltNames = Field(
        [], description="Any otherName: `OID;UTF8:text`, `OID;IA5:text` or `OID;DER:hex`."
    )


assert set(AltNamesAttributes.model_fields) == set(AltNameKind)


class KeyAttributes(_Strict):
    """Whose key is certified, and how the answer is packed."""

    csr: Annotated[str, StringConstraints(max_length=_CSR_CHARS_MAX)] | None = Field(
        None,
        description="PKCS#10 request in PEM, or its DER in base64. Without it the server makes "
        "a key, and the answer holds it; the same requester gets the same key again for "
        "15 minutes, later a new one, and the earlier certificate is revoked.",
    )
    key_type: KeyType | None = Field(
        None,
        description="Type of a key that the server makes; default ec-p256. A long RSA key may "
        "take minutes: 503 with Retry-After says to send the same request again.",
    )
    format: Format = Field(
        Format.PEM,
        description="How certificate and key come. `pem`: in PEM, a key of the server's as PKCS#8 "
        "that is not encrypted; `der`, `pkcs7`: besides, the certificate in DER, or certificate "
        "and chain in PKCS#7, both in base64; `pkcs8`: like `pem`, the key under `password`; "
        "`pkcs12`: key and chain in one base64 file, under `password`.",
    )
    password: SecretStr | None = Field(
        None, min_length=8, max_length=128, description="Encrypts a key of the server's."
    )
    cert_days: int | None = Field(
        None, ge=1, le=_DAYS_MAX, description="Days of validity; the profile may shorten it."
    )
    metadata: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=limits.METADATA_KEY_CHARS_MAX)],
        Annotated[str, StringConstraints(max_length=limits.METADATA_VALUE_CHARS_MAX)],
    ] = Field({}, max_length=limits.METADATA_PAIRS_MAX, description="Free text pairs.")


class EnrollAttributes(KeyAttributes):
    """One certificate that is wished for. What is given here stands for what the CSR says."""

    profile: ProfileName | None = Field(
        None, description="What the certificate is for; implied by `cert_<profile>`."
    )
    cn: Text | None = Field(None, description="Short for `subject.common_name`.")
    subject: SubjectAttributes | None = None
    alt_names: AltNamesAttributes | None = None
    device_id: (
        Annotated[str, StringConstraints(min_length=1, max_length=limits.DEVICE_ID_CHARS_MAX)]
        | None
    ) = Field(None, description="The device; without it the subject's serialNumber.")
    test: bool = Field(default=False, description="Marks a test; it counts against the grant.")


class RenewAttributes(KeyAttributes):
    """A successor with the names, profile and device of the certificate; only the key is new."""


class Batch(_Strict):
    """Up to 1,000 enrollments, each for itself: one refusal stops no other."""

    data: list[Data[EnrollAttributes]] = Field(min_length=1, max_length=limits.BATCH_REQUESTS_MAX)


class RevokeAttributes(_Strict):
    """Why a certificate is revoked, for good."""

    reason: str = Field(
        "unspecified", json_schema_extra={"enum": list(REASONS)}, description="RFC 5280 §5.3.1."
    )


class RevokeManyAttributes(RevokeAttributes):
    """Which certificates are revoked, for good; see ``GET /operations/{id}`` for how far it is."""

    filter: Selection
    dry_run: bool = Field(
        default=False, description="Only say how many of which CA, and how large its CRL becomes."
    )


class HoldAttributes(_Strict):
    """Which hold: a certificate is suspended while any hold id is not released."""

    hold_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] = Field(
        description="Chosen by the client; one that was released never holds again."
    )
