"""The operations of EST: each parses, has the requester admitted, issues and encodes."""

from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web
from cryptography import x509

from shared.enroll.est import answers, binding, bodies, csrattrs, key_encryption, renewing
from shared.enroll.est.ports import EstPorts
from shared.enroll.est.server_keys import ServerKeys
from shared.enroll.requesters.doorkeeper import Enroller
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, ForbiddenError, NotFoundError
from shared.pki import cms
from shared.pki.enveloped import Envelope
from shared.pki.request import CertificationRequest
from shared.policy.access import Alias
from shared.policy.request import EnrollmentRequest, Operation
from shared.web.app import read_body

PROTOCOL = "est"
#: The alias of addresses without a label.
DEFAULT_ALIAS = "default"
ALIAS: web.RequestKey[str] = web.RequestKey("alias", str)
_CSR_ATTRIBUTES = "application/csrattrs"
_ROOT_KIND = "root"
_ROOTS_US = 10 * US_PER_SECOND
_PKCS8 = "application/pkcs8"
_ENCRYPTED_KEY = "application/pkcs7-mime; smime-type=server-generated-key"


class Enrolling:
    """Handlers of the EST routes."""

    def __init__(self, ports: EstPorts) -> None:
        """Take the ports."""
        self._ports = ports
        self._server_keys = ServerKeys(ports)
        self._roots: Sequence[tuple[x509.Name, bytes]] = ()
        self._roots_until_us = 0

    async def cacerts(self, request: web.Request) -> web.Response:
        """Give the chain of the alias's CA, and other roots of the same name (roll-over).

        With them go the links by which who trusts one generation verifies the other: OldWithNew
        and NewWithOld (RFC 7030 §4.1.3). A cross-certificate by a root of another name is none.
        """
        alias = self._alias(request)
        chain = self._ports.chain(alias.profile)
        root = x509.load_der_x509_certificate(chain[-1])
        others = [
            der
            for name, der in await self._other_roots()
            if der not in chain and name == root.subject
        ]
        return answers.certificates(request, [*chain, *others], alias.wrapping)

    async def csrattrs(self, request: web.Request) -> web.Response:
        """Say what a request for this alias should hold."""
        alias = self._alias(request)
        profile = self._ports.profile(alias.profile)
        attributes = csrattrs.attributes(profile, channel_binding=alias.channel_binding)
        return answers.encoded(request, attributes, _CSR_ATTRIBUTES, alias.wrapping)

    async def simpleenroll(self, request: web.Request) -> web.Response:
        """Issue a certificate for the key and the names of the request."""
        alias = self._alias(request)
        enroller = await self._ports.doorkeeper.admit(request, alias)
        wish = _wish(alias, enroller, await self._request(request, alias))
        issued = await self._ports.issuance.issue(wish)
        return answers.certificates(request, [issued.der], alias.wrapping)

    async def simplereenroll(self, request: web.Request) -> web.Response:
        """Issue the successor of the certificate that the client presents."""
        alias = self._alias(request)
        principal = await self._ports.doorkeeper.holder(request)
        if principal.certificate is None:
            raise ForbiddenError("The certificate that is presented was not issued here.")
        row = await self._ports.reads.certificate(*principal.certificate)
        if row is None:
            raise NotFoundError("The certificate that is presented is not known here.")
        current = renewing.require_renewable(row, alias, self._ports.clock.now().utc_us)
        raw = await self._body(request, alias)
        csr = CertificationRequest.parse(raw)
        subject, alt_names = renewing.wanted_names(current, csr, raw, alias)
        wish = EnrollmentRequest(
            operation=Operation.RENEW,
            protocol=PROTOCOL,
            alias=alias.name,
            profile=alias.profile,
            principal=principal.name,
            public_key=csr.public_key,
            csr_hash=csr.signature_hash,
            subject=subject,
            alt_names=alt_names,
            device_id=row.device_id,
            replaces=principal.certificate,
            known_devices_only=alias.known_devices_only,
        )
        issued = await self._ports.issuance.issue(wish)
        return answers.certificates(request, [issued.der], alias.wrapping)

    async def serverkeygen(self, request: web.Request) -> web.Response:
        """Make a key and issue a certificate for it; the request's own key is not used."""
        alias = self._alias(request)
        if not alias.server_keys:
            raise ForbiddenError(f"The alias {alias.name} makes no keys.")
        enroller = await self._ports.doorkeeper.admit(request, alias)
        raw = await self._body(request, alias)
        csr = CertificationRequest.parse(raw)
        envelope = await self._envelope(request, alias, raw)
        pair = await self._server_keys.certify(_wish(alias, enroller, csr))
        key = _PKCS8, pair.private_key
        if envelope is not None:
            ports = self._ports
            signer = ports.signer()
            key = (
                _ENCRYPTED_KEY,
                key_encryption.encrypted(pair.private_key, envelope, signer, ports.random),
            )
        certificate = answers.CERTS_ONLY, cms.certs_only([pair.certificate])
        return answers.multipart(request, [key, certificate], alias.wrapping)

    async def fullcmc(self, request: web.Request) -> web.Response:
        """Say that full CMC is not spoken here (RFC 7030 §4.3.1)."""
        self._alias(request)
        return web.Response(status=501, text="Full CMC is not supported; use simpleenroll.\n")

    async def _envelope(self, request: web.Request, alias: Alias, csr: bytes) -> Envelope | None:
        """Choose how the key travels before it is made; None: TLS is enough for this client.

        Raises BadRequestError, UnauthenticatedError, ForbiddenError: nothing was issued.
        """
        wanted = key_encryption.wanted(csr)
        if wanted is None:
            return None
        certificate = await self._ports.doorkeeper.presented(request, alias)
        if certificate is None:
            raise BadRequestError(
                "The key of AsymmetricDecryptKeyIdentifier is not known here.",
                remedy="Present the certificate that holds it over mutual TLS.",
            )
        return wanted.envelope(certificate)

    def _alias(self, request: web.Request) -> Alias:
        alias = self._ports.rules.alias(request.match_info.get("label", DEFAULT_ALIAS))
        request[ALIAS] = alias.name
        return alias

    async def _request(self, request: web.Request, alias: Alias) -> CertificationRequest:
        return CertificationRequest.parse(await self._body(request, alias))

    async def _body(self, request: web.Request, alias: Alias) -> bytes:
        """Read the request in DER, and have it bound to this connection where that is demanded."""
        raw = bodies.der(await read_body(request))
        if alias.channel_binding:
            binding.require(request, raw)
        return raw

    async def _other_roots(self) -> Sequence[tuple[x509.Name, bytes]]:
        """Give what is self-issued: roots and the links between their generations, by name."""
        now_us = self._ports.clock.now().utc_us
        if now_us >= self._roots_until_us:
            rows = await self._ports.reads.authorities()
            links = await self._ports.reads.cross_certificates()
            ders = [*(row.der for row in rows if row.kind == _ROOT_KIND), *links]
            parsed = [(x509.load_der_x509_certificate(der), der) for der in ders]
            self._roots = [(one.subject, der) for one, der in parsed if one.subject == one.issuer]
            self._roots_until_us = now_us + _ROOTS_US
        return self._roots


def _wish(alias: Alias, enroller: Enroller, csr: CertificationRequest) -> EnrollmentRequest:
    wish = EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol=PROTOCOL,
        alias=alias.name,
        profile=alias.profile,
        principal=enroller.name,
        public_key=csr.public_key,
        csr_hash=csr.signature_hash,
        subject=csr.subject,
        alt_names=csr.alt_names,
        known_devices_only=alias.known_devices_only,
        code=enroller.code,
    )
    if enroller.device is None:
        return wish
    if wish.device not in {None, enroller.device}:
        raise ForbiddenError(
            f"You are admitted for the device {enroller.device}; "
            f"the request names {wish.device} as its serialNumber."
        )
    return replace(wish, device_id=enroller.device)
