"""The gateway's own OCSP responder per CA: a software key with a certificate of seven days.

It is renewed at half-life while the token is there; between, OCSP needs no token (design.md §4).
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.issuing import Authorities
from shared.hsm.client import RemoteIssuingKey
from shared.issuance.ports import Priority, Purpose
from shared.kernel.clock import US_PER_SECOND, Clock, utc_us_of
from shared.kernel.errors import NotFoundError, UnavailableError
from shared.kernel.ids import Random, random_serial
from shared.pki import certificates, keys
from shared.pki.plan import NameAttribute
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.store.vault import Vault

_HOUR_US = 3600 * US_PER_SECOND
_LIFETIME_US = 7 * 24 * _HOUR_US
_RENEW_BEFORE_US = _LIFETIME_US // 2
#: A clock of a relying party may be behind ours.
_BACK_DATED_US = _HOUR_US
_NAMES = {
    Purpose.OWN_RESPONDER: "OCSP responder of the gateway",
    Purpose.CENTRAL_RESPONDER: "OCSP responder of central",
}
_CHECK_S = 600


@dataclass(frozen=True, slots=True)
class OwnResponder:
    """A key that answers for one CA; implements ``shared.validation.ports.Responder``."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def not_after_us(self) -> int:
        """When it ends, UTC µs."""
        return utc_us_of(self.certificate.not_valid_after_utc)


class Responders:
    """Keeps a responder per own CA."""

    def __init__(
        self,
        *,
        authorities: Authorities,
        database: Database,
        vault: Vault,
        clock: Clock,
        random: Random,
    ) -> None:
        """Take the ports; ``step`` renews."""
        self._authorities = authorities
        self._database = database
        self._vault = vault
        self._clock = clock
        self._random = random
        self._responders: dict[str, OwnResponder] = {}

    async def load(self) -> None:
        """Take up the responders that an earlier start made: OCSP answers without the token."""
        for key in self._authorities.own:
            ca_id = key.issuer.ca_id
            try:
                der = await self._vault.get(_certificate_name(ca_id))
                private_key = await self._vault.key(_key_name(ca_id))
            except NotFoundError:
                continue
            certificate = x509.load_der_x509_certificate(der)
            if certificate.public_key() == private_key.public_key():
                self._responders[ca_id] = OwnResponder(private_key, certificate)

    def responder(self, ca_id: str) -> OwnResponder | None:
        """Give the responder of a CA, None if it is not ours; raises UnavailableError."""
        if ca_id not in {key.issuer.ca_id for key in self._authorities.own}:
            return None
        found = self._responders.get(ca_id)
        if found is None or found.not_after_us <= self._clock.now().utc_us:
            raise UnavailableError("The OCSP responder of this CA waits for the token.")
        return found

    async def step(self) -> float:
        """Renew what is due; gives the seconds until the next look."""
        now_us = self._clock.now().utc_us
        for key in self._authorities.own:
            known = self._responders.get(key.issuer.ca_id)
            if known is None or known.not_after_us - now_us <= _RENEW_BEFORE_US:
                await self._renew(key, now_us)
        return _CHECK_S

    async def _renew(self, key: RemoteIssuingKey, now_us: int) -> None:
        ca_id = key.issuer.ca_id
        private_key = keys.generate()
        der = await certify(
            self._authorities.of(ca_id),
            keys.spki(private_key.public_key()),
            Purpose.OWN_RESPONDER,
            (now_us, now_us - _BACK_DATED_US + _LIFETIME_US),
            self._random,
        )

        def keep(transaction: Transaction) -> None:
            self._vault.keep_key(transaction, _key_name(ca_id), private_key)
            self._vault.keep(transaction, _certificate_name(ca_id), der)

        await self._database.writer.run(keep)
        self._responders[ca_id] = OwnResponder(private_key, x509.load_der_x509_certificate(der))


async def certify(
    key: RemoteIssuingKey,
    spki: bytes,
    purpose: Purpose,
    validity_us: tuple[int, int],
    random: Random,
) -> bytes:
    """Sign a responder's certificate; gives DER. It begins an hour before ``validity_us`` does."""
    from_us, not_after_us = validity_us
    earliest_us = max(from_us - _BACK_DATED_US, key.issuer.limits.not_before_us)
    plan = certificates.responder_plan(
        (NameAttribute(NameOID.COMMON_NAME.dotted_string, _NAMES[purpose]),),
        spki,
        not_before_us=earliest_us // US_PER_SECOND * US_PER_SECOND,
        not_after_us=not_after_us // US_PER_SECOND * US_PER_SECOND,
    )
    tbs = certificates.unsigned(plan, key.issuer, random_serial(random))
    signature = await key.sign(tbs, purpose, priority=Priority.STATUS, reference=purpose.value)
    return certificates.assemble(tbs, signature, key.issuer)


def _key_name(ca_id: str) -> str:
    return f"responder_key/{ca_id}"


def _certificate_name(ca_id: str) -> str:
    return f"responder_certificate/{ca_id}"
