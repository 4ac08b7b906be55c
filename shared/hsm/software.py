"""Keys without a token: in wrapped files behind the daemon, or in process for central."""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.hsm import documents
from shared.hsm.provider import FoundToken, PinRefusedError, TokenLostError
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import TmaError
from shared.kernel.ids import Random
from shared.pki import keys, keywrap
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType, PrivateKey
from shared.system import files

_KEYRING = "keyring"
_TABLE = "hsm"
_VERSION = 1
_FILE_BYTES_MAX = 64 * 1024
_SERIAL_CHARS = 16


class SoftwareIssuingKey:
    """An issuing CA whose private key is in this process; implements ``ports.IssuingKey``."""

    immediate = True

    def __init__(
        self,
        issuer: Issuer,
        private_key: PrivateKey,
        *,
        purposes: frozenset[Purpose] | None = None,
    ) -> None:
        """Take the CA and its key; without ``purposes`` its path length decides, see Authority."""
        self.issuer = issuer
        self._private_key = private_key
        self._authority = documents.Authority.of(issuer.certificate, purposes)

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        """Check and sign a DER TBS at once; see ``ports.IssuingKey``."""
        del priority, reference  # nothing waits here
        algorithm = documents.check(document, purpose, self._authority)
        return algorithm.sign(self._private_key, document)


class SoftwareProvider:
    """A directory with a keyring and one wrapped file per key; implements ``provider.Provider``.

    The box secret takes the place of the PIN, the recovery key that of the serial number.
    """

    def __init__(self, directory: Path, random: Random) -> None:
        """Take the directory, made by ``create``."""
        self._directory = directory
        self._random = random
        self._keyring: keywrap.Keyring | None = None
        self._private: dict[str, PrivateKey] = {}

    @staticmethod
    def create(
        directory: Path, *, box_secret: bytes, recovery_secret: bytes, random: Random
    ) -> None:
        """Make the directory with a new keyring; raises ConflictError when there is one."""
        keyring = keywrap.Keyring.create(
            box_secret=box_secret, recovery_secret=recovery_secret, random=random
        )
        files.private_directory(directory)
        files.write_private(directory / _KEYRING, keyring.document())

    def find(self) -> FoundToken | None:
        """Look for the keyring; the stem of a key file is the label."""
        if not self.present():
            return None
        document = self._read(self._directory / _KEYRING)
        serial = keywrap.recovery_key(document).hex()[:_SERIAL_CHARS]
        return FoundToken(self._directory.name, serial, pin_doubt=False, public_keys=frozenset())

    def present(self) -> bool:
        """Tell whether the keyring is there."""
        return (self._directory / _KEYRING).is_file()

    def login(self, secret: bytes) -> None:
        """Open the keyring and all keys."""
        document = self._read(self._directory / _KEYRING)
        try:
            keyring = keywrap.Keyring.open(document, box_secret=secret, random=self._random)
        except TmaError as error:
            raise PinRefusedError(error.message) from error
        self._keyring = keyring
        for path in sorted(self._directory.glob("*.key")):
            der = keyring.unwrap(self._read(path), _TABLE, path.stem, _VERSION)
            self._private[path.stem] = keys.load_private(der)

    def keys(self) -> dict[str, bytes]:
        """List the keys."""
        return {key: keys.spki(private.public_key()) for key, private in self._private.items()}

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        """Sign in this process."""
        return algorithm.sign(self._private[key], data)

    def generate(self, key: str, kind: KeyType) -> bytes:
        """Make a key, kept wrapped before it is used."""
        if self._keyring is None:
            raise TokenLostError("the keyring is not open")
        private_key = keys.generate(kind)
        der = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        envelope = self._keyring.wrap(der, _TABLE, key, _VERSION)
        files.write_private(self._directory / f"{key}.key", envelope)
        self._private[key] = private_key
        return keys.spki(private_key.public_key())

    def drop(self) -> None:
        """Forget keyring and keys."""
        self._keyring, self._private = None, {}

    @staticmethod
    def _read(path: Path) -> bytes:
        return files.read_private(path, limit=_FILE_BYTES_MAX)
