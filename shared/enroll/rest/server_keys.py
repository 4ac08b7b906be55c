"""Keys that the server makes, in the formats of REST: a password encrypts, and a retry is equal."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from shared.enroll.made_keys import MadeKeys
from shared.enroll.rest.content import Wish
from shared.enroll.rest.models import Format, KeyAttributes
from shared.enroll.rest.ports import KeptKey, RestPorts
from shared.enroll.rest.rendering import Certified, with_encrypted_key, with_plain_key
from shared.enroll.rest.scope import Scope
from shared.issuance.retries import EXPLICIT_REPLAY_US, IMPLICIT_REPLAY_US
from shared.kernel import cbor
from shared.kernel.errors import BadRequestError
from shared.pki import keys
from shared.pki.keys import KeyType


class ServerKeys:
    """Issues certificates for keys that are made here."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports
        self._made = MadeKeys(ports)
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
        replay_us = EXPLICIT_REPLAY_US if scope else IMPLICIT_REPLAY_US
        request = partial(wish.by, principal)
        made = await self._made.certify(base, kind, request, replay_us)
        issued, private_key = made.issued, made.private_key
        chain = self._ports.chain(issued.ca_id)
        if password is None:
            return with_plain_key(issued, chain, private_key, attributes.format)
        pack = partial(with_encrypted_key, issued, chain, private_key, attributes.format, password)
        return await self._packed(made.name, made.kept, pack, password)

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
