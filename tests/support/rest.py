"""REST as a client without our code sees it, and a line of devices that enroll through it."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

PROFILES = ("tls-server", "tls-client", "idevid")
_BASE = "/api/v2.0"
_PAGE_ROWS = 500
_TIMEOUT_S = 30.0
_RETRY_PAUSE_S = 0.1
_TRY_AGAIN = frozenset({409, 429, 502, 503, 504})


class Rest:
    """One server, asked with one token."""

    def __init__(self, base_url: str, token: str, ca_bundle: str) -> None:
        """Trust the PEM certificates of ``ca_bundle`` only."""
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cadata=ca_bundle),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str) -> dict[str, Any]:
        """Get one JSON document."""
        answer = await self._client.get(f"{_BASE}{path}")
        answer.raise_for_status()
        return answer.json()

    async def post(
        self, path: str, type_name: str, attributes: dict[str, Any], *, key: str | None = None
    ) -> httpx.Response:
        """Post one JSON:API document; ``key`` becomes the Idempotency-Key."""
        return await self._client.post(
            f"{_BASE}{path}",
            json={"data": {"type": type_name, "attributes": attributes}},
            headers={"Idempotency-Key": key} if key else None,
        )

    async def certificates(self, **filters: str) -> list[dict[str, Any]]:
        """Give the attributes of every certificate that matches, page by page."""
        parameters = [f"filter[{name}]={value}" for name, value in filters.items()]
        query = "&".join([*parameters, f"page[size]={_PAGE_ROWS}"])
        path: str | None = f"/certificates?{query}"
        found: list[dict[str, Any]] = []
        while path:
            document = await self.get(path)
            found += [item["attributes"] for item in document["data"]]
            path = document["links"].get("next", "").removeprefix(_BASE) or None
        return found

    async def authorities(self) -> list[dict[str, Any]]:
        """Give the attributes of the CAs that the server knows."""
        return [item["attributes"] for item in (await self.get("/cas"))["data"]]

    async def revoke(self, ca_id: str, serial: str) -> None:
        """Revoke one certificate for good."""
        path = f"/certificates/{ca_id}-{serial}/revoke"
        answer = await self.post(path, "revocation", {"reason": "key_compromise"})
        answer.raise_for_status()


@asynccontextmanager
async def connect(base_url: str, token: str, ca_bundle: str):
    """Give a client that is closed at the end."""
    client = Rest(base_url, token, ca_bundle)
    try:
        yield client
    finally:
        await client.close()


@dataclass(frozen=True, slots=True)
class Device:
    """A device with its request; the name is also its Idempotency-Key."""

    name: str
    profile: str
    csr: str

    @classmethod
    def make(cls, name: str, profile: str) -> "Device":
        """Make the key and sign the request."""
        subject = [(NameOID.COMMON_NAME, f"{name}.example"), (NameOID.SERIAL_NUMBER, name)]
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(oid, text) for oid, text in subject]))
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        )
        return cls(name, profile, csr.public_bytes(Encoding.PEM).decode())


def devices(prefix: str, count: int) -> Iterator[Device]:
    """Make devices that take the shipped profiles in turn."""
    for number in range(count):
        yield Device.make(f"{prefix}-{number:05}", PROFILES[number % len(PROFILES)])


@dataclass(slots=True)
class Line:
    """Stations that enroll devices and keep what they received, as a line does."""

    rest: Rest
    at_once: int = 16
    #: SHA-256 of each certificate to its DER.
    received: dict[str, bytes] = field(default_factory=dict)

    async def enroll(
        self,
        wishes: Iterable[Device],
        *,
        on_done: Callable[[], None] = lambda: None,
        patient: bool = False,
    ) -> None:
        """Enroll all. A ``patient`` line asks again, with the same key, while a server is away."""
        waiting = iter(wishes)

        async def station() -> None:
            for device in waiting:
                await self._enroll(device, patient=patient)
                on_done()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.at_once):
                group.create_task(station())

    async def _enroll(self, device: Device, *, patient: bool) -> None:
        type_name, attempt = f"cert_{device.profile}", 1
        while True:
            key = f"{device.name}/{attempt}"
            try:
                answer = await self.rest.post(
                    f"/{type_name}", type_name, {"csr": device.csr}, key=key
                )
            except httpx.TransportError:
                if not patient:
                    raise
            else:
                if not patient or answer.status_code not in _TRY_AGAIN:
                    self._keep(device, answer)
                    return
                # What a crash made void stays void under its key; a new key is a new request.
                attempt += answer.json().get("code") == "conflict"
            await asyncio.sleep(_RETRY_PAUSE_S)

    def _keep(self, device: Device, answer: httpx.Response) -> None:
        assert answer.status_code == httpx.codes.CREATED, f"{device.name}: {answer.text}"
        pem = answer.json()["data"]["attributes"]["certificate"]
        der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
        self.received[hashlib.sha256(der).hexdigest()] = der
