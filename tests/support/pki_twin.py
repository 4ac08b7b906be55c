"""The same certificate from another builder: cryptography's, with a key that is thrown away."""

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID

from shared.kernel.clock import datetime_of
from shared.pki import keys, names
from shared.pki.algorithms import ECDSA_SHA256, Scheme, SignatureAlgorithm
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType
from shared.pki.plan import AuthorityKey, Plan, SubjectKey
from tests.support import pki_keys

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def twin(
    plan: Plan,
    issuer: Issuer | None,
    serial: int,
    kind: KeyType = KeyType.EC_P256,
    algorithm: SignatureAlgorithm = ECDSA_SHA256,
) -> bytes:
    """Give the TBSCertificate of the plan; ``issuer`` None: self-signed."""
    subject = names.encode_name(plan.subject)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .subject_name(subject)
        .public_key(keys.load_spki(plan.public_key))
        .serial_number(serial)
        .not_valid_before(datetime_of(plan.not_before_us))
        .not_valid_after(datetime_of(plan.not_after_us))
    )
    for value, critical in [*_issuers(plan, issuer), *_own(plan)]:
        builder = builder.add_extension(value, critical)
    padding = algorithm.arguments[0] if algorithm.scheme is Scheme.RSA_PSS else None
    key = pki_keys.private_key(kind)
    return builder.sign(key, algorithm.hash, rsa_padding=padding).tbs_certificate_bytes


def _issuers(plan: Plan, issuer: Issuer | None):
    if issuer is None:
        return
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    named = (None, None)
    if plan.authority_key is AuthorityKey.KEY_AND_ISSUER:
        certificate = issuer.certificate
        named = [x509.DirectoryName(certificate.issuer)], certificate.serial_number
    yield x509.AuthorityKeyIdentifier(identifier.value.digest, *named), False
    crl_urls, ocsp_urls, ca_urls = (
        theirs if own is None else tuple(url.format(ca_id=issuer.ca_id) for url in own)
        for own, theirs in (
            (plan.pointers.crl_urls, issuer.crl_urls),
            (plan.pointers.ocsp_urls, issuer.ocsp_urls),
            (plan.pointers.ca_urls, issuer.ca_urls),
        )
    )
    if crl_urls:
        point = x509.DistributionPoint(_uris(crl_urls), None, None, None)
        yield x509.CRLDistributionPoints([point]), False
    access = [
        x509.AccessDescription(AuthorityInformationAccessOID.OCSP, uri) for uri in _uris(ocsp_urls)
    ] + [
        x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, uri)
        for uri in _uris(ca_urls)
    ]
    if access:
        yield x509.AuthorityInformationAccess(access), False


def _own(plan: Plan):
    if plan.subject_key is SubjectKey.SHA256:
        yield x509.SubjectKeyIdentifier(keys.key_identifier(plan.public_key)), False
    elif plan.subject_key is SubjectKey.SHA1:
        public_key = serialization.load_der_public_key(plan.public_key)
        yield x509.SubjectKeyIdentifier.from_public_key(public_key), False
    is_ca = plan.ca_path_length is not None
    yield x509.BasicConstraints(is_ca, plan.ca_path_length), True
    yield x509.KeyUsage(**{usage: usage in plan.key_usage for usage in _USAGES}), True
    if plan.extended_key_usage:
        oids = map(x509.ObjectIdentifier, plan.extended_key_usage)
        yield x509.ExtendedKeyUsage(oids), False
    if plan.no_check:
        yield x509.OCSPNoCheck(), False
    for oid, critical, value in plan.extensions:
        yield x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical
    if plan.alt_names:
        alternatives = x509.SubjectAlternativeName(map(names.encode_alt_name, plan.alt_names))
        yield alternatives, not plan.subject


def _uris(urls: tuple[str, ...]) -> list[x509.UniformResourceIdentifier]:
    return [x509.UniformResourceIdentifier(url) for url in urls]
