"""How CA certificates come to be: self-signed, below another, across, or asked for elsewhere."""

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from central.authority import hierarchy as kinds
from central.authority import plans
from central.authority.hierarchy import certify, issuer_of
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.ports import Purpose
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError
from shared.kernel.ids import Random, random_serial
from shared.pki import algorithms, certificates, keys, names
from shared.pki.keys import PrivateKey
from shared.pki.plan import NO_EXPIRY_US, NameAttribute, Plan

_DAY_US = 24 * 3600 * US_PER_SECOND
#: What a CA of a kind certifies, as the path length of its certificate; others: as asked for.
_PATH_LENGTHS = {kinds.ISSUING: 0, kinds.FLEET: 1}
_ROOT_PATH_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """A CA that is to be made. ``common_name`` is what its certificates call it."""

    name: str
    kind: str
    tenant: str
    private_key: PrivateKey
    common_name: str

    @property
    def spki(self) -> bytes:
        """Its public key, DER."""
        return keys.spki(self.private_key.public_key())

    @property
    def ca_id(self) -> str:
        """Its id."""
        return keys.ca_id(self.private_key.public_key())


class Maker:
    """Makes certificates of CAs; nothing is stored here."""

    def __init__(self, organization: str, clock: Clock, random: Random) -> None:
        """Take what goes into each of them."""
        self._organization = organization
        self._clock = clock
        self._random = random

    def self_signed(self, subject: Subject, path_length: int | None, end_us: int) -> bytes:
        """Make a root, DER; a path length of None is a deep one."""
        depth = _ROOT_PATH_LENGTH if path_length is None else path_length
        plan = self._plan(subject, depth, end_us)
        public_key = subject.private_key.public_key()
        algorithm = algorithms.usual(public_key)
        tbs = certificates.unsigned_root(plan, random_serial(self._random), algorithm)
        signature = algorithm.sign(subject.private_key, tbs)
        return certificates.assemble_root(tbs, signature, public_key, algorithm)

    async def below(
        self, parent: SoftwareIssuingKey, subject: Subject, path_length: int | None, end_us: int
    ) -> bytes:
        """Make a CA below another, DER; it ends with its parent at the latest.

        Raises BadRequestError when the parent allows no CA of this depth.
        """
        limit = parent.issuer.path_length
        if limit == 0:
            raise BadRequestError(f"The CA {parent.issuer.ca_id} must not certify CAs.")
        most = _ROOT_PATH_LENGTH if limit is None else limit - 1
        wanted = _PATH_LENGTHS.get(subject.kind, most if path_length is None else path_length)
        if wanted > most:
            raise BadRequestError(
                f"The parent's path length is {limit}; that of a CA below it must be less.",
                pointer="/path_length",
            )
        plan = self._plan(subject, wanted, end_us)
        return await certify(parent, plan, Purpose.CA, self._random)

    def request(self, subject: Subject) -> bytes:
        """Ask for a CA certificate, DER: the extensions say what it is to be (RFC 2985 §5.4.2)."""
        return _csr(subject, self._plan(subject, 0, NO_EXPIRY_US).subject)

    def _plan(self, subject: Subject, path_length: int, end_us: int) -> Plan:
        return plans.authority(
            subject.common_name,
            self._organization,
            subject.spki,
            path_length=path_length,
            now_us=self._clock.now().utc_us,
            not_after_us=end_us,
        )

    async def cross(self, issuer: SoftwareIssuingKey, subject_der: bytes, end_us: int) -> bytes:
        """Certify another CA's name and key, DER; it ends with both at the latest."""
        end_us = min(end_us, kinds.not_after_us(subject_der))
        plan = plans.cross(subject_der, now_us=self._clock.now().utc_us, not_after_us=end_us)
        return await certify(issuer, plan, Purpose.CA, self._random)

    async def links(
        self, former: SoftwareIssuingKey, subject: Subject, der: bytes
    ) -> list[tuple[str, str, bytes]]:
        """Certify new by old and old by new; gives (certified, issuer, DER)."""
        successor = SoftwareIssuingKey(issuer_of(der, (), None), subject.private_key)
        old_id, new_id = former.issuer.ca_id, subject.ca_id
        return [
            (new_id, old_id, await self.cross(former, der, NO_EXPIRY_US)),
            (old_id, new_id, await self.cross(successor, former.issuer.chain[0], NO_EXPIRY_US)),
        ]

    def end_us(self, days: int | None) -> int:
        """When what lives so many days from now ends, UTC µs; None: never."""
        return NO_EXPIRY_US if days is None else self._clock.now().utc_us + days * _DAY_US


def _csr(subject: Subject, name: tuple[NameAttribute, ...]) -> bytes:
    """Ask for a CA certificate: the extensions say what it is to be (RFC 2985 §5.4.2)."""
    path_length = _PATH_LENGTHS.get(subject.kind)
    usage = {bit: bit in {"key_cert_sign", "crl_sign"} for bit in certificates.KEY_USAGE_BITS}
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(names.encode_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    signer: Any = subject.private_key  # of a type that issues: it signs requests too
    algorithm: Any = algorithms.usual(subject.private_key.public_key()).hash
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER)
