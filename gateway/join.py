"""Birth of a gateway: keys are made and kept, central is proven and asked, its answer is checked.

Everything that must survive a failure on the way is durable before it is used: repeating the
command uses the same keys, and central gives the same answer to them (shared.sync.join).
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select

from gateway import certified, identity
from gateway.ca_cache import LAST_CONTACT
from gateway.config import GatewaySettings
from gateway.introduction import introduce
from gateway.version import VERSION
from shared.hsm.client import HsmClient
from shared.kernel.clock import Instant
from shared.kernel.errors import ConflictError, UntrustedError
from shared.pki import chain, keys
from shared.pki.key_types import KeyType
from shared.pki.plan import NameAttribute
from shared.store import facts
from shared.store.database import Database
from shared.store.outbox import Outbox
from shared.store.schema import fact
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.sync.join import JoinAnswer, JoinRequest, JoinToken, spki_hash
from shared.system.clock import SystemClock
from shared.system.files import private_directory
from shared.system.processes import hold_lock

_LABEL_BYTES = 4


def join(settings: GatewaySettings, text: str, reveal: Callable[[str], None]) -> str:
    """Join with a token's text; gives the gateway's name.

    ``reveal`` gets the recovery secret when it is made. Raises BadRequestError (the token is
    damaged), ConflictError (joined already), TokenUnavailableError, and what ``introduce`` raises.
    """
    return asyncio.run(_join(settings, JoinToken.parse(text), reveal))


async def _join(settings: GatewaySettings, token: JoinToken, reveal: Callable[[str], None]) -> str:
    private_directory(settings.state)
    settings.lock_path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = hold_lock(settings.lock_path)
    clock = SystemClock()
    outbox = Outbox.of_gateway(token.name, VERSION)
    database = await Database.open(settings.database_path, sink=outbox, clock=clock)
    client = HsmClient(settings.token_socket)
    try:
        await _require_unjoined(database)
        vault = await Vault.create(
            database, box_path=settings.box_slot_path, random=os.urandom, reveal=reveal
        )
        born = await _bear(database, vault, client, token.name, settings.token.key_type)
        answer = await introduce(token, born.request(token))
        _check(answer, token, born, clock.now())
        await client.adopt(born.label, answer.authority)
        await certified.prove(client, born.label, answer.name, answer.authority)
        await database.writer.run(lambda transaction: _store(transaction, answer, born.label))
    finally:
        await client.close()
        await database.close()
        os.close(lock)
    return answer.name


@dataclass(frozen=True, slots=True)
class _Born:
    """The keys of a new gateway."""

    label: str
    authority_csr: bytes
    transport: ec.EllipticCurvePrivateKey
    event: ec.EllipticCurvePrivateKey
    exchange: ec.EllipticCurvePrivateKey

    def request(self, token: JoinToken) -> JoinRequest:
        """Write the request: each key proves itself."""
        return JoinRequest(
            name=token.name,
            secret=token.secret,
            software=VERSION,
            transport_csr=identity.csr(self.transport, token.name),
            event_csr=identity.csr(self.event, token.name),
            exchange_csr=identity.csr(self.exchange, token.name),
            authority_csr=self.authority_csr,
        )


async def _require_unjoined(database: Database) -> None:
    rows = await database.read(select(fact.c.value).where(fact.c.name == identity.NAME))
    if rows:
        raise ConflictError(
            f"This box is the gateway {rows[0].value} already.",
            remedy="To let it begin anew, stop it, move its state directory away, invite it "
            "again and join.",
        )


async def _bear(
    database: Database, vault: Vault, client: HsmClient, name: str, kind: KeyType
) -> _Born:
    """Make the keys, or take those that an earlier attempt made."""
    label = await database.writer.run(_key_label)
    if label not in (await client.state()).keys:
        await client.generate(label, kind)
    subject = (NameAttribute(NameOID.COMMON_NAME.dotted_string, name),)
    return _Born(
        label,
        await client.birth_csr(label, subject),
        await vault.key_or_new(identity.TRANSPORT),
        await vault.key_or_new(identity.EVENT),
        await vault.key_or_new(identity.EXCHANGE),
    )


def _key_label(transaction: Transaction) -> str:
    """Choose the label of the CA key once, durably: a label that no earlier key can have."""
    label = facts.get(transaction, identity.KEY_LABEL)
    if label is None:
        label = f"gateway-ca-{transaction.random(_LABEL_BYTES).hex()}"
        facts.put(transaction, identity.KEY_LABEL, label)
    return label


def _check(answer: JoinAnswer, token: JoinToken, born: _Born, now: Instant) -> None:
    """Believe nothing that the token's pins and our own keys do not bear out."""
    authority = x509.load_der_x509_csr(born.authority_csr)
    expected = {
        "name": (answer.name, token.name),
        "directive key": (spki_hash(answer.directive_key), token.directive_key_hash),
        "transport root": (_key_hash(answer.transport_root), token.transport_root_hash),
        "transport certificate": (
            _key_hash(answer.transport_certificate),
            spki_hash(keys.spki(born.transport.public_key())),
        ),
        "CA certificate": (_key_hash(answer.authority), _hash_of(authority)),
    }
    for what, (given, wanted) in expected.items():
        if given != wanted:
            raise UntrustedError(f"The {what} in central's answer is not the one of this join.")
    *parents, root = answer.authority_chain
    chain.verify(answer.authority, parents, [root], now.utc_us)
    chain.verify(answer.transport_certificate, [], [answer.transport_root], now.utc_us)


def _key_hash(certificate: bytes) -> bytes:
    return _hash_of(x509.load_der_x509_certificate(certificate))


def _hash_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    key = keys.of(holder)
    if key is None:
        raise UntrustedError("Central's answer holds a key of a type that is not used here.")
    return spki_hash(keys.spki(key))


def _store(transaction: Transaction, answer: JoinAnswer, label: str) -> None:
    """Become the gateway, in one commit."""
    certified.store(
        transaction,
        answer.authority,
        answer.authority_chain,
        gateway=answer.name,
        label=label,
        issue_until_us=answer.issue_until_us,
    )
    facts.put(transaction, identity.ANSWER, answer.encode().hex())
    facts.put(transaction, identity.DIRECTIVE_KEYS, None)
    facts.put(transaction, LAST_CONTACT, str(transaction.now.utc_us))
    facts.put(transaction, identity.NAME, answer.name)
