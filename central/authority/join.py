"""Joining, central's side: a one-time secret is spent in the commit that makes the gateway.

Certificates are signed before that commit and leave after it. A retry with the same keys finds
the stored answer; other keys are refused, so a stolen token is worth nothing once it is spent.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import insert, select, update

from central.authority import plans
from central.authority.hierarchy import (
    INFRASTRUCTURE,
    Hierarchy,
    certify,
    gateway_title,
    record,
    store_authority,
)
from central.config import CentralSettings
from central.policy import books
from central.sync import directives, fleet
from central.sync.directive_keys import DirectiveKeys
from central.sync.listener import Storage
from shared.issuance.ports import Purpose
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import BadRequestError, ConflictError, UnauthenticatedError
from shared.kernel.ids import Random, serial_text, uuid7
from shared.pki import keys
from shared.pki.request import CertificationRequest
from shared.policy.grant import Grant
from shared.store import certificates
from shared.store.link import LinkTables
from shared.store.schema import COMPLETE, ca, crl, grant_use
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.sync import outbox
from shared.sync.envelope import Address, seal
from shared.sync.events import Direction, Event
from shared.sync.join import SECRET_BYTES, JoinAnswer, JoinRequest, JoinToken, spki_hash
from shared.sync.outbox import Budget

_HOUR_US = 3600 * US_PER_SECOND
_DAY_US = 24 * _HOUR_US
_FIRST_ENVELOPES = Budget(envelopes=16, size=1024 * 1024, turn=0)


@dataclass(frozen=True, slots=True)
class _Proven:
    """The keys of a request, DER SubjectPublicKeyInfos whose possession is proven."""

    transport: bytes
    event: bytes
    exchange: bytes
    authority: bytes

    @classmethod
    def of(cls, request: JoinRequest) -> "_Proven":
        csrs = (
            request.transport_csr,
            request.event_csr,
            request.exchange_csr,
            request.authority_csr,
        )
        spkis = [CertificationRequest.parse(csr).public_key for csr in csrs]
        if len(set(spkis)) < len(spkis):
            raise BadRequestError("Each key of a gateway has one use: the four must differ.")
        return cls(*spkis)

    @property
    def hash(self) -> bytes:
        """Tell a retry from another gateway."""
        joined = self.transport + self.event + self.exchange + self.authority
        return hashlib.sha256(joined).digest()


@dataclass(frozen=True, slots=True)
class Joined:
    """A gateway that just came to be, before its answer leaves.

    ``event_key`` is a DER SubjectPublicKeyInfo, ``authority`` its CA's certificate. ``again``: an
    earlier gateway of this name may still be connected, with an identity that is revoked now.
    """

    name: str
    event_key: bytes
    authority: bytes
    again: bool


@dataclass(frozen=True, slots=True)
class _Signed:
    """What was signed for a newborn, and central's responder key for its CA."""

    title: str
    authority: bytes
    transport: bytes
    responder_key: ec.EllipticCurvePrivateKey


