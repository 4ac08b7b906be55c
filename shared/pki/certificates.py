"""Certificates in two steps, so that only the signature is made where the issuing key lives.

``unsigned`` gives the bytes to be signed. cryptography's builder gives them only with a signature,
by a throwaway key that is; that costs three times as much CPU as putting together the same bytes
here, from parts that cryptography encodes (tests hold the two equal, byte for byte). ``assemble``
joins bytes and signature, and lets nothing pass that the issuer's key did not sign.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from shared.kernel.clock import datetime_of, utc_us_of
from shared.kernel.errors import IntegrityError
from shared.pki import algorithms, keys, names, signed
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.keys import PublicKey
from shared.pki.partitions import UNPARTITIONED, Partition, Partitions
from shared.pki.plan import (
    NO_EXPIRY_US,
    NO_POINTERS,
    AuthorityKey,
    NameAttribute,
    Plan,
    Pointers,
    SubjectKey,
)
from shared.pki.signed import tlv

#: The bits of KeyUsage by name (RFC 5280 §4.2.1.3), as plans name them.
KEY_USAGE_BITS = (
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
_VERSION_3 = bytes.fromhex("a003020102")
_CRITICAL = bytes.fromhex("0101ff")
_EXTENSIONS_TAG = 0xA3
_GENERALIZED_TIME_FROM = 2050  # earlier years are UTCTime (RFC 5280 §4.1.2.5)


@dataclass(frozen=True, slots=True)
class IssuerLimits:
    """When a CA may issue and until when its certificates may live, UTC µs.

    It issues from ``not_before_us`` until before ``issue_until_us``; ``not_after_us`` is its end.
    """

    not_before_us: int
    not_after_us: int
    issue_until_us: int


@dataclass(frozen=True)
class Issuer:
    """A CA as its certificates show it; what they all have in common is computed once.

    ``chain`` holds DER certificates from this CA to the root. ``issue_until_us`` None means until
    the CA's end, ``signature`` None that it signs as ``algorithms.of_issuer`` says. ``role`` is
    what the CA is to this box: profiles may name it. A CA makes delta CRLs if ``delta_urls`` says
    where they are; certificates do not name these, so that deltas can end. With ``partitions`` a
    certificate names the CRL of its own one instead of the complete one. Raises IntegrityError
    when ``ca_id`` is not that of the certificate's key.
    """

    ca_id: str
    certificate: x509.Certificate
    chain: tuple[bytes, ...]
    crl_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    ca_urls: tuple[str, ...] = ()
    issue_until_us: int | None = None
    signature: SignatureAlgorithm | None = None
    role: str = "issuing"
    delta_urls: tuple[str, ...] = ()
    partitions: Partitions = UNPARTITIONED

    def __post_init__(self) -> None:
        """Check that name and certificate belong together."""
        if keys.ca_id(self.public_key) != self.ca_id:
            raise IntegrityError(f"The CA certificate does not belong to the CA {self.ca_id}.")

    @cached_property
    def public_key(self) -> PublicKey:
        """The key that verifies what this CA signed."""
        return keys.of_ca(self.certificate)

    @cached_property
    def algorithm(self) -> SignatureAlgorithm:
        """What this CA signs with."""
        return self.signature or algorithms.of_issuer(self.public_key, self.certificate)

    @cached_property
    def limits(self) -> IssuerLimits:
        """The window in which this CA issues, and its end."""
        not_after_us = utc_us_of(self.certificate.not_valid_after_utc)
        return IssuerLimits(
            not_before_us=utc_us_of(self.certificate.not_valid_before_utc),
            not_after_us=not_after_us,
            issue_until_us=self.issue_until_us or not_after_us,
        )

    @cached_property
    def path_length(self) -> int | None:
        """How many CAs may follow this one; None: as many as like (RFC 5280 §4.2.1.9)."""
        constraints = x509.BasicConstraints
        return self.certificate.extensions.get_extension_for_class(constraints).value.path_length

    @cached_property
    def name(self) -> x509.Name:
        """The issuer name of what this CA signs."""
        return self.certificate.subject

    @cached_property
    def encoded_name(self) -> bytes:
        """The same in DER."""
        return self.name.public_bytes()

    @cached_property
    def authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """Names this CA's key as its own certificate does (RFC 5280 §4.2.1.1)."""
        extension = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)

    @cached_property
    def encoded_key_identifier(self) -> bytes:
        """The same as a DER Extension."""
        return encode_extension(self.authority_key_identifier)

    @cached_property
    def encoded_key_and_issuer(self) -> bytes:
        """DER Extension that also names this CA's certificate by issuer and serial number."""
        named = x509.AuthorityKeyIdentifier(
            self.authority_key_identifier.key_identifier,
            [x509.DirectoryName(self.certificate.issuer)],
            self.certificate.serial_number,
        )
        return encode_extension(named)

    @cached_property
    def encoded_freshest(self) -> bytes:
        """DER Extension of complete CRLs: where their deltas are; nothing without deltas."""
        if not self.delta_urls:
            return b""
        return encode_extension(x509.FreshestCRL([_point(self.delta_urls)]))

    def encoded_pointers(self, serial: int, wanted: Pointers) -> bytes:
        """DER Extensions: where status and the CA certificate are (one point, one AIA).

        Addresses of a profile's own are those of the complete CRL, which lists every certificate.
        """
        if wanted.crl_urls is None:
            points = self._encoded_points
            point = points[serial % len(points)]
        else:
            point = _encoded_point(self._filled(wanted.crl_urls))
        ocsp, ca = wanted.ocsp_urls, wanted.ca_urls
        return point + _encoded_access(
            self.ocsp_urls if ocsp is None else self._filled(ocsp),
            self.ca_urls if ca is None else self._filled(ca),
        )

    def issuing_point(self, partition: Partition) -> x509.IssuingDistributionPoint:
        """Say of a partition's CRL which one it is (RFC 5280 §5.2.5): certificates of any kind.

        It has the names that stand in certificates' distribution points, now or formerly.
        """
        urls = tuple(map(partition.url, self.partitions.urls))
        return x509.IssuingDistributionPoint(
            full_name=_uris(urls),
            relative_name=None,
            only_contains_user_certs=False,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )

    @cached_property
    def _encoded_points(self) -> tuple[bytes, ...]:
        """DER Extensions: where the CRL of each partition in force is (RFC 5280 §4.2.1.13)."""
        count = self.partitions.in_force
        addresses = [
            tuple(map(Partition(count, index).url, self.crl_urls)) for index in range(count)
        ]
        return tuple(map(_encoded_point, addresses if count > 1 else [self.crl_urls]))

    def _filled(self, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(url.replace("{ca_id}", self.ca_id) for url in urls)


def unsigned(plan: Plan, issuer: Issuer, serial: int) -> bytes:
    """Build the DER TBSCertificate that the issuer is to sign.

    Raises BadRequestError when a name or the public key in the plan is not allowed.
    """
    start = _serial(serial) + issuer.algorithm.identifier + issuer.encoded_name
    by_key_alone = plan.authority_key is AuthorityKey.KEY
    key = issuer.encoded_key_identifier if by_key_alone else issuer.encoded_key_and_issuer
    return _unsigned(plan, start, key + issuer.encoded_pointers(serial, plan.pointers))


def unsigned_root(plan: Plan, serial: int, algorithm: SignatureAlgorithm) -> bytes:
    """Build the DER TBSCertificate of a self-signed CA: its subject is its issuer."""
    subject = names.encode_name(plan.subject).public_bytes()
    return _unsigned(plan, _serial(serial) + algorithm.identifier + subject, b"")


def assemble(tbs: bytes, signature: bytes, issuer: Issuer) -> bytes:
    """Join TBSCertificate and signature value; gives the DER certificate.

    Raises IntegrityError when the issuer's key did not make the signature over exactly these
    bytes, or when the result does not read back as a certificate with these bytes.
    """
    return assemble_root(tbs, signature, issuer.public_key, issuer.algorithm)


def assemble_root(
    tbs: bytes, signature: bytes, public_key: PublicKey, algorithm: SignatureAlgorithm
) -> bytes:
    """Do what ``assemble`` does for a self-signed CA."""
    der = signed.assemble(tbs, signature, public_key, algorithm)
    try:
        same = x509.load_der_x509_certificate(der).tbs_certificate_bytes == tbs
    except ValueError as error:
        raise IntegrityError("What was signed is not a certificate.") from error
    if not same:
        raise IntegrityError("The certificate does not say what was to be signed.")
    return der


def ca_plan(
    subject: tuple[NameAttribute, ...],
    public_key: bytes,
    *,
    path_length: int,
    not_before_us: int,
    not_after_us: int = NO_EXPIRY_US,
) -> Plan:
    """Plan a CA: root (path length 2), fleet CA (1) or gateway CA (0); times in UTC µs.

    CAs of IDevIDs and their parents do not expire (IEEE 802.1AR §8.7).
    """
    return Plan(
        profile="ca",
        profile_version=1,
        purpose="ca",
        subject=subject,
        alt_names=(),
        public_key=public_key,
        not_before_us=not_before_us,
        not_after_us=not_after_us,
        key_usage=("key_cert_sign", "crl_sign"),
        extended_key_usage=(),
        ca_path_length=path_length,
    )


def responder_plan(
    subject: tuple[NameAttribute, ...],
    public_key: bytes,
    *,
    not_before_us: int,
    not_after_us: int,
) -> Plan:
    """Plan a delegated OCSP responder of one CA (RFC 6960 §4.2.2.2); times in UTC µs."""
    return Plan(
        profile="ocsp-responder",
        profile_version=1,
        purpose="ocsp-responder",
        subject=subject,
        alt_names=(),
        public_key=public_key,
        not_before_us=not_before_us,
        not_after_us=not_after_us,
        key_usage=("digital_signature",),
        extended_key_usage=(ExtendedKeyUsageOID.OCSP_SIGNING.dotted_string,),
        no_check=True,
        pointers=NO_POINTERS,
    )


def _unsigned(plan: Plan, start: bytes, issuer_extensions: bytes) -> bytes:
    """Put together a TBSCertificate (RFC 5280 §4.1); ``start``: serial, algorithm and issuer."""
    keys.load_spki(plan.public_key)  # a sound key, e.g. a point on its curve, or BadRequestError
    validity = encode_time(plan.not_before_us) + encode_time(plan.not_after_us)
    fields = (
        _VERSION_3,
        start,
        tlv(signed.SEQUENCE, validity),
        names.encode_name(plan.subject).public_bytes(),
        plan.public_key,
        tlv(_EXTENSIONS_TAG, tlv(signed.SEQUENCE, issuer_extensions + _own_extensions(plan))),
    )
    return tlv(signed.SEQUENCE, b"".join(fields))


def _serial(number: int) -> bytes:
    return tlv(signed.INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _own_extensions(plan: Plan) -> bytes:
    """Encode the extensions that do not come from the issuer."""
    extensions = [
        _encoded_subject_key(plan),
        _usage_extensions(
            plan.key_usage, plan.extended_key_usage, plan.ca_path_length, plan.no_check
        ),
    ]
    for oid, critical, value in plan.extensions:
        further = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        extensions.append(encode_extension(further, critical=critical))
    if plan.alt_names:
        alternatives = x509.SubjectAlternativeName(map(names.encode_alt_name, plan.alt_names))
        # Critical when it alone names the subject (RFC 5280 §4.1.2.6).
        extensions.append(encode_extension(alternatives, critical=not plan.subject))
    return b"".join(extensions)


def _encoded_subject_key(plan: Plan) -> bytes:
    if plan.subject_key is SubjectKey.NONE:
        return b""
    by_sha256 = plan.subject_key is SubjectKey.SHA256
    identifier = keys.key_identifier if by_sha256 else keys.key_identifier_sha1
    return encode_extension(x509.SubjectKeyIdentifier(identifier(plan.public_key)))


@lru_cache(maxsize=256)
def _usage_extensions(
    key_usage: tuple[str, ...],
    extended_key_usage: tuple[str, ...],
    ca_path_length: int | None,
    no_check: bool,
) -> bytes:
    """Encode what all certificates of a profile have in common."""
    usage = x509.KeyUsage(**{bit: bit in key_usage for bit in KEY_USAGE_BITS})
    constraints = x509.BasicConstraints(ca_path_length is not None, ca_path_length)
    extensions = encode_extension(constraints, critical=True) + encode_extension(
        usage, critical=True
    )
    if extended_key_usage:
        purposes = map(x509.ObjectIdentifier, extended_key_usage)
        extensions += encode_extension(x509.ExtendedKeyUsage(purposes))
    if no_check:
        extensions += encode_extension(x509.OCSPNoCheck())
    return extensions


def encode_extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    """Encode an Extension (RFC 5280 §4.2); not critical is the default and left out in DER."""
    content = tlv(signed.OCTET_STRING, value.public_bytes())
    mark = _CRITICAL if critical else b""
    return tlv(signed.SEQUENCE, asn1.encode_der(value.oid) + mark + content)


def encode_time(utc_us: int) -> bytes:
    """Encode a Time by its year; 2050 and later as GeneralizedTime."""
    moment = datetime_of(utc_us)
    if moment.year < _GENERALIZED_TIME_FROM:
        return tlv(signed.UTC_TIME, f"{moment:%y%m%d%H%M%SZ}".encode("ascii"))
    return tlv(signed.GENERALIZED_TIME, f"{moment:%Y%m%d%H%M%SZ}".encode("ascii"))


@lru_cache(maxsize=1024)
def _encoded_point(urls: tuple[str, ...]) -> bytes:
    return encode_extension(x509.CRLDistributionPoints([_point(urls)])) if urls else b""


@lru_cache(maxsize=1024)
def _encoded_access(ocsp_urls: tuple[str, ...], ca_urls: tuple[str, ...]) -> bytes:
    access = [
        x509.AccessDescription(method, uri)
        for method, urls in (
            (AuthorityInformationAccessOID.OCSP, ocsp_urls),
            (AuthorityInformationAccessOID.CA_ISSUERS, ca_urls),
        )
        for uri in _uris(urls)
    ]
    return encode_extension(x509.AuthorityInformationAccess(access)) if access else b""


def _uris(urls: tuple[str, ...]) -> list[x509.UniformResourceIdentifier]:
    return [x509.UniformResourceIdentifier(url) for url in urls]


def _point(urls: tuple[str, ...]) -> x509.DistributionPoint:
    """Name the addresses of one CRL (RFC 5280 §4.2.1.13)."""
    return x509.DistributionPoint(_uris(urls), None, None, None)
