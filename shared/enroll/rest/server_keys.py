"""Keys that the server makes: a retry gets the same key and certificate for 15 minutes.

The key is kept (wrapped, durable) before the certificate is issued, so that no crash can leave a
certificate whose key nobody has while its requester still asks. A later retry gets a new key, and
the certificate of the earlier one is revoked (design.md §3).
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from shared.enroll.rest.content import Wish
from shared.enroll.rest.key_maker import KeyMaker
from shared.enroll.rest.models import Format, KeyAttributes
from shared.enroll.rest.ports import CertificateRow, KeptKey, RestPorts
from shared.enroll.rest.rendering import Certified, with_encrypted_key, with_plain_key
from shared.enroll.rest.scope import Scope
from shared.issuance.service import EXPLICIT_REPLAY_US, IMPLICIT_REPLAY_US, explicit_key
from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.keys import KeyType


class ServerKeys:
    """Issues certificates for keys that are made here."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports
        self._maker = KeyMaker()
        self._packing: dict[str, asyncio.Task[Certified]] = {}

    async def certify(
        self, principal: str, wish: Wish, attributes: KeyAttributes, scope: Scope | None
    ) -> Certified:
        """Issue for a new key, or give again what an equal request of this principal got.

        Raises what ``issue`` raises, and KeyReusedError.
        """
        password = _password(attributes)
        kind = attributes.key_type or KeyType.EC_P256
        await self._require_allowed(wish.profile, kind)
        content = _content(wish, attributes.format, kind)
        if scope is not None:
            await self._ports.kept.bind(*scope.parts, content)
        base = scope.text if scope else f"server-key {principal} {content.hex()}"
        kept = await self._key(base, kind)
        private_key = keys.load_private(kept.private_key)
        spki = keys.spki(private_key.public_key())
        request = wish.by(principal, spki, _issue_key(base, kept.generation))
        issued = await self._ports.issuance.issue(request)
        if kept.generation > 1:
            replay_us = EXPLICIT_REPLAY_US if scope else IMPLICIT_REPLAY_US
            await self._revoke(principal, _issue_key(base, kept.generation - 1), replay_us)
        issuer = self._ports.keys.of(issued.ca_id).issuer
        if password is None:
            return with_plain_key(issued, issuer, private_key, attributes.format)
        pack = partial(with_encrypted_key, issued, issuer, private_key, attributes.format, password)
        return await self._packed(_name(base), kept, pack, password)

    async def _require_allowed(self, profile: str, kind: KeyType) -> None:
        """Refuse what policy would refuse anyway before a long key is made."""
        if not keys.FORMS[kind].slow:
            return
        allowed = {known.name: known.key_types for known in await self._ports.profiles()}
        if kind not in allowed.get(profile, (kind,)):
            raise BadRequestError(
                f"The profile {profile} does not allow keys of the type {kind}.",
                remedy=f"Use a key of type {', '.join(allowed[profile])}.",
                pointer="/data/attributes/key_type",
            )

    async def _key(self, base: str, kind: KeyType) -> KeptKey:
        """Give the key that is kept, or a new one if its certificate is not good any more."""
        name = _name(base)
        kept = await self._ports.kept.kept_key(name) if keys.FORMS[kind].slow else None
        fresh = b""
        if kept is None:
            fresh = await self._maker.make(name, kind)
            kept = await self._ports.kept.keep_key(name, fresh)
            self._maker.fetched(name)
        if kept.private_key == fresh:
            return kept
        row = await self._certificate(_issue_key(base, kept.generation))
        if row is None or row.status == "good":
            return kept
        again = f"{name} {kept.generation}"
        fresh = fresh or await self._maker.make(again, kind)
        kept = await self._ports.kept.keep_key(name, fresh, after=kept.generation)
        self._maker.fetched(again)
        return kept

    async def _packed(
        self, name: str, kept: KeptKey, pack: Callable[[], Certified], password: bytes
    ) -> Certified:
        """Let equal requests share the packing; deriving a key from a password takes 0.1 s."""
        proof = hashlib.sha256(password).hexdigest()
        sharing = f"{name} {kept.generation} {proof}"
        task = self._packing.get(sharing)
        if task is None:
            work = self._as_sent_before(name, kept, pack, proof)
            task = self._packing[sharing] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda _: self._packing.pop(sharing, None))
        return await asyncio.shield(task)

    async def _as_sent_before(
        self, name: str, kept: KeptKey, pack: Callable[[], Certified], proof: str
    ) -> Certified:
        """Give the bytes that the first equal request got: encryption is salted."""
        certified = await asyncio.to_thread(pack)
        answer = json.dumps([proof, certified.attributes]).encode()
        sent = await self._ports.kept.attach(name, kept.generation, answer)
        known_proof, attributes = json.loads(sent)
        equal = known_proof == proof and attributes["serial"] == certified.serial
        return certified._replace(attributes=attributes) if equal else certified

    async def _revoke(self, principal: str, issue_key: str, replay_us: int) -> None:
        row = await self._certificate(issue_key)
        now_us = self._ports.clock.now().utc_us
        if row is not None and row.status == "good" and now_us < row.issued_at_us + replay_us:
            await self._ports.status.revoke(row.ca_id, row.serial, "superseded", principal)

    async def _certificate(self, issue_key: str) -> CertificateRow | None:
        return await self._ports.reads.certificate_of(explicit_key(issue_key))


def _password(attributes: KeyAttributes) -> bytes | None:
    """Give the password; it is sent exactly when the format encrypts."""
    encrypts = attributes.format in {Format.PKCS8, Format.PKCS12}
    if (attributes.password is not None) != encrypts:
        raise BadRequestError(
            "The formats pkcs8 and pkcs12 need a password, and the others take none.",
            pointer="/data/attributes/password",
        )
    return attributes.password.get_secret_value().encode() if attributes.password else None


def _content(wish: Wish, packing: Format, kind: KeyType) -> bytes:
    """Hash what is asked for. The password stays out: a hash of it could be guessed at rest."""
    content: list[Any] = [
        wish.operation.value,
        wish.profile,
        [[attribute.oid, attribute.value] for attribute in wish.subject],
        [[name.kind.value, name.value] for name in wish.alt_names],
        wish.device_id,
        wish.validity_days,
        dict(wish.metadata),
        list(wish.replaces or ()),
        wish.test,
        packing.value,
    ]
    if kind is not KeyType.EC_P256:  # the hashes of what was asked for earlier stay the same
        content.append(kind.value)
    return hashlib.sha256(cbor.encode(content)).digest()


def _name(base: str) -> str:
    """Name the kept key; a hash, because routes and keys of clients may be long."""
    return hashlib.sha256(base.encode()).hexdigest()


def _issue_key(base: str, generation: int) -> str:
    """Give each key's certificate its own; the first has the client's, as one for a CSR would."""
    return base if generation == 1 else f"{base} #{generation}"