class Joining:
    """Invites gateways and lets them join. ``joined`` is awaited before an answer leaves."""

    def __init__(
        self,
        settings: CentralSettings,
        storage: Storage,
        *,
        organization: str,
        hierarchy: Hierarchy,
        vault: Vault,
        directive_keys: DirectiveKeys,
        clock: Clock,
        random: Random,
        joined: Callable[[Joined], Awaitable[None]],
    ) -> None:
        """Take what signs, what stores and whom to tell."""
        self._settings = settings
        self._storage = storage
        self._organization = organization
        self._hierarchy = hierarchy
        self._vault = vault
        self._directive_keys = directive_keys
        self._clock = clock
        self._random = random
        self._joined = joined

    @property
    def transport_root(self) -> bytes:
        """The transport root, DER: whoever holds a token knows its key's hash."""
        return self._hierarchy.transport.issuer.chain[0]

    async def invite(self, name: str, actor: str) -> str:
        """Make a join token for a gateway and give its text; an earlier one is void."""
        secret = self._random(SECRET_BYTES)
        now_us = self._clock.now().utc_us
        expires_at_us = now_us + self._settings.gateways.token_hours * _HOUR_US
        digest = hashlib.sha256(secret).digest()
        await self._storage.database.writer.run(
            lambda transaction: fleet.invite(transaction, name, digest, expires_at_us, actor)
        )
        token = JoinToken(
            name=name,
            address=self._settings.join_address,
            secret=secret,
            transport_root_hash=spki_hash(keys.spki(self._hierarchy.transport.issuer.public_key)),
            directive_key_hash=spki_hash(keys.spki(self._directive_keys.current.key.public_key())),
        )
        return token.text()

    async def join(self, request: JoinRequest) -> bytes:
        """Give the encoded answer to a gateway that holds a valid token.

        Raises UnauthenticatedError, BadRequestError (a key does not prove itself), ConflictError
        (the token was spent by other keys).
        """
        run = self._storage.database.writer.run
        await run(lambda transaction: _require_invited(transaction, request))
        proven = _Proven.of(request)
        earlier = await run(lambda transaction: _earlier(transaction, request, proven))
        if earlier is not None:
            return earlier
        signed = await self._sign(request.name, proven)
        answer, again = await run(
            lambda transaction: self._spend(transaction, request, proven, signed)
        )
        authority = JoinAnswer.decode(answer).authority
        await self._joined(Joined(request.name, proven.event, authority, again))
        return answer

    async def _sign(self, name: str, proven: _Proven) -> _Signed:
        now_us = self._clock.now().utc_us
        title = await self._storage.database.writer.run(partial(gateway_title, gateway=name))
        authority = plans.authority(
            title, self._organization, proven.authority, path_length=0, now_us=now_us
        )
        transport = plans.gateway_transport(name, proven.transport, now_us)
        hierarchy = self._hierarchy
        return _Signed(
            title,
            await certify(hierarchy.fleet, authority, Purpose.CA, self._random),
            await certify(hierarchy.transport, transport, Purpose.LEAF, self._random),
            keys.generate(),
        )

    def _spend(
        self, transaction: Transaction, request: JoinRequest, proven: _Proven, signed: _Signed
    ) -> tuple[bytes, bool]:
        """Spend the secret: all of the gateway comes to be, or nothing.

        Gives the answer, and whether a former gateway of this name lost its identity by that.
        """
        earlier = _earlier(transaction, request, proven)
        if earlier is not None:
            return earlier, False
        name = request.name
        former = fleet.find(transaction, name).transport_serial
        if former is not None:
            revoke_transport(transaction, self._hierarchy, former, "superseded")
        serial = serial_text(x509.load_der_x509_certificate(signed.transport).serial_number)
        newborn = fleet.Newborn(
            proven.event, proven.exchange, serial, request.software, proven.hash
        )
        fleet.join(transaction, name, newborn)
        self._storage.outbox.forget()  # the history to an earlier gateway of this name has ended
        transport_ca = self._hierarchy.transport.issuer.ca_id
        record(transaction, transport_ca, signed.transport, "transport")
        issue_until_us = transaction.now.utc_us + self._settings.authority.issue_days * _DAY_US
        authority = self._keep_authority(transaction, name, proven, signed, issue_until_us)
        self._order(transaction, name, authority, signed)
        answer = self._answer(transaction, name, authority, signed, issue_until_us).encode()
        fleet.change(transaction, name, {"join_answer": answer})
        return answer, former is not None

    def _keep_authority(
        self,
        transaction: Transaction,
        name: str,
        proven: _Proven,
        signed: _Signed,
        issue_until_us: int,
    ) -> bytes:
        """Store the gateway CA; one whose key joined before under this name stays as it is."""
        ca_id = keys.key_identifier(proven.authority).hex()
        known: Any = transaction.one(select(ca).where(ca.c.ca_id == ca_id))
        if known is None:
            store_authority(
                transaction,
                kind="gateway",
                name=signed.title,
                der=signed.authority,
                parent_id=self._hierarchy.fleet.issuer.ca_id,
                gateway=name,
                issue_until_us=issue_until_us,
            )
            return signed.authority
        if known.gateway != name or known.state == "ended":
            raise ConflictError("This CA key was certified before and must not be used again.")
        values = {"state": "active", "issue_until": issue_until_us}
        transaction.execute(update(ca).where(ca.c.ca_id == ca_id).values(values))
        return known.der

    def _order(
        self, transaction: Transaction, name: str, authority: bytes, signed: _Signed
    ) -> None:
        """Write the first directives."""
        actor = f"gateway:{name}"
        parents = self._hierarchy.fleet.issuer.chain
        first = books.bundle(transaction, (authority, *parents))
        directives.order_bundle(transaction, name, first, actor)
        grant = self._grant(transaction)
        transaction.execute(
            insert(grant_use),
            {
                "grant_id": grant.grant_id,
                "version": grant.version,
                "quota": grant.quota,
                "used": 0,
                "state": "active",
                "document": grant.model_dump_json().encode(),
            },
        )
        directives.order_grant(transaction, name, grant, actor)
        ca_id = _ca_id(authority)
        self._vault.keep_key(transaction, responder_key_name(ca_id), signed.responder_key)
        spki = keys.spki(signed.responder_key.public_key())
        directives.order_responder(transaction, name, ca_id, spki, actor)
        for key in (self._hierarchy.fleet, self._hierarchy.root):
            ca_id = key.issuer.ca_id
            newest = select(crl.c.der).where(crl.c.ca_id == ca_id, crl.c.scope == COMPLETE)
            row: Any = transaction.one(newest.order_by(crl.c.number.desc()).limit(1))
            if row is not None:
                directives.order_crl(transaction, name, ca_id, row.der, actor)

    def _grant(self, transaction: Transaction) -> Grant:
        wanted = self._settings.grant
        now_us = transaction.now.utc_us
        return Grant(
            grant_id=uuid7(transaction.now, transaction.random),
            version=1,
            profiles=wanted.profiles,
            quota=wanted.quota,
            not_before_us=now_us - _HOUR_US,
            not_after_us=now_us + wanted.days * _DAY_US,
            last_contact_max_s=wanted.offline_days * _DAY_US // US_PER_SECOND,
        )

    def _answer(
        self,
        transaction: Transaction,
        name: str,
        authority: bytes,
        signed: _Signed,
        issue_until_us: int,
    ) -> JoinAnswer:
        tables = LinkTables(transaction, self._storage.outbox, name, _nothing_to_apply)
        address = Address(name, Direction.DOWN)
        batches = outbox.pick(tables, {}, _FIRST_ENVELOPES)
        signer = self._directive_keys.current
        broker_host, broker_port = self._settings.gateway_broker
        return JoinAnswer(
            name=name,
            incarnation=directives.incarnation(transaction),
            authority=authority,
            issue_until_us=issue_until_us,
            authority_chain=self._hierarchy.fleet.issuer.chain,
            transport_certificate=signed.transport,
            transport_root=self.transport_root,
            directive_key=keys.spki(signer.key.public_key()),
            broker_host=broker_host,
            broker_port=broker_port,
            status_url=self._settings.status_url,
            envelopes=tuple(seal(batch, signer, address) for batch in batches),
        )


