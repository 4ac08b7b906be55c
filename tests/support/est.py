"""EST clients of others: curl, openssl and strongSwan's pki, and what they need on disk."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from tests.support.processes import run


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(frozen=True, slots=True)
class EstClient:
    """One machine with a folder; ``base`` ends in ``/.well-known/est`` or a label below it."""

    folder: Path
    base: str
    root_pem: Path

    def request(self, name: str, subject: str, *options: str, san: str = "") -> Path:
        """Make a key and a request with openssl; gives the request's file in DER."""
        key, csr = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        if not key.exists():
            run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout",
                 "-out", str(key)])  # fmt: skip
        extra = ["-addext", f"subjectAltName={san}"] if san else []
        run(["openssl", "req", "-new", "-key", str(key), "-subj", subject, "-outform", "DER",
             "-out", str(csr), *extra, *options])  # fmt: skip
        return csr

    async def curl(self, operation: str, *arguments: str) -> Answer:
        """Ask with curl."""
        out, head = self.folder / "curl.out", self.folder / "curl.head"
        options = ["-s", "--cacert", str(self.root_pem), "-o", str(out), "-D", str(head)]
        await self.tool("curl", *options, *arguments, f"{self.base}/{operation}")
        blocks = head.read_text().strip().split("\n\n")
        first, *lines = blocks[-1].splitlines()
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        return Answer(
            int(first.split()[1]),
            {name.lower(): value.strip() for name, value in headers.items()},
            out.read_bytes() if out.exists() else b"",
        )

    async def post(self, operation: str, body: Path, *arguments: str) -> Answer:
        """Send a request body as it is."""
        return await self.curl(
            operation, "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{body}",
            *arguments,
        )  # fmt: skip

    async def tool(self, *argv: str) -> str:
        """Run another program beside the event loop."""
        return await asyncio.to_thread(run, list(argv))


def certificates(der: bytes) -> list[x509.Certificate]:
    """Read a certs-only PKCS#7."""
    return load_der_pkcs7_certificates(der)


def write_pem(path: Path, certificate: x509.Certificate) -> Path:
    """Write a certificate for programs."""
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path
