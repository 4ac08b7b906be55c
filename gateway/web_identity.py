"""The box's own TLS certificate for the page and the APIs: a leaf of its own CA, renewed by itself.

Until the token was there once, a self-signed one stands in: the page must say that it is missing.
"""

import logging
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.issuing import Authorities
from shared.issuance.service import IssuanceService
from shared.kernel import cbor
from shared.kernel.clock import Clock, utc_us_of
from shared.kernel.errors import NotFoundError, RefusedError
from shared.pki import formats, keys, names
from shared.pki.cms import Signer
from shared.pki.plan import NameAttribute
from shared.policy.request import INTERNAL, EnrollmentRequest, Operation
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.web import tls

_LOG = logging.getLogger(__name__)
_PROFILE = "tls-server"
_KEY, _CHAIN = "web_key", "web_chain"
_CHAIN_BYTES_MAX = 64 * 1024
_CHECK_S, _REFUSED_S = 600, 24 * 3600


class WebIdentity:
    """Holds the TLS contexts of both HTTPS listeners and keeps their certificate valid."""

    def __init__(
        self,
        *,
        gateway: str,
        hosts: Sequence[str],
        authorities: Authorities,
        database: Database,
        vault: Vault,
        clock: Clock,
    ) -> None:
        """Take the names that the certificate must hold; ``load`` comes next."""
        self._gateway = gateway
        self._hosts = tuple(hosts)
        self._authorities = authorities
        self._database = database
        self._vault = vault
        self._clock = clock
        self._certificate: x509.Certificate | None = None  # None: self-signed
        self.signer: Signer
        self.people: ssl.SSLContext
        self.machines: ssl.SSLContext

    async def load(self) -> None:
        """Make the contexts with the certificate that is kept, else with a self-signed one."""
        try:
            key = await self._vault.key(_KEY)
            kept = cbor.decode(await self._vault.get(_CHAIN), limit=_CHAIN_BYTES_MAX)
            self._certificate = x509.load_der_x509_certificate(kept[0])
        except NotFoundError:
            key = keys.generate()
            kept = [tls.self_signed(key, self._hosts, self._clock.now().utc_us)]
        self.signer = Signer(key, tuple(kept))
        pem = formats.pem(kept).encode(), tls.key_pem(key)
        own = [authority.issuer.chain[0] for authority in self._authorities.own]
        self.people = tls.people_context(*pem)
        self.machines = tls.machine_context(*pem, own)

    async def step(self, issuance: IssuanceService) -> float:
        """Renew if it is due; gives the seconds until the next look."""
        if not self._due():
            return _CHECK_S
        key = keys.generate()
        try:
            issued = await issuance.issue(self._request(key))
        except RefusedError as error:
            _LOG.warning("The page keeps a certificate that browsers refuse: %s", error.message)
            return _REFUSED_S
        chain = [issued.der, *self._authorities.of(issued.ca_id).issuer.chain[:-1]]

        def keep(transaction: Transaction) -> None:
            self._vault.keep_key(transaction, _KEY, key)
            self._vault.keep(transaction, _CHAIN, cbor.encode(chain))

        await self._database.writer.run(keep)
        self._certificate = x509.load_der_x509_certificate(issued.der)
        self.signer = Signer(key, tuple(chain))
        for context in (self.people, self.machines):
            tls.load_identity(context, formats.pem(chain).encode(), tls.key_pem(key))
        return _CHECK_S

    def _due(self) -> bool:
        """Tell if there is none, its names changed, or half of its life is over."""
        certificate = self._certificate
        if certificate is None:
            return True
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if {str(name.value) for name in held} != set(self._hosts):
            return True
        begin = utc_us_of(certificate.not_valid_before_utc)
        end = utc_us_of(certificate.not_valid_after_utc)
        return self._clock.now().utc_us >= (begin + end) // 2

    def _request(self, key: ec.EllipticCurvePrivateKey) -> EnrollmentRequest:
        return EnrollmentRequest(
            operation=Operation.ENROLL,
            protocol=INTERNAL,
            alias="web",
            profile=_PROFILE,
            principal=f"device:{self._gateway}",
            public_key=keys.spki(key.public_key()),
            subject=(NameAttribute(NameOID.COMMON_NAME.dotted_string, self._hosts[0]),),
            alt_names=tuple(map(names.host_name, self._hosts)),
        )
