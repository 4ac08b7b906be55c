"""A root, a fleet CA and a gateway CA with software keys, made as the products make them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import count

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.clock import US_PER_SECOND
from shared.pki import algorithms, certificates, keys, names
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType, PrivateKey
from shared.pki.plan import NO_EXPIRY_US, AltName, AltNameKind, NameAttribute, Plan

NOW_US = 1_790_000_000 * US_PER_SECOND  # 2026-09-21
DAY_US = 24 * 3600 * US_PER_SECOND
_SERIALS = count(1 << 100)


@dataclass(frozen=True)
class Authority:
    """A CA with its key."""

    key: PrivateKey
    issuer: Issuer

    def issue(self, plan: Plan, serial: int | None = None) -> bytes:
        """Issue what is planned: unsigned, sign, assemble; gives DER."""
        tbs = certificates.unsigned(plan, self.issuer, serial or next(_SERIALS))
        return certificates.assemble(tbs, self.sign(tbs), self.issuer)

    def sign(self, document: bytes) -> bytes:
        return self.issuer.algorithm.sign(self.key, document)


def subject(common_name: str, serial_number: str | None = None) -> tuple[NameAttribute, ...]:
    name = NameAttribute(names.COMMON_NAME, common_name)
    return (name, NameAttribute(names.SERIAL_NUMBER, serial_number)) if serial_number else (name,)


def leaf_plan(**changes) -> Plan:
    """A TLS server certificate for 90 days."""
    fields = {
        "profile": "tls-server",
        "profile_version": 1,
        "purpose": "tls-server",
        "subject": subject("device-1", "SN-0001"),
        "alt_names": (AltName(AltNameKind.DNS, "device-1.example"),),
        "public_key": keys.spki(keys.generate().public_key()),
        "not_before_us": NOW_US,
        "not_after_us": NOW_US + 90 * DAY_US,
        "key_usage": ("digital_signature",),
        "extended_key_usage": ("1.3.6.1.5.5.7.3.1",),
    }
    return Plan(**fields | changes)


def root_authority(
    common_name: str = "Test root",
    kind: KeyType = KeyType.EC_P256,
    signature: str | None = None,
) -> Authority:
    key = keys.generate(kind)
    plan = certificates.ca_plan(
        subject(common_name), keys.spki(key.public_key()), path_length=2, not_before_us=NOW_US
    )
    algorithm = algorithms.chosen(key.public_key(), signature)
    tbs = certificates.unsigned_root(plan, next(_SERIALS), algorithm)
    value = algorithm.sign(key, tbs)
    der = certificates.assemble_root(tbs, value, key.public_key(), algorithm)
    return Authority(key, _issuer(key, der, (), algorithm))


def subordinate(
    parent: Authority,
    common_name: str,
    path_length: int,
    not_after_us: int = NO_EXPIRY_US,
    kind: KeyType = KeyType.EC_P256,
) -> Authority:
    key = keys.generate(kind)
    plan = certificates.ca_plan(
        subject(common_name),
        keys.spki(key.public_key()),
        path_length=path_length,
        not_before_us=NOW_US,
        not_after_us=not_after_us,
    )
    return Authority(key, _issuer(key, parent.issue(plan), parent.issuer.chain))


@dataclass(frozen=True)
class Hierarchy:
    """The three tiers of design.md §4."""

    @cached_property
    def root(self) -> Authority:
        return root_authority()

    @cached_property
    def fleet(self) -> Authority:
        return subordinate(self.root, "Test fleet CA", 1)

    @cached_property
    def gateway(self) -> Authority:
        return subordinate(self.fleet, "Test gateway CA gw-01", 0)


def csr(
    key: PrivateKey,
    name: x509.Name,
    *extensions: x509.ExtensionType,
    encoding: Encoding = Encoding.DER,
    hashing: HashAlgorithm | None = None,
) -> bytes:
    """A certification request as OpenSSL's users make it; ``hashing`` None: SHA-256."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    hashes = algorithms.usual(key.public_key()).hash is not None
    return builder.sign(key, (hashing or SHA256()) if hashes else None).public_bytes(encoding)


def _issuer(
    key: PrivateKey,
    der: bytes,
    chain: tuple[bytes, ...],
    signature: SignatureAlgorithm | None = None,
) -> Issuer:
    ca_id = keys.ca_id(key.public_key())
    return Issuer(
        ca_id=ca_id,
        certificate=x509.load_der_x509_certificate(der),
        chain=(der, *chain),
        crl_urls=(
            f"http://gw-01.example:9080/crl/{ca_id}.crl",
            f"http://central.example:8080/crl/{ca_id}.crl",
        ),
        ocsp_urls=("http://gw-01.example:9080/ocsp", "http://central.example:8080/ocsp"),
        ca_urls=(f"http://gw-01.example:9080/ca/{ca_id}.cer",),
        signature=signature,
    )
