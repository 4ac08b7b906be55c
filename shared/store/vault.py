"""Secrets in the database: each wrapped on its own, under a keyring that stands beside them.

The keyring opens with the box's own secret, a 0600 file that belongs into no backup, or with the
recovery secret that was printed once (design.md §7).
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from shared.kernel.errors import ConflictError, IntegrityError, NotFoundError
from shared.kernel.ids import Random
from shared.pki import keys
from shared.pki.keys import PrivateKey
from shared.pki.keywrap import SECRET_BYTES, Keyring, recovery_text
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import fact, key_envelope
from shared.store.transaction import Transaction
from shared.system.files import read_private, write_private

_TABLE = "key_envelope"
KEYRING = "keyring"

_FIND = select(key_envelope.c.version, key_envelope.c.envelope).where(
    key_envelope.c.name == bindparam("name")
)
_inserted = insert(key_envelope)
_PUT = _inserted.on_conflict_do_update(
    index_elements=[key_envelope.c.name],
    set_={
        name: getattr(_inserted.excluded, name) for name in ("version", "envelope", "created_at")
    },
)
_DROP = delete(key_envelope).where(key_envelope.c.name == bindparam("secret"))
_KEYRING_OF = select(fact.c.value).where(fact.c.name == KEYRING)


class Vault:
    """Keeps named secrets; open it with ``open``, make it with ``create``."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        """Take the database and the open keyring."""
        self._database = database
        self.keyring = keyring

    @classmethod
    async def open(cls, database: Database, *, box_path: Path, random: Random) -> Self:
        """Open by the box's secret.

        Raises NotFoundError (no keyring, or no box secret), ForbiddenError, UntrustedError (the
        secret of another box).
        """
        rows = await database.read(_KEYRING_OF)
        if not rows:
            raise NotFoundError("This database holds no keyring yet.")
        own = read_private(box_path, limit=SECRET_BYTES)
        document = bytes.fromhex(rows[0].value)
        return cls(database, Keyring.open(document, box_secret=own, random=random))

    @classmethod
    async def create(
        cls, database: Database, *, box_path: Path, random: Random, reveal: Callable[[str], None]
    ) -> Self:
        """Make the keyring, or open the one that is there.

        ``reveal`` gets a new keyring's recovery secret, written for paper, *before* the keyring is
        stored: of several, the last one counts.
        """
        if await database.read(_KEYRING_OF):
            return await cls.open(database, box_path=box_path, random=random)
        own = box_secret(box_path, random)
        recovery_secret = random(SECRET_BYTES)
        keyring = Keyring.create(box_secret=own, recovery_secret=recovery_secret, random=random)
        reveal(recovery_text(recovery_secret))
        row = {"name": KEYRING, "value": keyring.document().hex()}
        await database.writer.run(lambda transaction: transaction.execute(insert(fact), row))
        return cls(database, keyring)

    async def renew_recovery(self, random: Random) -> str:
        """Let another recovery secret open the keyring; gives it, written for paper.

        Only for a central or gateway whose first one nobody has seen: backups name it.
        """
        secret = random(SECRET_BYTES)
        self.keyring = self.keyring.with_recovery(secret)
        document = self.keyring.document().hex()
        await self._database.writer.run(
            lambda transaction: facts.put(transaction, KEYRING, document)
        )
        return recovery_text(secret)

    async def get(self, name: str) -> bytes:
        """Give a secret. Raises NotFoundError, IntegrityError (changed or moved)."""
        rows = await self._database.read(_FIND, {"name": name})
        if not rows:
            raise NotFoundError(f"The secret {name} is not kept here.")
        return self.keyring.unwrap(rows[0].envelope, _TABLE, name, rows[0].version)

    def keep(self, transaction: Transaction, name: str, secret: bytes) -> None:
        """Keep a secret in place of the one of this name, with what else the transaction does."""
        known = transaction.one(_FIND, {"name": name})
        version = 1 if known is None else known.version + 1
        row = {
            "name": name,
            "version": version,
            "envelope": self.keyring.wrap(secret, _TABLE, name, version),
            "created_at": transaction.now.utc_us,
            "expires_at": None,
        }
        transaction.execute(_PUT, row)

    def drop(self, transaction: Transaction, name: str) -> None:
        """Keep the secret of this name no longer; nothing happens if there is none."""
        transaction.execute(_DROP, {"secret": name})

    async def put(self, name: str, secret: bytes) -> None:
        """Keep a secret in place of the one of this name."""
        await self._database.writer.run(lambda transaction: self.keep(transaction, name, secret))

    async def private_key(self, name: str) -> PrivateKey:
        """Give a private key of any type. Raises NotFoundError, IntegrityError."""
        return keys.load_private(await self.get(name))

    async def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Give a private key of our own messages: P-256. Raises NotFoundError, IntegrityError."""
        key = await self.private_key(name)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IntegrityError(f"The key {name} is of another type than its use needs.")
        return key

    def keep_key(self, transaction: Transaction, name: str, key: PrivateKey) -> None:
        """Keep a private key in place of the one of this name."""
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.keep(transaction, name, der)

    async def key_or_new(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Give a private key; where there is none, make it, and give it once it is durable."""
        try:
            return await self.key(name)
        except NotFoundError:
            made = keys.generate()
            await self._database.writer.run(
                lambda transaction: self.keep_key(transaction, name, made)
            )
            return made


def box_secret(path: Path, random: Random) -> bytes:
    """Give the secret of this box, 32 bytes of a 0600 file; make it if it is not there."""
    with suppress(ConflictError):
        write_private(path, random(SECRET_BYTES))
    return read_private(path, limit=SECRET_BYTES)
