"""Extensions that a profile puts into its certificates, as documents.

Each gives its encoding; one whose content does not depend on the request is encoded once.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.pki import extensions, names
from shared.pki.extensions import Encoded, ValueType
from shared.policy import templates
from shared.policy.document import Document
from shared.policy.patterns import Pattern
from shared.policy.request import EnrollmentRequest
from shared.policy.templates import Template

Oid = Annotated[str, Field(pattern=rf"^(?:{names.OID_PATTERN})$")]
Uri = Annotated[str, Field(max_length=2048, pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*:[!-~]+$")]
_Skip = Annotated[int, Field(ge=0, le=64)]
_DER_BYTES_MAX = 4_096


class _Fixed(Document):
    """An extension that says the same in every certificate of the profile."""

    @model_validator(mode="after")
    def _encodable(self) -> Self:
        self.encoded()  # raises ValueError, which names the field
        return self

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        raise AssertionError(type(self))

    @cached_property
    def oid_text(self) -> str:
        """The extension's OID."""
        return self._constant[0]

    @cached_property
    def _constant(self) -> Encoded:
        return self.encoded()

    def render(self, request: EnrollmentRequest) -> Encoded:
        """Give the extension for this request."""
        del request
        return self._constant


class CertificatePolicy(Document):
    """One policy with where its practice statement is (CPS) and a notice to the user."""

    oid: Oid
    cps: Annotated[tuple[Uri, ...], Field(max_length=4)] = ()
    notice: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class CertificatePolicies(_Fixed):
    """Under which policies the certificate is issued (RFC 5280 §4.2.1.4)."""

    kind: Literal["certificate_policies"]
    critical: bool = False
    policies: Annotated[tuple[CertificatePolicy, ...], Field(min_length=1, max_length=16)]

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        policies = [(policy.oid, policy.cps, policy.notice) for policy in self.policies]
        return extensions.certificate_policies(policies, critical=self.critical)


class Subtree(Document):
    """A part of a name space: a domain, an e-mail domain, a URI host or a network (CIDR)."""

    kind: Literal["dns", "email", "uri", "ip"]
    value: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class NameConstraints(_Fixed):
    """What the certificates below a CA may name (RFC 5280 §4.2.1.10, which wants it critical)."""

    kind: Literal["name_constraints"]
    critical: bool = True
    permitted: Annotated[tuple[Subtree, ...], Field(max_length=64)] = ()
    excluded: Annotated[tuple[Subtree, ...], Field(max_length=64)] = ()

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        inside, outside = (
            [(subtree.kind, subtree.value) for subtree in subtrees]
            for subtrees in (self.permitted, self.excluded)
        )
        return extensions.name_constraints(inside, outside, critical=self.critical)


class TlsFeature(_Fixed):
    """Must-staple and its kin (RFC 7633)."""

    kind: Literal["tls_feature"]
    critical: bool = False
    features: Annotated[
        tuple[Literal["status_request", "status_request_v2"], ...],
        Field(min_length=1, max_length=2),
    ] = ("status_request",)

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        return extensions.tls_feature(self.features, critical=self.critical)


class MicrosoftName(_Fixed):
    """The name of the Windows template (version 1)."""

    kind: Literal["microsoft_name"]
    name: Annotated[str, Field(min_length=1, max_length=64)]

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        return extensions.microsoft_name(self.name)


class MicrosoftTemplate(_Fixed):
    """The Windows template (version 2)."""

    kind: Literal["microsoft_template"]
    oid: Oid
    major: Annotated[int, Field(ge=0, le=0x7FFFFFFF)] | None = None
    minor: Annotated[int, Field(ge=0, le=0x7FFFFFFF)] | None = None

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        return extensions.microsoft_template(self.oid, self.major, self.minor)


class PolicyMapping(Document):
    """A policy of the issuer's domain and its equivalent in the subject's."""

    issuer: Oid
    subject: Oid


class PolicyMappings(_Fixed):
    """Which policies a CA's domain calls equal to ours (RFC 5280 §4.2.1.5)."""

    kind: Literal["policy_mappings"]
    critical: bool = True
    mappings: Annotated[tuple[PolicyMapping, ...], Field(min_length=1, max_length=32)]

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        pairs = [(mapping.issuer, mapping.subject) for mapping in self.mappings]
        return extensions.policy_mappings(pairs, critical=self.critical)


class PolicyConstraints(_Fixed):
    """After how many CAs below, policies must be named or are not mapped (§4.2.1.11)."""

    kind: Literal["policy_constraints"]
    critical: bool = True
    require_explicit: _Skip | None = None
    inhibit_mapping: _Skip | None = None

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        return extensions.policy_constraints(
            self.require_explicit, self.inhibit_mapping, critical=self.critical
        )


class InhibitAnyPolicy(_Fixed):
    """After how many CAs below, anyPolicy ends (RFC 5280 §4.2.1.14)."""

    kind: Literal["inhibit_any_policy"]
    critical: bool = True
    skip: _Skip = 0

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        return extensions.inhibit_any_policy(self.skip, critical=self.critical)


class PrivateDer(_Fixed):
    """An extension of one's own whose value is given as DER."""

    kind: Literal["private_der"]
    oid: Oid
    critical: bool = False
    der: Annotated[bytes, Field(min_length=2, max_length=_DER_BYTES_MAX)]

    def encoded(self) -> Encoded:
        """Give OID, criticality and DER."""
        _require_private(self.oid)
        if not extensions.is_der(self.der):
            raise ValueError("der must be exactly one DER value")
        return self.oid, self.critical, self.der


class Private(Document):
    """An extension of one's own whose value is computed; an unknown one is left out or refused."""

    kind: Literal["private"]
    oid: Oid
    critical: bool = False
    type: ValueType
    value: Template
    required: bool = False
    allowed_patterns: Annotated[tuple[Pattern, ...], Field(max_length=16)] = ()
    forbidden_patterns: Annotated[tuple[Pattern, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _encodable(self) -> Self:
        _require_private(self.oid)
        if templates.is_constant(self.value):
            self.encode(self.value)
        return self

    @property
    def oid_text(self) -> str:
        """The extension's OID."""
        return self.oid

    def encode(self, text: str) -> Encoded:
        """Give OID, criticality and DER; raises ValueError when the text does not fit the type."""
        return extensions.private(self.oid, self.type, text, critical=self.critical)


Extension = Annotated[
    CertificatePolicies
    | NameConstraints
    | TlsFeature
    | MicrosoftName
    | MicrosoftTemplate
    | PolicyMappings
    | PolicyConstraints
    | InhibitAnyPolicy
    | PrivateDer
    | Private,
    Field(discriminator="kind"),
]

#: Extensions that speak of what lies below a CA: no end entity has them (RFC 5280 §4.2.1).
OF_CAS_ONLY = (NameConstraints, PolicyMappings, PolicyConstraints, InhibitAnyPolicy)


def require_distinct(found: Sequence[Extension]) -> None:
    """Raise ValueError when two extensions have one OID (RFC 5280 §4.2)."""
    if len({extension.oid_text for extension in found}) != len(found):
        raise ValueError("extensions holds one twice")


def _require_private(oid: str) -> None:
    if f"{oid}.".startswith(extensions.RESERVED_ARCS):
        raise ValueError(f"{oid} is an extension that the profile says in another field")
