"""One gateway as real processes, with what a station does to it."""

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.pki import formats, keys
from tests.support.fleet import Gateway
from tests.support.pki_hierarchy import csr
from tests.support.processes import listening


@dataclass
class GatewayBox:
    """A gateway of its own folder; everything blocking runs beside the test's event loop."""

    folder: Path
    port: int
    gateway: Gateway = field(init=False)

    def __post_init__(self) -> None:
        self.gateway = Gateway("gw-01", self.folder, self.port)

    def prepare(self) -> None:
        """Make the token and the configurations."""
        self.gateway.prepare()

    def start_hsmd(self) -> None:
        """Start the token's daemon (on the main thread, as ManagedProcess demands)."""
        self.gateway.start_hsmd()

    async def join(self, token: str) -> str:
        """Join; gives what the command prints."""
        return await self.command("join", stdin=token)

    async def start(self) -> None:
        """Start the agent and wait until it listens."""
        self.gateway.process.start()
        await asyncio.to_thread(
            self.gateway.process.wait_ready, lambda: listening(self.port) and self._answers()
        )

    def _answers(self) -> bool:
        return bool(self.gateway.snapshot())

    async def command(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of the CLI."""
        return await asyncio.to_thread(self.gateway.command, *arguments, stdin=stdin)

    async def snapshot(self) -> dict[str, Any]:
        """What the page shows."""
        return json.loads(await self.command("status", "--json"))

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "state"

    async def station(self, root: bytes, name: str = "line-1") -> httpx.AsyncClient:
        """Make a station and give its HTTP client, which trusts the root (DER) only."""
        token = (await self.command("station", "add", name)).strip()
        trust = ssl.create_default_context(cadata=formats.pem([root]))
        return httpx.AsyncClient(
            base_url=self.gateway.web_url,
            headers={"Authorization": f"Bearer {token}"},
            verify=trust,
            timeout=30,
            trust_env=False,
        )

    def stop(self) -> None:
        """End both processes."""
        self.gateway.process.stop()
        self.gateway.hsmd.stop()


async def enroll(station: httpx.AsyncClient, device: str, **more: Any) -> httpx.Response:
    """Ask for a TLS client certificate by CSR."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    pem = csr(keys.generate(), name, encoding=Encoding.PEM).decode()
    attributes = {"profile": "tls-client", "csr": pem, "device_id": device} | more
    body = {"data": {"type": "certificate", "attributes": attributes}}
    return await station.post("/api/v2.0/certificates", json=body)
