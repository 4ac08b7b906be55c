"""``serverkeygen``: a key that is made here, with its certificate (RFC 7030 §4.4).

As with REST the key is kept (wrapped, durable) before the certificate is issued: a retry within 15
minutes gets the same pair, a later one a new pair, and the earlier certificate is revoked.
"""

import asyncio
import hashlib
from dataclasses import replace
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ObjectIdentifier

from shared.enroll.est.ports import EstPorts
from shared.enroll.rest.ports import CertificateRow, KeptKey
from shared.issuance.service import IMPLICIT_REPLAY_US, explicit_key
from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.keys import KeyType
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest

#: id-aa-decryptKeyID and id-aa-asymmDecryptKeyID (RFC 7030 §4.4.1): encrypt the key beyond TLS.
_DECRYPT_KEY_IDS = frozenset(
    map(ObjectIdentifier, ("1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54"))
)


class KeyPair(NamedTuple):
    """A private key (PKCS#8 DER) and its certificate (DER)."""

    private_key: bytes
    certificate: bytes


class ServerKeys:
    """Issues certificates for keys that are made here."""

    def __init__(self, ports: EstPorts) -> None:
        """Take the ports."""
        self._ports = ports

    async def certify(self, wish: EnrollmentRequest) -> KeyPair:
        """Issue for a new key, or give again what an equal request got; raises as ``issue``."""
        base = f"est-server-key {wish.principal} {_content(wish).hex()}"
        kept = await self._key(base, self._ports.profile(wish.profile))
        private_key = keys.load_private(kept.private_key)
        request = replace(
            wish,
            public_key=keys.spki(private_key.public_key()),
            idempotency_key=_issue_key(base, kept.generation),
        )
        issued = await self._ports.issuance.issue(request)
        if kept.generation > 1:
            await self._revoke(wish.principal, _issue_key(base, kept.generation - 1))
        return KeyPair(kept.private_key, issued.der)

    async def _key(self, base: str, profile: Profile) -> KeptKey:
        """Give the key that is kept, or a new one if its certificate is not good any more."""
        name = hashlib.sha256(base.encode()).hexdigest()
        fresh = await _new_key(profile)
        kept = await self._ports.kept.keep_key(name, fresh)
        if kept.private_key == fresh:
            return kept
        row = await self._certificate(_issue_key(base, kept.generation))
        if row is None or row.status == "good":
            return kept
        return await self._ports.kept.keep_key(name, fresh, after=kept.generation)

    async def _revoke(self, principal: str, issue_key: str) -> None:
        row = await self._certificate(issue_key)
        now_us = self._ports.clock.now().utc_us
        if (
            row is not None
            and row.status == "good"
            and now_us < row.issued_at_us + IMPLICIT_REPLAY_US
        ):
            await self._ports.status.revoke(row.ca_id, row.serial, "superseded", principal)

    async def _certificate(self, issue_key: str) -> CertificateRow | None:
        return await self._ports.reads.certificate_of(explicit_key(issue_key))


def require_unencrypted(csr: bytes) -> None:
    """Raise BadRequestError if the key shall be encrypted beyond TLS, which is not done here.

    Whoever asks for that must not get it in clear (RFC 7030 §4.4.1). ``csr`` is DER.
    """
    wanted = {attribute.oid for attribute in x509.load_der_x509_csr(csr).attributes}
    if wanted & _DECRYPT_KEY_IDS:
        raise BadRequestError(
            "The request asks for a key that is encrypted beyond TLS, which is not done here.",
            remedy="Leave out DecryptKeyIdentifier and AsymmetricDecryptKeyIdentifier, or make "
            "the key in the device and use simpleenroll.",
        )


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


async def _new_key(profile: Profile) -> bytes:
    """Make a key that the profile allows; one that takes long is made beside the event loop."""
    quick = KeyType.EC_P256
    if quick in profile.key_types:
        key = keys.generate()
    else:
        key = await asyncio.to_thread(keys.generate, profile.key_types[0])
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _issue_key(base: str, generation: int) -> str:
    return base if generation == 1 else f"{base} #{generation}"
