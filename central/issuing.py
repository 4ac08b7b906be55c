"""What central plugs into the issuance core: its profiles, and the keys of its own CAs."""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import select

from central.authority.hierarchy import Hierarchy
from shared.issuance.ports import IssuingKey
from shared.kernel.errors import NotFoundError, RefusedError
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.rules import RuleSet
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import directive, fact, grant_use, profile

_ACTIVE = select(profile.c.document).where(profile.c.state == "active").order_by(profile.c.version)

_GRANTS = (
    select(directive.c.peer, grant_use.c.document)
    .join(directive, directive.c.subject == grant_use.c.grant_id)
    .where(directive.c.kind == "grant", grant_use.c.state == "active")
    .order_by(directive.c.number)
)
_RULES = select(fact.c.value).where(fact.c.name == facts.RULES)


class CentralProfiles:
    """The profiles in force; implements ``shared.issuance.ports.Profiles``. No grant is needed."""

    def __init__(self, database: Database) -> None:
        """Take where the rules lie; use ``load``."""
        self._database = database
        self._profiles: Mapping[str, Profile] = {}
        self._rules = RuleSet()
        self._grants: Mapping[str, Grant] = {}

    @classmethod
    async def load(cls, database: Database) -> "CentralProfiles":
        """Read them."""
        loaded = cls(database)
        await loaded.refresh()
        return loaded

    async def refresh(self) -> None:
        """Read them again; of several active versions of a profile the highest is in force."""
        rows = await self._database.read(_ACTIVE)
        loaded = (Profile.from_document(row.document) for row in rows)
        self._profiles = {found.name: found for found in loaded}
        rules = await self._database.read(_RULES)
        self._rules = RuleSet.from_document(rules[0].value) if rules else RuleSet()
        self._grants = {
            row.peer: Grant.from_document(json.loads(row.document))
            for row in await self._database.read(_GRANTS)
        }

    @property
    def all(self) -> tuple[Profile, ...]:
        """Every profile in force."""
        return tuple(self._profiles.values())

    async def listed(self) -> Sequence[Profile]:
        """Give every profile in force, as REST asks for them."""
        return self.all

    def profile(self, name: str) -> Profile:
        """Find the version in force; raises NotFoundError naming the known ones."""
        try:
            return self._profiles[name]
        except KeyError:
            known = ", ".join(sorted(self._profiles))
            raise NotFoundError(f"There is no profile {name}; there are: {known}.") from None

    def grant(self) -> Grant | None:
        """Central needs none."""
        return None

    def grant_of(self, gateway: str) -> Grant:
        """Give what a gateway may do, for what it forwards; raises RefusedError if it has none.

        How long it may be out of reach does not matter: its request has arrived.
        """
        grant = self._grants.get(gateway)
        if grant is None:
            raise RefusedError(
                "grant.ended",
                gateway,
                "The gateway's grant is not in force any more.",
                "Ask central for a new grant.",
            )
        return grant.model_copy(update={"last_contact_max_s": None})

    def rules(self) -> RuleSet:
        """Give the rules that are judged after the profile."""
        return self._rules

    def last_contact_us(self) -> int | None:
        """Central asks nobody."""
        return None


class CentralKeys:
    """Which CA signs what; implements ``shared.issuance.ports.IssuingKeys``."""

    def __init__(self, hierarchy: Hierarchy, profiles: CentralProfiles) -> None:
        """Take the CAs, and the profiles that may name one of them."""
        self._hierarchy = hierarchy
        self._profiles = profiles

    def active(self, profile: str) -> IssuingKey:
        """Give the CA that the profile names, else the one for everything.

        Raises NotFoundError (no such profile), UnavailableError (no such CA issues now).
        """
        wanted = self._profiles.profile(profile).issuing_ca
        return self._hierarchy.issuing if wanted is None else self._hierarchy.named(wanted)

    def of(self, ca_id: str) -> IssuingKey:
        """Give the key of one CA, also a retired one; raises NotFoundError."""
        return self._hierarchy.of(ca_id)