def revoke_transport(
    transaction: Transaction, hierarchy: Hierarchy, serial: str, reason: str
) -> None:
    """Revoke a gateway's transport identity; the broker learns it by the next transport CRL."""
    ca_id = hierarchy.transport.issuer.ca_id
    body = {
        "ca_id": ca_id,
        "serial": serial,
        "reason": reason,
        "revoked_at_us": transaction.now.utc_us,
    }
    certificates.record_revoked(transaction, INFRASTRUCTURE, body)


def responder_key_name(ca_id: str) -> str:
    """Name the vault's row with central's OCSP key for a gateway CA."""
    return f"responder/{ca_id}"


def _require_invited(transaction: Transaction, request: JoinRequest) -> Any:
    """Check the secret in constant time, before any work is done for a stranger."""
    row = fleet.known(transaction, request.name)
    digest = hashlib.sha256(request.secret).digest()
    expected = row.join_secret_hash if row is not None else None
    if not hmac.compare_digest(expected or bytes(len(digest)), digest) or row is None:
        raise UnauthenticatedError(
            "The join token is not valid.",
            remedy="Invite the gateway again with `tma-central gateway invite` and use that token.",
        )
    if row.join_request_hash is None and transaction.now.utc_us >= row.join_expires_at:
        raise UnauthenticatedError(
            "The join token has expired.",
            remedy="Invite the gateway again with `tma-central gateway invite`.",
        )
    return row


def _earlier(transaction: Transaction, request: JoinRequest, proven: _Proven) -> bytes | None:
    """Give what this very gateway was answered before; raises ConflictError for another one."""
    row = _require_invited(transaction, request)
    if row.join_request_hash is None:
        return None
    if row.join_request_hash != proven.hash:
        raise ConflictError(
            "This join token was spent by a gateway with other keys.",
            remedy="Find out who joined with it; invite this gateway again.",
        )
    return row.join_answer


def _ca_id(der: bytes) -> str:
    return keys.ca_id(keys.of_ca(x509.load_der_x509_certificate(der)))


def _nothing_to_apply(transaction: Transaction, events: Sequence[Event]) -> None:
    raise AssertionError(transaction, events)
