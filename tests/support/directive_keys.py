"""A directive key without a vault."""

from cryptography.hazmat.primitives.asymmetric import ec

from shared.kernel.errors import UntrustedError
from shared.pki import keys
from shared.sync.envelope import Signer
from shared.sync.join import spki_hash


class OneKey:
    """What ``central.sync.directive_keys.DirectiveKeys`` is to who signs and verifies."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.current = Signer(spki_hash(keys.spki(key.public_key())), key)

    def find(self, kid: bytes) -> ec.EllipticCurvePublicKey:
        if kid != self.current.kid:
            raise UntrustedError("It was not signed by this central.")
        return self.current.key.public_key()
