"""``serverkeygen``: a key that is made here, with its certificate (RFC 7030 §4.4)."""

import hashlib
from dataclasses import replace
from typing import NamedTuple

from shared.enroll.est.ports import EstPorts
from shared.enroll.made_keys import MadeKeys
from shared.issuance.retries import IMPLICIT_REPLAY_US
from shared.kernel import cbor
from shared.pki.keys import FORMS, KeyType
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest


class KeyPair(NamedTuple):
    """A private key (PKCS#8 DER) and its certificate (DER)."""

    private_key: bytes
    certificate: bytes


class ServerKeys:
    """Issues certificates for keys that are made here."""

    def __init__(self, ports: EstPorts) -> None:
        """Take the ports."""
        self._ports = ports
        self._made = MadeKeys(ports)

    async def certify(self, wish: EnrollmentRequest) -> KeyPair:
        """Issue for a new key, or give again what an equal request got.

        Raises as ``issue``, and UnavailableError while a long key is being made.
        """

        def request(spki: bytes, issue_key: str) -> EnrollmentRequest:
            return replace(wish, public_key=spki, csr_hash=None, idempotency_key=issue_key)

        base = f"est-server-key {wish.principal} {_content(wish).hex()}"
        kind = _kind(self._ports.profile(wish.profile))
        made = await self._made.certify(base, kind, request, IMPLICIT_REPLAY_US)
        return KeyPair(made.kept.private_key, made.issued.der)


def _content(wish: EnrollmentRequest) -> bytes:
    """Hash what is asked for, all but the key."""
    return hashlib.sha256(
        cbor.encode(
            [
                wish.alias,
                wish.profile,
                [[attribute.oid, attribute.value] for attribute in wish.subject],
                [[name.kind.value, name.value] for name in wish.alt_names],
                wish.device_id,
            ]
        )
    ).digest()


def _kind(profile: Profile) -> KeyType:
    """Choose the type of the key: P-256, which costs nothing, where the profile allows it."""
    allowed = profile.key_types
    if KeyType.EC_P256 in allowed:
        return KeyType.EC_P256
    return next((kind for kind in allowed if FORMS[kind].make), allowed[0])
