"""What is kept for a retry: server-made keys for minutes, answers by Idempotency-Key for days."""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.kernel import cbor
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import KeyReusedError
from shared.pki.keywrap import Keyring
from shared.store.database import Database
from shared.store.schema import idempotency, key_envelope
from shared.store.transaction import Transaction

_TABLE = key_envelope.name
_KEY_US = 15 * 60 * US_PER_SECOND
_ANSWER_US = 30 * 24 * 3600 * US_PER_SECOND
_SECRET_BYTES_MAX = 256 * 1024

_THIS_KEY = key_envelope.c.name == bindparam("this")
_FIND_KEY = select(
    key_envelope.c.version, key_envelope.c.envelope, key_envelope.c.expires_at
).where(_THIS_KEY)
_insert_key = insert(key_envelope)
_PUT_KEY = _insert_key.on_conflict_do_update(
    index_elements=[key_envelope.c.name],
    set_={
        name: getattr(_insert_key.excluded, name)
        for name in ("version", "envelope", "created_at", "expires_at")
    },
)
_REWRAP = update(key_envelope).where(_THIS_KEY).values(envelope=bindparam("wrapped"))
#: The row stays when its secret goes: it knows how many keys there were.
_EMPTY_KEYS = (
    update(key_envelope)
    .where(key_envelope.c.expires_at <= bindparam("now"))
    .values(envelope=bindparam("nothing"))
)
_DROP_KEYS = delete(key_envelope).where(key_envelope.c.expires_at <= bindparam("long_ago"))

_THIS_ANSWER = (
    (idempotency.c.principal == bindparam("who"))
    & (idempotency.c.route == bindparam("where"))
    & (idempotency.c.key == bindparam("which"))
)
_BIND = insert(idempotency).on_conflict_do_nothing()
_FIND_ANSWER = select(idempotency.c.body_hash, idempotency.c.http_status, idempotency.c.body).where(
    _THIS_ANSWER
)
_KEEP_ANSWER = (
    update(idempotency)
    .where(_THIS_ANSWER)
    .values(http_status=bindparam("status"), body=bindparam("answer"))
)
_DROP_ANSWERS = delete(idempotency).where(idempotency.c.created_at <= bindparam("long_ago"))
_NOT_ANSWERED = 0


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A private key (PKCS#8 DER), which one of its name it is, and the answer sent with it."""

    private_key: bytes
    generation: int
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a POST was answered."""

    http_status: int
    body: bytes


class Kept:
    """The ports ``KeyCache`` and ``Answers`` of shared.enroll.rest."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        """Take the database and the keyring that wraps what is secret."""
        self._database = database
        self._keyring = keyring

    async def kept_key(self, name: str) -> KeptKey | None:
        """Give the key that is kept under this name; None when there is none, or no more."""
        row_name = _row_name(name)

        def unit(transaction: Transaction) -> tuple[int, bytes] | None:
            known = transaction.one(_FIND_KEY, {"this": row_name})
            if known is None or transaction.now.utc_us >= known.expires_at:
                return None
            return known.version, known.envelope

        found = await self._database.writer.run(unit)
        return found and self._unwrapped(row_name, *found)

    async def keep_key(self, name: str, private_key: bytes, *, after: int = 0) -> KeptKey:
        """Give the key that is kept under this name, else keep this one for 15 minutes.

        What is kept counts only if its generation is above ``after``.
        """
        row_name = _row_name(name)

        def unit(transaction: Transaction) -> tuple[int, bytes]:
            known = transaction.one(_FIND_KEY, {"this": row_name})
            now_us = transaction.now.utc_us
            if known is not None and known.version > after and now_us < known.expires_at:
                return known.version, known.envelope
            generation = 1 if known is None else known.version + 1
            envelope = self._wrapped(row_name, KeptKey(private_key, generation, None))
            row = {
                "name": row_name,
                "version": generation,
                "envelope": envelope,
                "created_at": now_us,
                "expires_at": now_us + _KEY_US,
            }
            transaction.execute(_PUT_KEY, row)
            return generation, envelope

        return self._unwrapped(row_name, *await self._database.writer.run(unit))

    async def attach(self, name: str, generation: int, answer: bytes) -> bytes:
        """Keep the answer beside the key; gives the one that was kept first."""
        row_name = _row_name(name)

        def unit(transaction: Transaction) -> bytes:
            row = transaction.one(_FIND_KEY, {"this": row_name})
            if row is None or row.version != generation or not row.envelope:
                return answer
            kept = self._unwrapped(row_name, generation, row.envelope)
            if kept.answer is not None:
                return kept.answer
            wrapped = self._wrapped(row_name, KeptKey(kept.private_key, generation, answer))
            transaction.execute(_REWRAP, {"this": row_name, "wrapped": wrapped})
            return answer

        return await self._database.writer.run(unit)

    async def bind(
        self, principal: str, route: str, key: str, body_hash: bytes
    ) -> KeptAnswer | None:
        """Bind an Idempotency-Key to a content, or give the answer that is kept.

        Raises KeyReusedError when the key is bound to another content.
        """
        row = {
            "principal": principal,
            "route": route,
            "key": key,
            "body_hash": body_hash,
            "http_status": _NOT_ANSWERED,
            "body": b"",
        }
        this = {"who": principal, "where": route, "which": key}

        def unit(transaction: Transaction) -> KeptAnswer | None:
            if transaction.execute(_BIND, {**row, "created_at": transaction.now.utc_us}):
                return None
            known = transaction.one(_FIND_ANSWER, this)
            assert known is not None
            if known.body_hash != body_hash:
                raise KeyReusedError("This Idempotency-Key was used for another request.")
            if known.http_status == _NOT_ANSWERED:
                return None
            return KeptAnswer(known.http_status, known.body)

        return await self._database.writer.run(unit)

    async def keep_answer(
        self, principal: str, route: str, key: str, http_status: int, body: bytes
    ) -> None:
        """Keep the answer for 30 days."""
        parameters = {
            "who": principal,
            "where": route,
            "which": key,
            "status": http_status,
            "answer": body,
        }
        await self._database.writer.run(
            lambda transaction: transaction.execute(_KEEP_ANSWER, parameters)
        )

    async def purge(self) -> None:
        """Drop the keys whose time is over, and answers and counts after 30 days."""

        def unit(transaction: Transaction) -> None:
            now_us = transaction.now.utc_us
            transaction.execute(_EMPTY_KEYS, {"now": now_us, "nothing": b""})
            transaction.execute(_DROP_KEYS, {"long_ago": now_us - _ANSWER_US})
            transaction.execute(_DROP_ANSWERS, {"long_ago": now_us - _ANSWER_US})

        await self._database.writer.run(unit)

    def _wrapped(self, row_name: str, kept: KeptKey) -> bytes:
        content = cbor.encode({"key": kept.private_key, "answer": kept.answer})
        return self._keyring.wrap(content, _TABLE, row_name, kept.generation)

    def _unwrapped(self, row_name: str, generation: int, envelope: bytes) -> KeptKey:
        content = self._keyring.unwrap(envelope, _TABLE, row_name, generation)
        secret = cbor.decode(content, limit=_SECRET_BYTES_MAX)
        return KeptKey(secret["key"], generation, secret["answer"])


def _row_name(name: str) -> str:
    """Keep apart from the secrets that the vault names."""
    return f"retry/{name}"
