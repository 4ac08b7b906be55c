"""Keys in a PKCS#11 token.

python-pkcs11 crashes when two threads use a module (research/hsm.md §0): one thread calls this.
Old sessions and handles never recover and closing one logs out all, so a lost token is dropped by
starting the module anew. ``pkcs11_keys`` knows key types and mechanisms.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass, TokenFlag

from shared.hsm import pkcs11_keys
from shared.hsm.provider import FoundToken, PinRefusedError, SeveralTokensError, TokenLostError
from shared.hsm.uri import Pkcs11Uri
from shared.kernel.errors import IntegrityError
from shared.pki import keys
from shared.pki.algorithms import SignatureAlgorithm
from shared.pki.keys import KeyType

_PIN_IN_DOUBT = (
    TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED
)
#: The token answered that it did not work at all. After any other error it may have signed.
_NOT_USED = (
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.UserNotLoggedIn,
)
_PIN_REFUSED = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)
#: What a key that was made on the token and cannot leave it says of itself.
_CAPTIVE = {
    Attribute.EXTRACTABLE: False,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.SENSITIVE: True,
    Attribute.LOCAL: True,
}


class Pkcs11Provider:
    """One token of one module; implements ``provider.Provider``."""

    def __init__(self, uri: Pkcs11Uri) -> None:
        """Take where the token is; the module is loaded by the first ``find``."""
        self._uri = uri
        self._library: Any = None
        self._token: Any = None
        self._session: Any = None
        self._private: dict[str, Any] = {}

    def find(self) -> FoundToken | None:
        """Start the module anew, which is what makes it see new tokens, and look for ours."""
        with _lost_on_error():
            self.drop()
            self._library = pkcs11.lib(str(self._uri.module))
            tokens = [token for token in self._tokens() if self._fits(token)]
            if len(tokens) > 1:
                serials = ", ".join(_serial(token) for token in tokens)
                raise SeveralTokensError(
                    f"Several tokens fit the URI (serials {serials}): name one serial in it."
                )
            if not tokens:
                return None
            self._token = tokens[0]
            public_keys = pkcs11_keys.public_keys(self._token.open()).values()
            return FoundToken(
                label=self._token.label,
                serial=_serial(self._token),
                pin_doubt=bool(self._token.flags & _PIN_IN_DOUBT),
                public_keys=frozenset(public_keys),
            )

    def present(self) -> bool:
        """Ask the module for its tokens."""
        with _lost_on_error():
            serial = _serial(self._token)
            return any(_serial(token) == serial for token in self._tokens())

    def login(self, secret: bytes) -> None:
        """Open the one session that is used until the token is dropped; PINs are one line."""
        pin = secret.decode().removesuffix("\n")
        with _lost_on_error():
            try:
                self._session = self._token.open(rw=True, user_pin=pin)
            except _PIN_REFUSED as error:
                raise PinRefusedError(type(error).__name__) from error

    def keys(self) -> dict[str, bytes]:
        """List the key pairs by label; private keys without a public twin are left out."""
        with _lost_on_error():
            public_keys = pkcs11_keys.public_keys(self._session)
            self._private = {
                key.label: key
                for key in self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
                if key.label in public_keys
            }
            return {label: public_keys[label] for label in self._private}

    def sign(self, key: str, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        """Sign on the token."""
        try:
            return pkcs11_keys.sign(self._private[key], data, algorithm)
        except pkcs11.PKCS11Error as error:
            used = not isinstance(error, _NOT_USED)
            raise TokenLostError(type(error).__name__, used=used) from error

    def generate(self, key: str, kind: KeyType) -> bytes:
        """Make a key pair on the token, named by label and by CKA_ID = subject key identifier."""
        with _lost_on_error():
            public, private, spki = pkcs11_keys.generate(self._session, key, kind)
            for half in (public, private):
                half[Attribute.ID] = keys.key_identifier(spki)
            wrong = [name.name for name, value in _CAPTIVE.items() if private[name] is not value]
        if wrong:
            raise IntegrityError(f"The token made a key with wrong attributes: {', '.join(wrong)}.")
        return spki

    def drop(self) -> None:
        """Forget all objects of the module; ``find`` starts it anew."""
        self._private, self._session, self._token = {}, None, None
        if self._library is not None:
            with suppress(pkcs11.PKCS11Error):
                self._library.finalize()

    def _tokens(self) -> Iterator[Any]:
        for slot in self._library.get_slots(token_present=True):
            with suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                yield slot.get_token()

    def _fits(self, token: Any) -> bool:
        wanted = self._uri
        return (
            wanted.token in {None, token.label}
            and wanted.serial in {None, _serial(token)}
            and wanted.manufacturer in {None, token.manufacturer_id}
            and wanted.model in {None, token.model}
        )


@contextmanager
def _lost_on_error() -> Generator[None]:
    """Whatever the module complains about while no document is signed: look for it again."""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise TokenLostError(f"{type(error).__name__} {error}".strip()) from error


def _serial(token: Any) -> str:
    return token.serial.decode("ascii", "replace").strip()
