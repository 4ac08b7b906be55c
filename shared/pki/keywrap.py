"""Secrets at rest: each in an envelope of its own key, all under one key-encryption key.

A secret is encrypted with AES-256-GCM under a data key of its own; the data key is wrapped by the
key-encryption key (KEK) in force. Associated data binds both to table, row and version, so that no
envelope can be moved or rolled back unnoticed. A KEK stands in two slots (design.md §7): the *box*
slot opens with a 32-byte secret of this machine, the *recovery* slot with a secret printed once at
birth. The recovery slot is sealed to a public key (HPKE, RFC 9180), so that a new KEK needs nobody
to type the recovery secret again.
"""

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.kernel import cbor
from shared.kernel.errors import (
    BadRequestError,
    IncompatibleError,
    IntegrityError,
    UntrustedError,
)
from shared.kernel.ids import Random

SECRET_BYTES = 32
_NONCE_BYTES = 12
_CHECKSUM_BYTES = 3
_GROUP_CHARS = 7
_DOCUMENT_BYTES_MAX = 64 * 1024
_ENVELOPE_BYTES_MAX = 1024 * 1024
_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class _Document:
    """What is stored of a keyring: the recovery public key, and (version, box, recovery) slots."""

    recovery_key: bytes
    slots: tuple[tuple[int, bytes, bytes], ...]

    def write(self) -> bytes:
        slots = [list(slot) for slot in self.slots]
        return cbor.encode({"format": 1, "recovery_key": self.recovery_key, "keks": slots})

    @classmethod
    def read(cls, document: bytes) -> Self:
        try:
            stored = cbor.decode(document, limit=_DOCUMENT_BYTES_MAX)
            if stored["format"] != 1:
                raise IncompatibleError("The keyring was written by a newer version.")
            slots = tuple((version, box, recovery) for version, box, recovery in stored["keks"])
            return cls(stored["recovery_key"], slots)
        except (BadRequestError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError("The keyring is damaged.") from error


@dataclass(frozen=True, slots=True, repr=False)
class _Kek:
    """One version of the key-encryption key: in clear, and as its two slots keep it."""

    version: int
    key: bytes
    box: bytes
    recovery: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """All versions of the KEK; immutable: whoever changes it stores the new ``document()``."""

    keks: tuple[_Kek, ...]  # oldest first; the last one is in force
    box_secret: bytes
    recovery_key: bytes  # X25519 public key
    random: Random

    @classmethod
    def create(cls, *, box_secret: bytes, recovery_secret: bytes, random: Random) -> Self:
        """Make a keyring with its first KEK from two secrets of 32 bytes."""
        recovery_key = _recovery_pair(recovery_secret).public_key().public_bytes_raw()
        return cls((), _checked(box_secret), recovery_key, random).rotate()

    @classmethod
    def open(cls, document: bytes, *, box_secret: bytes, random: Random) -> Self:
        """Open by the box slot; raises UntrustedError when the secret is not this box's."""
        stored = _Document.read(document)
        slot_key = _slot_key(_checked(box_secret))
        keks = tuple(
            _Kek(version, _open(slot_key, box, _slot_name(version)), box, recovery)
            for version, box, recovery in stored.slots
        )
        return cls(keks, box_secret, stored.recovery_key, random)

    @classmethod
    def recover(
        cls, document: bytes, *, recovery_secret: bytes, box_secret: bytes, random: Random
    ) -> Self:
        """Open by the recovery slot, on whatever box, and make that box's slots anew.

        Raises UntrustedError when it is not the recovery secret of this keyring.
        """
        stored = _Document.read(document)
        pair = _recovery_pair(recovery_secret)
        keyring = cls((), _checked(box_secret), stored.recovery_key, random)
        keks = tuple(
            keyring._slotted(version, _unseal(pair, recovery, version))
            for version, _box, recovery in stored.slots
        )
        return replace(keyring, keks=keks)

    def document(self) -> bytes:
        """Give what is stored: all slots, no key in clear. It belongs into each backup."""
        slots = tuple((kek.version, kek.box, kek.recovery) for kek in self.keks)
        return _Document(self.recovery_key, slots).write()

    def rotate(self) -> Self:
        """Put a new KEK in force; earlier ones still open what they wrapped, see ``rewrap``."""
        version = self.keks[-1].version + 1 if self.keks else 1
        return replace(self, keks=(*self.keks, self._slotted(version, self.random(SECRET_BYTES))))

    def with_recovery(self, recovery_secret: bytes) -> "Keyring":
        """Let another recovery secret open it; the former one opens what was stored before only."""
        recovery_key = _recovery_pair(recovery_secret).public_key().public_bytes_raw()
        keyring = Keyring((), self.box_secret, recovery_key, self.random)
        keks = tuple(keyring._slotted(kek.version, kek.key) for kek in self.keks)
        return replace(keyring, keks=keks)

    def wrap(self, plaintext: bytes, table: str, row: str, version: int) -> bytes:
        """Encrypt a secret of one row; gives the envelope (deterministic CBOR)."""
        data_key = self.random(SECRET_BYTES)
        bound = _binding(table, row, version)
        return self._envelope(data_key, _seal(data_key, plaintext, bound, self.random), bound)

    def unwrap(self, envelope: bytes, table: str, row: str, version: int) -> bytes:
        """Decrypt; raises IntegrityError when it was changed, moved or belongs to another row."""
        bound = _binding(table, row, version)
        data_key, data = self._data_key(envelope, bound)
        return _open_intact(data_key, data, bound)

    def rewrap(self, envelope: bytes, table: str, row: str, version: int) -> bytes:
        """Wrap the data key under the KEK in force; the secret itself is not touched."""
        bound = _binding(table, row, version)
        data_key, data = self._data_key(envelope, bound)
        return self._envelope(data_key, data, bound)

    def _envelope(self, data_key: bytes, data: bytes, bound: bytes) -> bytes:
        kek = self.keks[-1]
        wrapped = _seal(kek.key, data_key, bound, self.random)
        return cbor.encode({"kek": kek.version, "key": wrapped, "data": data})

    def _data_key(self, envelope: bytes, bound: bytes) -> tuple[bytes, bytes]:
        """Open the data key; gives it and the encrypted secret."""
        try:
            fields = cbor.decode(envelope, limit=_ENVELOPE_BYTES_MAX)
            version, wrapped, data = fields["kek"], fields["key"], fields["data"]
        except (BadRequestError, KeyError, TypeError) as error:
            raise IntegrityError("A stored secret is damaged.") from error
        kek = next((kek for kek in self.keks if kek.version == version), None)
        if kek is None:
            raise IntegrityError("A stored secret was wrapped by a key that is not in the keyring.")
        return _open_intact(kek.key, wrapped, bound), data

    def _slotted(self, version: int, key: bytes) -> _Kek:
        box = _seal(_slot_key(self.box_secret), key, _slot_name(version), self.random)
        public_key = X25519PublicKey.from_public_bytes(self.recovery_key)
        return _Kek(version, key, box, _SUITE.encrypt(key, public_key, _slot_name(version)))


def recovery_key(document: bytes) -> bytes:
    """Give the public half of a stored keyring's recovery slot: it names the keyring."""
    return _Document.read(document).recovery_key


def recovery_text(secret: bytes) -> str:
    """Write a recovery secret for paper: eight groups of seven, the last bits a checksum."""
    text = base64.b32encode(_checked(secret) + _checksum(secret)).decode()
    return "-".join(text[at : at + _GROUP_CHARS] for at in range(0, len(text), _GROUP_CHARS))


def recovery_secret(text: str) -> bytes:
    """Read what a person typed: case, spaces and dashes do not matter, 0 is O and 1 is I.

    Raises BadRequestError when the checksum does not fit: a typing error.
    """
    compact = "".join(text.split()).replace("-", "").upper()
    try:
        data = base64.b32decode(compact.replace("0", "O").replace("1", "I"))
    except ValueError:
        data = b""
    secret, checksum = data[:SECRET_BYTES], data[SECRET_BYTES:]
    if len(secret) != SECRET_BYTES or checksum != _checksum(secret):
        raise BadRequestError(
            "This is not a recovery secret, or it has a typing error.",
            remedy="Type all eight groups as they are printed.",
        )
    return secret


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(b"TMA recovery secret" + secret).digest()[:_CHECKSUM_BYTES]


def _checked(secret: bytes) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise BadRequestError(f"The secret must have exactly {SECRET_BYTES} bytes.")
    return secret


def _recovery_pair(secret: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(_derive(_checked(secret), b"TMA recovery slot"))


def _slot_key(box_secret: bytes) -> bytes:
    return _derive(box_secret, b"TMA box slot")


def _derive(secret: bytes, info: bytes) -> bytes:
    """Derive a key for one use (HKDF, RFC 5869)."""
    return HKDF(hashes.SHA256(), SECRET_BYTES, None, info).derive(secret)


def _slot_name(version: int) -> bytes:
    return b"TMA KEK %d" % version


def _binding(table: str, row: str, version: int) -> bytes:
    return cbor.encode([table, row, version])


def _seal(key: bytes, plaintext: bytes, bound: bytes, random: Random) -> bytes:
    nonce = random(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, bound)


def _open(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError) as error:
        raise UntrustedError("The secret does not open this keyring.") from error


def _open_intact(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return _open(key, sealed, bound)
    except UntrustedError as error:
        raise IntegrityError("A stored secret was changed or moved.") from error


def _unseal(pair: X25519PrivateKey, sealed: bytes, version: int) -> bytes:
    try:
        return _SUITE.decrypt(sealed, pair, _slot_name(version))
    except (InvalidTag, ValueError) as error:
        raise UntrustedError("This is not the recovery secret of this keyring.") from error
