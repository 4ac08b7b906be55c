"""The TLS contexts of pages and APIs, with central's web identity and the device CAs."""

from collections.abc import Sequence

from central.core import Core
from shared.web.tls import load_identity, machine_context, people_context, trust

_DEVICE_KINDS = ("issuing", "gateway")


class Listeners:
    """Contexts that stay while what is in them is renewed; ``refresh`` once before use."""

    def __init__(self, central: Core) -> None:
        """Take central's state."""
        self._central = central
        self._certificate = b""

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
        for context in (self.people, self.machines):
            load_identity(context, chain, key)
        self._certificate = identity.certificate

    def accept(self, authority: bytes) -> None:
        """Accept client certificates of one more device CA (DER)."""
        trust(self.machines, [authority])

    def accept_all(self, authorities: Sequence[bytes]) -> None:
        """Accept client certificates of these device CAs (DER) too."""
        trust(self.machines, authorities)
