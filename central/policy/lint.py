"""Samples of a profile, one for each key type, and what pkilint says of them.

Nothing of a sample leaves this module: it is signed by a CA that exists only for it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any

from cryptography import x509
from pydantic import Field

from shared.kernel.clock import US_PER_SECOND, ClockQuality, Instant
from shared.kernel.errors import BadRequestError, UnavailableError
from shared.pki import algorithms, certificates, keys, names
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.policy.decide import Circumstances, Refusal, decide
from shared.policy.device import DeviceRecord
from shared.policy.document import Document
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest, Operation

_YEAR_US = 365 * 24 * 3600 * US_PER_SECOND
_SUBJECT = {
    "country_name": "DE",
    "domain_component": "example",
    "email_address": "someone@example.com",
    "serial_number": "SN-0001",
}
_ALT_NAMES = {
    AltNameKind.DNS: "host.example.com",
    AltNameKind.IP: "192.0.2.1",
    AltNameKind.URI: "https://host.example.com/application",
    AltNameKind.EMAIL: "someone@example.com",
    AltNameKind.HARDWARE_MODULE: "1.3.6.1.4.1.99999:SN-0001",
}
_ERROR, _FATAL = "ERROR", "FATAL"
#: Remarks that are wrong of plants: OPC UA application URIs are URNs (OPC 10000-6 §6.2.2), and a
#: host name may be one label (RFC 1034 §3.5).
_TOLERATED = (
    re.compile(r'pkix\.invalid_uri_syntax: Invalid URI syntax: "urn:[!-~]+"'),
    re.compile(r'pkix\.invalid_domain_name_syntax: Invalid domain name syntax: "[A-Za-z0-9-]+"'),
)
#: Conditions are about who asks and when; a sample is about what is said.
_LEFT_OUT = ("conditions", "issuing_ca", "known_devices_only")
_AltNames = dict[str, tuple[str, ...]]


class Sample(Document):
    """What a sample request says where the profile's rules do not fit the usual one."""

    subject: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    alt_names: Annotated[
        dict[str, tuple[str, ...]], Field(default_factory=dict[str, tuple[str, ...]])
    ]
    device_id: str = "SN-0001"
    metadata: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    device: Annotated[dict[str, str], Field(default_factory=dict[str, str])]


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of pkilint; ``severity`` is INFO, NOTICE, WARNING, ERROR or FATAL."""

    key_type: str
    severity: str
    code: str
    message: str

    @property
    def refuses(self) -> bool:
        """Whether it keeps the profile from being published."""
        said = f"{self.code}: {self.message}"
        return self.severity in {_ERROR, _FATAL} and not any(
            tolerated.fullmatch(said) for tolerated in _TOLERATED
        )


def lint(profile: Profile, sample: Sample, now_us: int) -> list[Finding]:
    """Issue a sample for each key type and lint it. Slow: call it off the event loop.

    Raises BadRequestError when the profile's own rules refuse the sample, UnavailableError where
    pkilint is not installed.
    """
    linter = _linter()
    rules = Profile.from_document(
        {key: value for key, value in profile.to_document().items() if key not in _LEFT_OUT}
    )
    issuer, sign = _throwaway(now_us)
    findings: list[Finding] = []
    for key_type in profile.key_types:
        if key_type is KeyType.RSA_OTHER:
            continue  # any length that has no name: the named ones stand for it
        spki = keys.spki(keys.generate(key_type).public_key())
        circumstances = Circumstances(
            now=Instant(now_us, 0, "", ClockQuality.NTP),
            issuer=issuer.limits,
            last_contact_us=None,
        )
        plan = decide(rules, None, _request(rules, sample, spki), circumstances)
        if isinstance(plan, Refusal):
            raise BadRequestError(
                f"The profile's own rules refuse the sample ({plan.rule}): {plan.message}",
                remedy="Send a sample that they allow.",
                pointer="/sample",
            )
        tbs = certificates.unsigned(plan, issuer, 1 << 100)
        der = certificates.assemble(tbs, sign(tbs), issuer)
        findings.extend(_findings(linter, key_type, der))
    return findings


def _request(profile: Profile, sample: Sample, spki: bytes) -> EnrollmentRequest:
    """Ask for what the profile demands, and for a common name where it may stand."""
    subject = dict(sample.subject)
    metadata = dict(sample.metadata)
    for rule in profile.subject:
        if rule.metadata_key is not None:
            metadata.setdefault(rule.metadata_key, _SUBJECT.get(rule.attribute, "Sample"))
        elif (rule.required or rule.attribute == "common_name") and not (
            rule.values or rule.defaults or rule.device_id
        ):
            subject.setdefault(rule.attribute, _SUBJECT.get(rule.attribute, "host.example.com"))
    alt_names: dict[str, tuple[str, ...]] = dict(sample.alt_names)
    for one in profile.alt_names:
        if (one.required or one.kind is AltNameKind.DNS) and not (one.values or one.defaults):
            alt_names.setdefault(one.kind.value, (_ALT_NAMES.get(one.kind, "Sample"),))
    return EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol="sample",
        alias="sample",
        profile=profile.name,
        principal="user:sample",
        public_key=spki,
        subject=tuple(_attribute(name, value) for name, value in subject.items()),
        alt_names=tuple(_alt_names(alt_names)),
        device_id=sample.device_id,
        metadata=metadata,
        record=DeviceRecord(sample.device_id, metadata=sample.device),
    )


def _attribute(name: str, value: str) -> NameAttribute:
    kind = names.BY_NAME.get(name)
    if kind is None:
        raise BadRequestError(f"There is no subject attribute {name}.", pointer="/sample/subject")
    return NameAttribute(kind.oid.dotted_string, value)


def _alt_names(wanted: Mapping[str, tuple[str, ...]]) -> list[AltName]:
    try:
        return [
            AltName(AltNameKind(kind), one) for kind, values in wanted.items() for one in values
        ]
    except ValueError as error:
        raise BadRequestError(
            "There is no alternative name of this kind.", pointer="/sample/alt_names"
        ) from error


def _throwaway(now_us: int) -> tuple[Issuer, Callable[[bytes], bytes]]:
    """Give a CA that lasts for this check, and what signs for it."""
    key = keys.generate()
    algorithm = algorithms.usual(key.public_key())
    subject = (NameAttribute(names.COMMON_NAME, "Sample CA"),)
    start_us = now_us // US_PER_SECOND * US_PER_SECOND - _YEAR_US
    spki = keys.spki(key.public_key())
    plan = certificates.ca_plan(subject, spki, path_length=2, not_before_us=start_us)
    tbs = certificates.unsigned_root(plan, 1 << 100, algorithm)
    der = certificates.assemble_root(tbs, algorithm.sign(key, tbs), key.public_key(), algorithm)
    address = "http://central.example.com"
    issuer = Issuer(
        keys.ca_id(key.public_key()),
        x509.load_der_x509_certificate(der),
        (der,),
        crl_urls=(f"{address}/ca.crl",),
        ocsp_urls=(f"{address}/ocsp",),
        ca_urls=(f"{address}/ca.cer",),
    )
    return issuer, partial(algorithm.sign, key)


def _findings(linter: Any, key_type: KeyType, der: bytes) -> list[Finding]:
    from pkilint import loader  # noqa: PLC0415  # an extra of central, and slow to import

    reader: Any = loader.RFC5280CertificateDocumentLoader()
    document = reader.load_der_document(der)
    return [
        Finding(
            key_type.value,
            one.finding.severity.name,
            one.finding.code,
            one.message or "",
        )
        for result in linter.validate(document.root)
        for one in result.finding_descriptions
    ]


@cache
def _linter() -> Any:
    try:
        from pkilint.pkix import certificate, extension, name  # noqa: PLC0415  # see above
    except ImportError as error:
        raise UnavailableError(
            "pkilint is not installed here, and no profile is published unchecked.",
            remedy="Install tma-edge with its extra `central`.",
        ) from error
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
