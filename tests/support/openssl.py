"""A relying party that shares no code with the product: OpenSSL checks what was issued.

It follows the pointers in each certificate (RFC 5280 §4.2.1.13, §4.2.2.1) as a stranger would.
"""

import asyncio
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.support.processes import ProcessError, program, run

_THREADS = 4
_FETCH_TIMEOUT_S = 10
_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """What OpenSSL says about one certificate; without ``problems`` all sources agree."""

    serial: str
    revoked: bool
    problems: tuple[str, ...]


class Verifier:
    """Verifies end-entity certificates under one root, given the CAs between."""

    def __init__(self, folder: Path, root_pem: str, issuers_pem: str) -> None:
        """Write the trust anchors into ``folder``, which this verifier has for itself."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._root = self._write("root.pem", root_pem)
        self._issuers = self._write("issuers.pem", issuers_pem)
        self._anchors = self._write("anchors.pem", root_pem + issuers_pem)
        self._known = x509.load_pem_x509_certificates((root_pem + issuers_pem).encode())

    def check(
        self, ders: Sequence[bytes], progress: Callable[[], None] = lambda: None
    ) -> list[Verdict]:
        """Check each certificate against its chain, every CRL and every OCSP address.

        Status is fetched now. ``progress`` is called once per certificate.
        """
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        crl_files = self._fetch_crls([*certificates, *self._known])

        def check_one(certificate: x509.Certificate) -> Verdict:
            verdict = self._check_one(certificate, crl_files)
            progress()
            return verdict

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(check_one, certificates))

    def _check_one(self, leaf: x509.Certificate, crl_files: Sequence[Path]) -> Verdict:
        serial = f"{leaf.serial_number:x}"
        path = self._write(f"{serial}.pem", _pem(leaf))
        answers = {f"CRL of {file.name}": self._by_crl(path, file) for file in crl_files}
        answers |= {
            f"OCSP at {url}": self._by_ocsp(leaf, path, url)
            for url in _access_urls(leaf, AuthorityInformationAccessOID.OCSP)
        }
        revoked = any(answer == "revoked" for answer in answers.values())
        expected = "revoked" if revoked else "good"
        problems = [f"{who}: {said}" for who, said in answers.items() if said != expected]
        if not any(who.startswith("OCSP") for who in answers) or not crl_files:
            problems.append("The certificate points to no status service.")
        return Verdict(serial, revoked, tuple(problems))

    def _by_crl(self, leaf: Path, crls: Path) -> str:
        """Verify the whole chain with the CRL of every CA in it."""
        outcome = subprocess.run(
            [program("openssl"), "verify", "-x509_strict", "-crl_check_all", "-CAfile", self._root,
             "-untrusted", self._issuers, "-CRLfile", crls, leaf],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if outcome.returncode == 0:
            return "good"
        return "revoked" if "certificate revoked" in outcome.stderr else outcome.stderr

    def _by_ocsp(self, leaf: x509.Certificate, path: Path, url: str) -> str:
        issuer = next(known for known in self._known if known.subject == leaf.issuer)
        issuer_path = self._write(f"issuer-of-{path.name}", _pem(issuer))
        outcome = subprocess.run(
            [program("openssl"), "ocsp", "-issuer", issuer_path, "-cert", path, "-url", url,
             "-CAfile", self._anchors, "-timeout", str(_FETCH_TIMEOUT_S)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        status = re.search(rf"^{re.escape(str(path))}: (\w+)", outcome.stdout, re.MULTILINE)
        if status is None or "Response verify OK" not in outcome.stderr:
            return f"{outcome.stdout}{outcome.stderr}".strip()
        return status[1]

    def _fetch_crls(self, certificates: Iterable[x509.Certificate]) -> list[Path]:
        """Fetch every CRL that is pointed to, into one file per server that gives them."""
        by_server: dict[str, list[str]] = {}
        for url in dict.fromkeys(url for one in certificates for url in _crl_urls(one)):
            der = self._folder / "fetched.crl"
            der.write_bytes(fetch(url))
            pem = run(["openssl", "crl", "-inform", "DER", "-in", str(der)])
            by_server.setdefault(url.split("/")[2], []).append(pem)
        return self._complete(by_server)

    def _complete(self, by_server: dict[str, list[str]]) -> list[Path]:
        """Let each server's file hold the CRLs that only others serve too, after its own."""
        files: list[Path] = []
        for server, own in by_server.items():
            others = [pem for other, pems in by_server.items() if other != server for pem in pems]
            issuers = {_crl_issuer(pem) for pem in own}
            foreign = [pem for pem in others if _crl_issuer(pem) not in issuers]
            files.append(self._write(f"{server.replace(':', '-')}.crls", "".join(own + foreign)))
        return files

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text, "ascii")
        return path


def fetch(url: str) -> bytes:
    """Get a document over HTTP, at most 16 MiB. Raises ProcessError naming the address."""
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as answer:
            return answer.read(_BYTES_MAX)
    except OSError as error:
        raise ProcessError(f"{url} cannot be fetched: {error}") from error


def root_above(leaf_pem: str) -> str:
    """Climb from a certificate to its root by the caIssuers addresses (RFC 5280 §4.2.2.1)."""
    certificate = x509.load_pem_x509_certificate(leaf_pem.encode())
    while certificate.issuer != certificate.subject:
        [address] = _access_urls(certificate, AuthorityInformationAccessOID.CA_ISSUERS)[:1]
        certificate = x509.load_der_x509_certificate(fetch(address))
    return _pem(certificate)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _crl_issuer(pem: str) -> bytes:
    return x509.load_pem_x509_crl(pem.encode()).issuer.public_bytes()


def _crl_urls(certificate: x509.Certificate) -> list[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    return [name.value for point in points for name in point.full_name or []]


def _access_urls(certificate: x509.Certificate, method: x509.ObjectIdentifier) -> list[str]:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except x509.ExtensionNotFound:
        return []
    return [
        description.access_location.value
        for description in access.value
        if description.access_method == method
    ]


class Revocation:
    """Verifies end-entity certificates of one CA by the CRLs it is given, and fetches nothing."""

    def __init__(self, folder: Path, chain: Sequence[bytes]) -> None:
        """Take a folder for itself, and the CA's chain up to the root, DER."""
        self._folder = folder
        self._root = self._pem("root.pem", chain[-1])
        self._chain = self._pem("chain.pem", *chain[:-1])

    async def says(self, at_us: int, leaf: bytes, crls: Sequence[bytes], *options: str) -> str:
        """Give ``good``, or what OpenSSL complains about, at that moment."""
        command = [
            program("openssl"), "verify", "-x509_strict", "-attime", str(at_us // 1_000_000),
            "-crl_check", *options, "-CAfile", self._root, "-untrusted", self._chain,
            "-CRLfile", self._crls(crls), self._pem("leaf.pem", leaf),
        ]  # fmt: skip
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=30
        )
        return "good" if done.returncode == 0 else done.stderr

    def _pem(self, name: str, *ders: bytes) -> Path:
        path = self._folder / name
        pems = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders]
        path.write_bytes(b"".join(pems))
        return path

    def _crls(self, ders: Sequence[bytes]) -> Path:
        path = self._folder / "all.crl"
        path.write_bytes(
            b"".join(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in ders)
        )
        return path
