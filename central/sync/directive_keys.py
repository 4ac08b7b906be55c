"""The keys that sign what central says to its gateways, and how one succeeds another.

A gateway pins the key of its join. A successor is ordered under its predecessor's signature
(``directive.keys``); from then on the gateway trusts both, names them in each hello, and central
signs with the newest that it names: so a gateway that was away for months still hears of it. The
predecessor is retired by a person, when every gateway trusts the successor and a backup holds it.
Its public half is kept for ever, for what it has signed here (audit log, exports).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, select, update

from central.inventory import audit
from central.policy.books import applied_fact
from central.sync import directives
from shared.kernel.errors import ConflictError, UntrustedError
from shared.pki import keys
from shared.store import facts
from shared.store.backups import Backups
from shared.store.database import Database
from shared.store.schema import directive, fact, gateway
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.sync.envelope import Signer
from shared.sync.join import spki_hash

FIRST: Final = "directive"
_FACT: Final = "directive_keys"
_JOINED = select(gateway.c.name).where(gateway.c.event_key.is_not(None)).order_by(gateway.c.name)
_ORDERED = select(directive.c.peer, directive.c.number).where(directive.c.kind == directives.KEYS)
_VOID = (
    update(gateway)
    .where(gateway.c.join_secret_hash.is_not(None), gateway.c.join_request_hash.is_(None))
    .values(join_secret_hash=None, join_expires_at=bindparam("now"))
)


@dataclass(frozen=True, slots=True)
class DirectiveKey:
    """One of them: its name in the vault, public key (hex SPKI), state, and since when (UTC µs)."""

    name: str
    spki: str
    state: Literal["current", "former", "retired"]
    since_us: int

    @property
    def kid(self) -> bytes:
        """What signatures name it by."""
        return spki_hash(bytes.fromhex(self.spki))


class DirectiveKeys:
    """The keys, the newest first."""

    def __init__(self, database: Database, vault: Vault) -> None:
        """Take where they are kept; ``load`` reads them."""
        self._database = database
        self._vault = vault
        self._known: list[DirectiveKey] = []
        #: What can sign, the newest first. Whoever holds this list sees a succession.
        self.signers: list[Signer] = []

    @classmethod
    async def load(cls, database: Database, vault: Vault) -> Self:
        """Read them; a central that never had a second one knows its first by its name."""
        self = cls(database, vault)
        if await _read(database, _FACT) is not None:
            await self._refresh()
            return self
        first = await vault.key_or_new(FIRST)
        self._known = [DirectiveKey(FIRST, keys.spki(first.public_key()).hex(), "current", 0)]
        self.signers[:] = [_signer(first)]
        return self

    @property
    def current(self) -> Signer:
        """What signs now."""
        return self.signers[0]

    def find(self, kid: bytes) -> ec.EllipticCurvePublicKey:
        """Give a public key of this central, present or past; raises UntrustedError."""
        for known in self._known:
            if known.kid == kid:
                return keys.load_p256(bytes.fromhex(known.spki))
        raise UntrustedError("It was not signed by this central.")

    async def listed(self) -> list[dict[str, Any]]:
        """Tell of each key, and which gateways have not confirmed yet what they are to trust."""
        waiting = await self._waiting()
        return [
            {"id": one.name, "kid": one.kid.hex(), "state": one.state, "since_us": one.since_us}
            | ({"not_confirmed_by": waiting} if one.state == "current" else {})
            for one in self._known
        ]

    async def rotate(self, actor: str) -> list[dict[str, Any]]:
        """Make a successor and order it to all gateways; invitations that nobody used are void.

        Raises ConflictError: the last succession has not ended.
        """
        made = keys.generate()

        def unit(transaction: Transaction) -> None:
            former = _parsed(facts.get(transaction, _FACT)) or self._known
            if any(one.state == "former" for one in former):
                raise ConflictError(
                    "The last succession has not ended: the former directive key is still trusted.",
                    remedy="Retire the former key first.",
                )
            new = DirectiveKey(
                f"{FIRST}-{len(former) + 1}",
                keys.spki(made.public_key()).hex(),
                "current",
                transaction.now.utc_us,
            )
            self._vault.keep_key(transaction, new.name, made)
            kept = [_as(one, "former") if one.state == "current" else one for one in former]
            _put(transaction, [new, *kept])
            _order(transaction, actor)
            transaction.execute(_VOID, {"now": transaction.now.utc_us})
            audit.add(transaction, actor, "directive-key.made", new.name, {"kid": new.kid.hex()})

        await self._database.writer.run(unit)
        await self._refresh()
        return await self.listed()

    async def retire(
        self, actor: str, backups: Backups, *, force: bool = False
    ) -> list[dict[str, Any]]:
        """Delete the former key, and order all gateways to trust it no more.

        ``force``: although a gateway has not confirmed (it must join again), or no backup of ours
        holds the present key (a central put back could not speak to any). Raises ConflictError.
        """
        if all(one.state != "former" for one in self._known):
            raise ConflictError("There is no former directive key.")
        if not force:
            await self._require_safe(backups)
        known = self._known

        def unit(transaction: Transaction) -> None:
            for one in known:
                if one.state == "former":
                    self._vault.drop(transaction, one.name)
                    audit.add(transaction, actor, "directive-key.retired", one.name, {})
            _put(transaction, [_as(k, "retired") if k.state == "former" else k for k in known])
            _order(transaction, actor)

        await self._database.writer.run(unit)
        await self._refresh()
        return await self.listed()

    async def _require_safe(self, backups: Backups) -> None:
        if waiting := await self._waiting():
            raise ConflictError(
                f"Not every gateway trusts the present key yet: {', '.join(waiting[:10])}.",
                remedy="Connect them; or end them, or force it: then they must join again.",
            )
        newest = (await backups.standing()).newest()
        if newest is None or newest.created_at_us <= self._known[0].since_us:
            raise ConflictError(
                "No backup that counts holds the present directive key: put back from an older "
                "one, central could not speak to any gateway.",
                remedy="Back up first; force it if another backup, as of pg_dump, holds it.",
            )

    async def _waiting(self) -> list[str]:
        """Name the gateways that have not confirmed the newest order."""
        rows = await self._database.read(_ORDERED)
        told = {row.peer: row.number for row in rows}
        waiting: list[str] = []
        for row in await self._database.read(_JOINED):
            if row.name not in told:
                continue  # it joined later, and pinned the present key
            heard = await _read(self._database, applied_fact(directives.KEYS, row.name, ""))
            if heard is None or json.loads(heard)["number"] != told[row.name]:
                waiting.append(row.name)
        return waiting

    async def _refresh(self) -> None:
        self._known = _parsed(await _read(self._database, _FACT))
        held = [one.name for one in self._known if one.state != "retired"]
        self.signers[:] = [_signer(await self._vault.key(name)) for name in held]


def trusted(transaction: Transaction) -> list[bytes]:
    """Give what gateways are to trust (SPKIs), the newest first; none before a succession."""
    known = _parsed(facts.get(transaction, _FACT))
    return [bytes.fromhex(one.spki) for one in known if one.state != "retired"]


def _order(transaction: Transaction, actor: str) -> None:
    for row in transaction.all(_JOINED):
        directives.order_keys(transaction, row.name, trusted(transaction), actor)


def _put(transaction: Transaction, known: Sequence[DirectiveKey]) -> None:
    facts.put(transaction, _FACT, json.dumps([asdict(one) for one in known]))


async def _read(database: Database, name: str) -> str | None:
    rows = await database.read(select(fact.c.value).where(fact.c.name == name))
    return rows[0].value if rows else None


def _parsed(text: str | None) -> list[DirectiveKey]:
    return [DirectiveKey(**one) for one in json.loads(text or "[]")]


def _as(one: DirectiveKey, state: Literal["former", "retired"]) -> DirectiveKey:
    return DirectiveKey(one.name, one.spki, state, one.since_us)


def _signer(key: ec.EllipticCurvePrivateKey) -> Signer:
    return Signer(spki_hash(keys.spki(key.public_key())), key)
