"""What the daemon must not forget: PIN attempts, its keys, their CA certificates and pins.

All are small files in one private directory, so that an administrator can see and undo them.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.hsm.documents import Authority, spki_of
from shared.issuance.ports import Purpose
from shared.kernel.errors import ConflictError, ForbiddenError
from shared.system import files

_FILE_BYTES_MAX = 16 * 1024
_TRYING, _WRONG = b"trying", b"wrong"


class Attempt(Enum):
    """What became of the last try of the PIN."""

    SETTLED = "settled"
    UNRESOLVED = "unresolved"  # the process died while it tried
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Memory:
    """The daemon's state directory."""

    directory: Path

    @property
    def attempt_path(self) -> Path:
        """Where a wrong PIN is remembered; removing the file allows one more try."""
        return self.directory / "pin-attempt"

    def attempt(self) -> Attempt:
        """Tell what became of the last try of the PIN."""
        content = self._read(self.attempt_path)
        if content is None:
            return Attempt.SETTLED
        return Attempt.UNRESOLVED if content == _TRYING else Attempt.WRONG

    def attempt_begins(self) -> None:
        """Write down, before the PIN is used, that it is."""
        files.write_private(self.attempt_path, _TRYING, replace=True)

    def attempt_was_wrong(self) -> None:
        """Never try again until a human removed the file."""
        files.write_private(self.attempt_path, _WRONG, replace=True)

    def attempt_succeeded(self) -> None:
        """Settle it."""
        files.remove(self.attempt_path)

    def serial(self) -> str | None:
        """Give the serial number of the token that was trusted last."""
        content = self._read(self.directory / "token-serial")
        return None if content is None else content.decode()

    def remember_token(self, serial: str, public_keys: dict[str, bytes]) -> None:
        """Keep what tells our token from a stranger's; called once its keys are proven."""
        if serial != self.serial():
            files.write_private(self.directory / "token-serial", serial.encode(), replace=True)
        for key, spki in public_keys.items():
            if self.public_key(key) != spki:
                files.write_private(self._path(key, "spki"), spki)

    def public_keys(self) -> frozenset[bytes]:
        """Give the DER SubjectPublicKeyInfo of all keys that were trusted ever."""
        paths = self.directory.glob("*.spki")
        return frozenset(filter(None, map(self._read, paths)))

    def public_key(self, key: str) -> bytes | None:
        """Give the DER SubjectPublicKeyInfo that this label was trusted with."""
        return self._read(self._path(key, "spki"))

    def certificate(self, key: str) -> x509.Certificate | None:
        """Give the CA certificate of this key; None before birth."""
        der = self._read(self._path(key, "cer"))
        return None if der is None else x509.load_der_x509_certificate(der)

    def authority(self, key: str, purposes: frozenset[Purpose] | None) -> Authority | None:
        """Give what the key may sign; None before birth."""
        certificate = self.certificate(key)
        if certificate is None:
            return None
        return Authority.of(certificate, purposes, self._read(self._path(key, "responder")))

    def adopt(self, key: str, spki: bytes, certificate: x509.Certificate) -> None:
        """Keep the CA certificate of a key. It may be renewed, but never become wider or another.

        Raises ForbiddenError.
        """
        authority = Authority.of(certificate)
        earlier = self.authority(key, None)
        if spki_of(certificate) != spki:
            raise ForbiddenError("The CA certificate is not for this key.")
        if earlier is not None and (earlier.subject, earlier.path_length) != (
            authority.subject,
            authority.path_length,
        ):
            raise ForbiddenError(
                "Name and path length of a key's CA certificate must not change.",
                remedy=f"An administrator may remove {self._path(key, 'cer')}.",
            )
        der = certificate.public_bytes(Encoding.DER)
        files.write_private(self._path(key, "cer"), der, replace=True)

    def pin_responder(self, key: str, spki: bytes) -> None:
        """Keep central's responder key for this CA, once; raises ConflictError for another."""
        path = self._path(key, "responder")
        pinned = self._read(path)
        if pinned is None:
            files.write_private(path, spki)
        elif pinned != spki:
            raise ConflictError(
                "Another key of central's responder is pinned for this CA.",
                remedy=f"An administrator may remove {path}.",
            )

    def _path(self, key: str, kind: str) -> Path:
        return self.directory / f"{key}.{kind}"

    @staticmethod
    def _read(path: Path) -> bytes | None:
        return files.read_private(path, limit=_FILE_BYTES_MAX) if path.exists() else None
