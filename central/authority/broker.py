"""The broker's directory: configuration, ACL, and what it needs of the transport hierarchy.

Central writes it, and keeps CRL and server certificate fresh while it runs; mosquitto reads them
again at SIGHUP.
"""

import os
import pwd
import signal
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from central.authority.identities import Identity
from shared.kernel.errors import BadRequestError
from shared.mqtt import broker
from shared.mqtt.broker import BrokerFiles
from shared.pki import formats
from shared.system.files import private_directory, write_private

_CONFIGURATION = "mosquitto.conf"
_PID = "mosquitto.pid"
_PID_CHARS_MAX = 16


class BrokerDirectory:
    """What mosquitto reads; all files are private to the user who runs central and broker."""

    def __init__(self, path: Path) -> None:
        """Take the directory's absolute path."""
        self._path = path
        self._files = BrokerFiles(
            transport_root=path / "transport-root.pem",
            transport_crl=path / "transport-crl.pem",
            certificate=path / "server.pem",
            key=path / "server.key",
            acl=path / "acl",
        )

    @property
    def configuration(self) -> Path:
        """The file for ``mosquitto -c``."""
        return self._path / _CONFIGURATION

    def write(self, port: int, root: bytes, crl: bytes, identity: Identity) -> None:
        """Write everything. ``root`` and ``crl`` are DER."""
        private_directory(self._path)
        files = self._files
        try:
            text = broker.configuration(files, port=port)
        except ValueError as error:
            raise BadRequestError(f"The broker cannot read {self._path}: {error}") from error
        # Mosquitto would become the user "mosquitto", who cannot read what is private to us.
        text += f"user {pwd.getpwuid(os.geteuid()).pw_name}\npid_file {self._path / _PID}\n"
        _write(files.transport_root, formats.pem([root]).encode())
        _write(files.acl, broker.acl().encode())
        self.write_identity(identity)
        self.write_crl(crl)
        _write(self.configuration, text.encode())

    def write_identity(self, identity: Identity) -> None:
        """Write certificate and key of the broker's listener."""
        _write(self._files.certificate, formats.pem([identity.certificate]).encode())
        _write(self._files.key, identity.key_pem)

    def write_crl(self, crl: bytes) -> None:
        """Write the transport CRL (DER)."""
        pem = x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)
        _write(self._files.transport_crl, pem)

    def reload(self) -> None:
        """Have a running mosquitto read its files again; without one, nothing is to be done."""
        with suppress(OSError, ValueError):
            pid = int((self._path / _PID).read_text("ascii")[:_PID_CHARS_MAX])
            command = Path(f"/proc/{pid}/comm").read_text("ascii").strip()
            if command == "mosquitto":
                os.kill(pid, signal.SIGHUP)


def _write(path: Path, data: bytes) -> None:
    write_private(path, data, replace=True)
