"""Keys with a certificate that central uses itself: on the transport, and for pages and APIs."""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from central.authority.hierarchy import certify, record
from shared.issuance.ports import IssuingKey, Purpose
from shared.kernel import cbor
from shared.kernel.clock import Clock, utc_us_of
from shared.kernel.errors import NotFoundError
from shared.kernel.ids import Random
from shared.pki import formats, keys
from shared.pki.plan import Plan
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.store.vault import Vault

_BYTES_MAX = 64 * 1024
#: Plans a certificate for a DER SubjectPublicKeyInfo at a time in UTC µs.
Planner = Callable[[bytes, int], Plan]


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key and its certificate; ``chain`` is DER from its issuer upwards."""

    private_key: ec.EllipticCurvePrivateKey
    certificate: bytes
    chain: tuple[bytes, ...]

    @property
    def key_pem(self) -> bytes:
        """The key for OpenSSL; it goes into memory or a 0600 file, nowhere else."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def chain_pem(self) -> bytes:
        """The certificates that a TLS server sends: its own, then its issuers without the root."""
        return formats.pem((self.certificate, *self.chain[:-1])).encode()

    def half_spent(self, now_us: int) -> bool:
        """Tell whether a successor is due."""
        certificate = x509.load_der_x509_certificate(self.certificate)
        begin = utc_us_of(certificate.not_valid_before_utc)
        return now_us >= (begin + utc_us_of(certificate.not_valid_after_utc)) // 2


class Identities:
    """Keeps identities wrapped and renews them, with a new key, at half of their life."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, random: Random) -> None:
        """Take where they are kept."""
        self._database = database
        self._vault = vault
        self._clock = clock
        self._random = random

    async def current(
        self, name: str, issuer: IssuingKey, plan: Planner, hosts: tuple[str, ...]
    ) -> Identity:
        """Give an identity that is good for ``hosts``; make or renew it if needed."""
        known = await self._stored(name, issuer)
        now_us = self._clock.now().utc_us
        if known is not None and not known.half_spent(now_us) and _names(known) == set(hosts):
            return known
        made = await self.make(issuer, plan)

        def unit(transaction: Transaction) -> None:
            record(transaction, issuer.issuer.ca_id, made.certificate, name)
            self._vault.keep(transaction, f"identity/{name}", _encode(made))

        await self._database.writer.run(unit)
        return made

    async def make(self, issuer: IssuingKey, plan: Planner) -> Identity:
        """Make an identity that is not kept here."""
        private_key = keys.generate()
        planned = plan(keys.spki(private_key.public_key()), self._clock.now().utc_us)
        der = await certify(issuer, planned, Purpose.LEAF, self._random)
        return Identity(private_key, der, issuer.issuer.chain)

    async def _stored(self, name: str, issuer: IssuingKey) -> Identity | None:
        try:
            stored = cbor.decode(await self._vault.get(f"identity/{name}"), limit=_BYTES_MAX)
        except NotFoundError:
            return None
        private_key = load_der_private_key(stored["key"], password=None)
        assert isinstance(private_key, ec.EllipticCurvePrivateKey)
        return Identity(private_key, stored["certificate"], issuer.issuer.chain)


def _encode(identity: Identity) -> bytes:
    key = identity.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return cbor.encode({"key": key, "certificate": identity.certificate})


def _names(identity: Identity) -> set[str]:
    """Read the host names and addresses that the certificate names."""
    extensions = x509.load_der_x509_certificate(identity.certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}
