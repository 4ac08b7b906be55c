"""From validated attributes to the one request that every protocol ends in."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from shared.enroll.rest.models import EnrollAttributes, KeyAttributes, SubjectAttributes
from shared.kernel.errors import BadRequestError
from shared.pki import names
from shared.pki.plan import AltName, AltNameKind, NameAttribute
from shared.pki.request import CertificationRequest
from shared.policy.request import EnrollmentRequest, Operation

PROTOCOL = "rest"
_ALIAS = "rest"
_CSR_POINTER = "/data/attributes/csr"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be certified, all but the key."""

    operation: Operation
    profile: str
    subject: tuple[NameAttribute, ...]
    alt_names: tuple[AltName, ...]
    device_id: str | None
    validity_days: int | None
    metadata: Mapping[str, str]
    test: bool = False
    replaces: tuple[str, str] | None = None

    def by(
        self,
        principal: str,
        public_key: bytes,
        idempotency_key: str | None,
        csr_hash: str | None = None,
    ) -> EnrollmentRequest:
        """Complete the wish: who asks, for which key (DER SPKI), under which Idempotency-Key.

        ``csr_hash`` is what the CSR's signature hashed with, where there is one.
        """
        return EnrollmentRequest(
            operation=self.operation,
            protocol=PROTOCOL,
            alias=_ALIAS,
            profile=self.profile,
            principal=principal,
            public_key=public_key,
            subject=self.subject,
            alt_names=self.alt_names,
            device_id=self.device_id,
            validity_days=self.validity_days,
            metadata=self.metadata,
            replaces=self.replaces,
            test=self.test,
            idempotency_key=idempotency_key,
            csr_hash=csr_hash,
        )


def signing_request(attributes: KeyAttributes) -> CertificationRequest | None:
    """Parse the CSR, if there is one; raises BadRequestError with its pointer."""
    if attributes.csr is None:
        return None
    try:
        data = attributes.csr.encode("ascii")
        return CertificationRequest.parse(
            data if b"-----BEGIN" in data else b64decode(data, validate=False)
        )
    except (UnicodeEncodeError, binascii.Error) as error:
        raise BadRequestError(
            "The CSR is neither PEM nor DER in base64.", pointer=_CSR_POINTER
        ) from error
    except BadRequestError as error:
        error.pointer = _CSR_POINTER
        raise


def enrollment(
    attributes: EnrollAttributes, profile: str, csr: CertificationRequest | None
) -> Wish:
    """Take subject and names from the attributes, and what they leave out from the CSR."""
    subject = _subject(attributes) or (csr.subject if csr else ())
    if attributes.alt_names is not None:
        alt_names = tuple(
            AltName(kind, value)
            for kind in AltNameKind
            for value in getattr(attributes.alt_names, kind.value)
        )
    else:
        alt_names = csr.alt_names if csr else ()
    return Wish(
        operation=Operation.ENROLL,
        profile=profile,
        subject=subject,
        alt_names=alt_names,
        device_id=attributes.device_id,
        validity_days=attributes.cert_days,
        metadata=attributes.metadata,
        test=attributes.test,
    )


def renewal(
    attributes: KeyAttributes,
    der: bytes,
    *,
    profile: str,
    device_id: str | None,
    replaces: tuple[str, str],
) -> Wish:
    """Wish for a successor that says what the certificate says; a CSR gives its key only."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        alt_names = tuple(names.decode_alt_name(name) for name in extension.value)
    except x509.ExtensionNotFound:
        alt_names = ()
    return Wish(
        operation=Operation.RENEW,
        profile=profile,
        subject=names.decode_name(certificate.subject),
        alt_names=alt_names,
        device_id=device_id,
        validity_days=attributes.cert_days,
        metadata=attributes.metadata,
        replaces=replaces,
    )


def _subject(attributes: EnrollAttributes) -> tuple[NameAttribute, ...]:
    given = attributes.subject or SubjectAttributes()
    if attributes.cn is not None:
        if given.common_name not in {None, attributes.cn}:
            raise BadRequestError(
                "The attributes “cn” and “subject.common_name” disagree.",
                pointer="/data/attributes/cn",
            )
        given = given.model_copy(update={"common_name": attributes.cn})
    return tuple(
        NameAttribute(names.BY_NAME[name].oid.dotted_string, value)
        for name, value in given
        if value is not None
    )
