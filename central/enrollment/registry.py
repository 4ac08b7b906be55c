"""Aliases, requesters and manufacturers: kept as documents, each change is audited and sent."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from central.inventory import audit
from shared.enroll.requesters.rules import AliasRules
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.pki import keys, sealing
from shared.policy.access import ALL, Access, Alias, Manufacturer, Requester
from shared.policy.profile import Profile
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import access_rule
from shared.store.transaction import Transaction
from shared.sync.join import CENTRAL_NAME

#: Fact: counts the changes of who may enroll.
VERSION = "access_version"
#: The document must fit into one event, with room for what the event says beside it.
_DOCUMENT_BYTES_MAX = 100 * 1024
KINDS: dict[str, type[Alias] | type[Requester] | type[Manufacturer]] = {
    "alias": Alias,
    "requester": Requester,
    "manufacturer": Manufacturer,
}

_ALL = select(access_rule.c.kind, access_rule.c.document).order_by(access_rule.c.name)
_put = insert(access_rule)
_PUT = _put.on_conflict_do_update(
    index_elements=[access_rule.c.kind, access_rule.c.name],
    set_={name: getattr(_put.excluded, name) for name in ("document", "updated_at")},
)
_DELETE = delete(access_rule).where(
    access_rule.c.kind == bindparam("which"), access_rule.c.name == bindparam("about")
)


class Registry:
    """What administrators order about who may enroll; ``rules`` is what central itself follows."""

    def __init__(
        self,
        database: Database,
        profiles: Callable[[], Sequence[Profile]],
        exchange_key: ec.EllipticCurvePrivateKey,
    ) -> None:
        """Take the database and the key to which secrets of webhooks are sealed here."""
        self._database = database
        self._profiles = profiles
        self._exchange_key = exchange_key
        self._spki = keys.spki(exchange_key.public_key())
        self.rules = AliasRules(profiles)
        self.everything = Access()
        self.changed: Callable[[], None] = lambda: None

    async def load(self) -> None:
        """Read everything; call again after another process changed it."""
        rows = await self._database.read(_ALL)
        self.everything = _assembled(rows)
        self.rules.access = _for(self.everything, CENTRAL_NAME)

    async def put(self, kind: str, document: Alias | Requester | Manufacturer, actor: str) -> None:
        """Add or replace one; raises BadRequestError when it names what is not there."""
        if isinstance(document, Alias):
            self._require_known(document)
        row = {
            "kind": kind,
            "name": document.name,
            "document": json.dumps(document.to_document(), sort_keys=True),
        }

        def unit(transaction: Transaction) -> None:
            transaction.execute(_PUT, {**row, "updated_at": transaction.now.utc_us})
            self._count_change(transaction)
            audit.add(transaction, actor, f"{kind}.put", document.name, self.shown(document))

        await self._database.writer.run(unit)
        await self._follow()

    async def remove(self, kind: str, name: str, actor: str) -> None:
        """Remove one; whoever it admitted is admitted no more.

        Raises NotFoundError, ConflictError for a manufacturer that an alias names.
        """
        users = [one.name for one in self.everything.aliases if name in one.manufacturers]
        if kind == "manufacturer" and users:
            raise ConflictError(
                f"The manufacturer {name} is used by: {', '.join(users)}.",
                remedy="Change or remove these aliases first.",
            )

        def unit(transaction: Transaction) -> None:
            if not transaction.execute(_DELETE, {"which": kind, "about": name}):
                raise NotFoundError(f"There is no {kind} {name}.")
            self._count_change(transaction)
            audit.add(transaction, actor, f"{kind}.removed", name, {})

        await self._database.writer.run(unit)
        await self._follow()

    def seal(self, secret: bytes) -> bytes:
        """Seal a webhook's secret to central."""
        return sealing.seal(secret, self._spki, sealing.WEBHOOK)

    def unseal(self, sealed: bytes) -> bytes:
        """Open what ``seal`` sealed; raises UntrustedError."""
        return sealing.unseal(sealed, self._exchange_key, sealing.WEBHOOK)

    def for_gateway(self, transaction: Transaction, gateway: str, exchange_spki: bytes) -> Access:
        """Give what holds at a gateway: its requesters only, secrets sealed to it alone."""
        access = _for(_assembled(transaction.all(_ALL)), gateway)
        requesters = tuple(
            one.model_copy(
                update={"secret": sealing.seal(self.unseal(one.secret), exchange_spki, "webhook")}
            )
            if one.secret is not None
            else one
            for one in access.requesters
        )
        version = int(facts.get(transaction, VERSION) or 0)
        return access.model_copy(update={"requesters": requesters, "version": version})

    def known_alias(self, name: str) -> Alias:
        """Find an alias that a device may use; raises NotFoundError."""
        known = self.everything.by_alias.get(name)
        if known is None:
            raise NotFoundError(f"There is no alias {name}.")
        return known

    @staticmethod
    def shown(document: Alias | Requester | Manufacturer) -> dict[str, Any]:
        """Show one without what is secret; of certificates and CRLs the number says enough."""
        shown = document.model_dump(mode="json", exclude={"password_hash", "secret"})
        return {
            name: len(value) if name in {"certificates", "crls"} else value
            for name, value in shown.items()
        }

    def _require_known(self, alias: Alias) -> None:
        known = {profile.name for profile in self._profiles()}
        if alias.profile not in known:
            raise BadRequestError(
                f"There is no profile {alias.profile}.",
                remedy=f"There are: {', '.join(sorted(known))}.",
                pointer="/profile",
            )
        unknown = set(alias.manufacturers) - set(self.everything.by_manufacturer)
        if unknown:
            raise BadRequestError(
                f"There is no manufacturer {', '.join(sorted(unknown))}.",
                remedy="Add it with its CA certificates first.",
                pointer="/manufacturers",
            )

    def _count_change(self, transaction: Transaction) -> None:
        size = len(json.dumps(_assembled(transaction.all(_ALL)).to_document()))
        if size > _DOCUMENT_BYTES_MAX:
            raise BadRequestError(
                f"Aliases, requesters and manufacturers take {size} bytes together; "
                f"at most {_DOCUMENT_BYTES_MAX} reach a gateway.",
                remedy="Remove what is no longer used, for instance long CRLs.",
            )
        facts.put(transaction, VERSION, str(int(facts.get(transaction, VERSION) or 0) + 1))

    async def _follow(self) -> None:
        await self.load()
        self.changed()


def _assembled(rows: Sequence[Any]) -> Access:
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for row in rows:
        found[row.kind].append(KINDS[row.kind].from_document(row.document))
    return Access(
        aliases=tuple(found["alias"]),
        requesters=tuple(found["requester"]),
        manufacturers=tuple(found["manufacturer"]),
    )


def _for(access: Access, box: str) -> Access:
    mine = tuple(one for one in access.requesters if {box, ALL} & set(one.gateways))
    return access.model_copy(update={"requesters": mine})
