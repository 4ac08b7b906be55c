"""Who this gateway is: what central answered when it joined, and the keys that go with it.

Both are in the database, so that one file is the whole backup. Only the name is needed earlier,
because it is part of every hash of the outbox.
"""

import json
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import select

from shared.kernel.errors import ConflictError
from shared.pki import formats, keys
from shared.store.database import Database
from shared.store.schema import fact
from shared.store.vault import Vault
from shared.sync.envelope import Signer
from shared.sync.join import JoinAnswer, spki_hash

#: Facts that the join writes; TRANSPORT, EVENT and EXCHANGE also name secrets in the vault.
NAME: Final = "gateway_name"
ANSWER: Final = "join_answer"
KEY_LABEL: Final = "authority_key_label"
#: What central ordered to trust instead of the directive key of the join: hex SPKIs in JSON.
DIRECTIVE_KEYS: Final = "directive_keys"
TRANSPORT, EVENT, EXCHANGE = "transport", "event", "exchange"
SECRETS: Final = (TRANSPORT, EVENT, EXCHANGE)

_BUSY_S = 5


@dataclass(frozen=True, slots=True)
class Identity:
    """A joined gateway.

    ``answer.envelopes`` are given to the inbox at each start: repeats are harmless, and a crash
    right after the join loses nothing.
    """

    answer: JoinAnswer
    key_label: str
    transport_key: ec.EllipticCurvePrivateKey
    event_key: ec.EllipticCurvePrivateKey
    directive_keys: tuple[bytes, ...]  # SPKIs of central's that are trusted, the newest first

    @classmethod
    async def load(cls, database: Database, vault: Vault) -> Self:
        """Read it from a database of which ``joined_name`` gave a name."""
        facts = {row.name: row.value for row in await database.read(select(fact))}
        return cls(
            JoinAnswer.decode(bytes.fromhex(facts[ANSWER])),
            facts[KEY_LABEL],
            await vault.key(TRANSPORT),
            await vault.key(EVENT),
            await directive_keys(database),
        )

    @property
    def name(self) -> str:
        """The gateway's name."""
        return self.answer.name

    @property
    def signer(self) -> Signer:
        """What signs our envelopes."""
        return Signer(spki_hash(keys.spki(self.event_key.public_key())), self.event_key)

    @property
    def transport_pem(self) -> tuple[bytes, bytes]:
        """Certificate and private key of the transport identity."""
        certificate = formats.pem([self.answer.transport_certificate]).encode()
        key = self.transport_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate, key


async def directive_keys(database: Database) -> tuple[bytes, ...]:
    """Give the directive keys (SPKIs) to trust: what was ordered last, or that of the join."""
    facts = {row.name: row.value for row in await database.read(select(fact))}
    if (ordered := facts.get(DIRECTIVE_KEYS)) is None:
        return (JoinAnswer.decode(bytes.fromhex(facts[ANSWER])).directive_key,)
    return tuple(bytes.fromhex(one) for one in json.loads(ordered))


def csr(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Prove a key by a PKCS#10 request (DER) that bears the gateway's name."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(Encoding.DER)


def joined_name(database_path: Path) -> str:
    """Give the name under which this box joined; raises ConflictError when it did not."""
    row = None
    with (
        suppress(sqlite3.Error),
        # Not read-only: what a kill left half done in a migration could not be rolled back then.
        closing(sqlite3.connect(f"file:{database_path}?mode=rw", uri=True, timeout=_BUSY_S)) as db,
    ):
        row = db.execute("SELECT value FROM fact WHERE name = ?", [NAME]).fetchone()
    if row is None:
        raise ConflictError(
            "This box has not joined a central yet.",
            remedy="Run `tma-gateway join` with the token that `tma-central gateway invite` "
            "prints.",
        )
    return row[0]
