"""The peer: Debian's cfssl as a signing server without a database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench._load import post
from tests.support.processes import ManagedProcess, listening, run

_CONFIG = {"signing": {"default": {"expiry": "8760h", "usages": ["digital signature"]}}}


@contextmanager
def cfssl(folder: Path, port: int) -> Iterator[ManagedProcess]:
    """Run ``cfssl serve`` with a P-256 CA."""
    key, certificate, config = (folder / name for name in ("ca.key", "ca.pem", "config.json"))
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-out", str(key)])  # fmt: skip
    run(["openssl", "req", "-x509", "-new", "-key", str(key), "-subj", "/CN=peer",
         "-days", "3650", "-out", str(certificate)])  # fmt: skip
    config.write_text(json.dumps(_CONFIG), "utf-8")
    argv = ["cfssl", "serve", "-address", "127.0.0.1", "-port", str(port), "-ca", str(certificate),
            "-ca-key", str(key), "-config", str(config)]  # fmt: skip
    process = ManagedProcess("cfssl", argv, folder / "cfssl.log", extra_environ={})
    process.start()
    try:
        process.wait_ready(lambda: listening(port))
        yield process
    finally:
        process.stop()


def sign_request(csr: str) -> bytes:
    """Encode a call of its API ``sign``."""
    return post("/api/v1/cfssl/sign", {"certificate_request": csr}, {})
