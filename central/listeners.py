"""The TLS contexts of pages and APIs, with central's web identity and the device CAs."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from central.core import Core
from shared.kernel.errors import BadRequestError, ConflictError
from shared.pki.cms import Signer
from shared.web import app
from shared.web.app import Endpoint
from shared.web.tls import (
    card_context,
    load_identity,
    machine_context,
    people_context,
    trust,
)

_DEVICE_KINDS = ("issuing", "gateway")


@asynccontextmanager
async def listening(endpoints: Sequence[Endpoint]) -> AsyncGenerator[None]:
    """Listen while the context is open; raises ConflictError when an address is taken."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(app.serve(endpoints))
        except OSError as error:
            raise ConflictError(
                f"Central cannot listen: {error.strerror}.",
                remedy="Give it free ports in [web], or stop what uses them.",
            ) from error
        yield


class Listeners:
    """Contexts that stay while what is in them is renewed; ``refresh`` once before use."""

    def __init__(self, central: Core) -> None:
        """Take central's state."""
        self._central = central
        self._certificate = b""
        self.signer: Signer

    async def refresh(self) -> None:
        """Load the web identity, a renewed one too, and the device CAs."""
        identity = await self._central.web_identity()
        if identity.certificate == self._certificate:
            return
        chain, key = identity.chain_pem, identity.key_pem
        if not self._certificate:
            rows = await self._central.reads.authorities()
            device_cas = [row.der for row in rows if row.kind in _DEVICE_KINDS]
            self.people = people_context(chain, key)
            self.machines = machine_context(chain, key, device_cas)
            self.cards = card_context(chain, key, self._login_cas())
        for context in (self.people, self.machines, self.cards):
            load_identity(context, chain, key)
        self.signer = Signer(identity.private_key, (identity.certificate, *identity.chain[:-1]))
        self._certificate = identity.certificate

    def _login_cas(self) -> list[bytes]:
        """Read the CAs of login certificates; raises BadRequestError naming the file."""
        found: list[bytes] = []
        for path in self._central.settings.web.card_authorities:
            try:
                certificates = x509.load_pem_x509_certificates(path.read_bytes())
            except (OSError, ValueError) as error:
                raise BadRequestError(
                    f"web.card_authorities: {path} is no PEM file of CA certificates."
                ) from error
            found += [one.public_bytes(Encoding.DER) for one in certificates]
        return found

    def accept(self, authority: bytes) -> None:
        """Accept client certificates of one more device CA (DER)."""
        trust(self.machines, [authority])

    def accept_all(self, authorities: Sequence[bytes]) -> None:
        """Accept client certificates of these device CAs (DER) too."""
        trust(self.machines, authorities)
