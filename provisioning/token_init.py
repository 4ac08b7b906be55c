"""Make an empty PKCS#11 token ready for a CA: PINs, label, a key that cannot leave it.

PINs are made here and go into files of mode 0600, written before the token is touched, so that a
power cut never leaves a token whose PIN nobody knows. They never stand on a command line.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import PyKCS11

from shared.hsm.pkcs11 import Pkcs11Provider
from shared.hsm.provider import PinRefusedError, SeveralTokensError, TokenLostError
from shared.hsm.uri import Pkcs11Uri
from shared.kernel.errors import BadRequestError, ConflictError, UnavailableError
from shared.pki.keys import KeyType
from shared.system import files

_READ_WRITE, _SECURITY_OFFICER = 0x6, 0  # CKF_SERIAL_SESSION | CKF_RW_SESSION, CKU_SO
_INITIALISED = 0x400  # CKF_TOKEN_INITIALIZED
_PIN_BYTES = 10  # 80 bits, 16 characters: within the 4 to 255 that tokens take
_LABEL_BYTES_MAX = 32  # CK_TOKEN_INFO.label, padded with blanks (PKCS #11 v2.40 §3.2)


@dataclass(frozen=True, slots=True)
class InitialisedToken:
    """What the operator needs next: the URI for the daemon, and the public key, if one was made."""

    uri: str
    serial: str
    spki: bytes | None

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the DER SubjectPublicKeyInfo in hex: goes into the ceremony's record."""
        return None if self.spki is None else hashlib.sha256(self.spki).hexdigest()


def initialise(
    *,
    module: Path,
    label: str,
    key: str | None,
    kind: KeyType,
    pin_file: Path,
    so_pin_file: Path,
    slot: int | None,
) -> InitialisedToken:
    """Initialise the token in ``slot`` (None: the only empty one); make a key, if named.

    Raises BadRequestError (also for a type that tokens do not make), ConflictError when the label
    is taken, a file exists or the slot's token is in use, UnavailableError when the module fails.
    """
    if not 0 < len(label.encode()) <= _LABEL_BYTES_MAX:
        raise BadRequestError(f"A token label has 1 to {_LABEL_BYTES_MAX} bytes.")
    try:
        serial = _initialise(module, label, pin_file, so_pin_file, slot)
        uri = Pkcs11Uri(module, f"file:{pin_file}", label, serial, None, None)
        spki = None if key is None else _generate(uri, key, kind, pin_file)
    except (PyKCS11.PyKCS11Error, TokenLostError, SeveralTokensError, PinRefusedError) as error:
        raise UnavailableError(
            f"The module {module} failed: {error}.",
            remedy="Check that the token is plugged in and that its driver runs.",
        ) from error
    source = f"module-path={quote(str(module))}&pin-source=file:{quote(str(pin_file))}"
    return InitialisedToken(f"pkcs11:token={quote(label)};serial={serial}?{source}", serial, spki)


def _initialise(
    module: Path, label: str, pin_file: Path, so_pin_file: Path, slot: int | None
) -> str:
    """Set label and PINs; gives the token's serial number."""
    library: Any = PyKCS11.PyKCS11Lib()  # its types are not declared
    library.load(str(module))
    try:
        chosen = _empty_slot(library, label, slot)
        so_pin, pin = _pin(), _pin()
        files.write_private(so_pin_file, so_pin.encode())
        files.write_private(pin_file, pin.encode())
        library.initToken(chosen, so_pin, label.encode().ljust(_LABEL_BYTES_MAX).decode())
        chosen, serial = _slot_of(library, label)
        session = library.openSession(chosen, _READ_WRITE)
        session.login(so_pin, _SECURITY_OFFICER)
        session.initPin(pin)
        session.logout()
        session.closeSession()
    finally:
        library.unload()
    return serial


def _generate(uri: Pkcs11Uri, key: str, kind: KeyType, pin_file: Path) -> bytes:
    """Make the key through the same provider that will use it, which checks its attributes."""
    provider = Pkcs11Provider(uri)
    try:
        if provider.find() is None:
            raise UnavailableError("The token vanished after it was initialised.")
        provider.login(files.read_private(pin_file, limit=_LABEL_BYTES_MAX))
        return provider.generate(key, kind)
    finally:
        provider.drop()


def _empty_slot(library: Any, label: str, wanted: int | None) -> int:
    """Choose a slot whose token was never initialised: nothing is ever overwritten."""
    if any(_label(library, slot) == label for slot in _initialised(library)):
        raise ConflictError(f"There is a token {label} already; it is not initialised again.")
    used = _initialised(library)
    empty = [slot for slot in library.getSlotList(tokenPresent=True) if slot not in used]
    if wanted is not None and wanted not in empty:
        raise ConflictError(
            f"Slot {wanted} holds no empty token.",
            remedy="Erase that token with its vendor's tool if its keys are not needed.",
        )
    if wanted is None and len(empty) != 1:
        raise BadRequestError(
            f"There are {len(empty)} empty tokens.", remedy="Name the slot with --slot."
        )
    return empty[0] if wanted is None else wanted


def _slot_of(library: Any, label: str) -> tuple[int, str]:
    """Find the token again: SoftHSM moves it to a new slot once it is initialised."""
    for slot in _initialised(library):
        if _label(library, slot) == label:
            return slot, library.getTokenInfo(slot).serialNumber.strip()
    raise UnavailableError("The token vanished after it was initialised.")


def _initialised(library: Any) -> list[int]:
    return [
        slot
        for slot in library.getSlotList(tokenPresent=True)
        if library.getTokenInfo(slot).flags & _INITIALISED
    ]


def _label(library: Any, slot: int) -> str:
    return library.getTokenInfo(slot).label.strip()


def _pin() -> str:
    return base64.b32encode(secrets.token_bytes(_PIN_BYTES)).decode().lower()
