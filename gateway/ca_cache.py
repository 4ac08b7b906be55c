"""What central ordered and this gateway holds: profiles, grant, parents' certificates and CRLs.

It is read from the database at the start and after each directive; issuing asks memory only.
"""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, select

from shared.kernel.clock import Clock
from shared.kernel.errors import NotFoundError, UnavailableError
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.rules import RuleSet
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import fact, grant_use, profile

#: Fact: when central last answered, UTC µs in decimal; the join writes the first one.
LAST_CONTACT: Final = "last_contact"
_CONTACT_S = 60

_PROFILES = select(profile.c.document).where(profile.c.state == "active")
_GRANT = select(grant_use.c.document).where(grant_use.c.state == "active")
_FACT = select(fact.c.value).where(fact.c.name == bindparam("name"))


class Rules:
    """Implements ``shared.issuance.ports.Profiles`` by what the last directives said."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take where the rules lie; ``load`` reads them."""
        self._database = database
        self._clock = clock
        self._profiles: dict[str, Profile] = {}
        self._rules = RuleSet()
        self._grant: Grant | None = None
        self._last_contact_us: int | None = None
        self._kept_contact_us: int | None = None

    async def load(self) -> None:
        """Take over what the database says; call again after a directive changed it."""
        documents = [row.document for row in await self._database.read(_PROFILES)]
        self._profiles = {found.name: found for found in map(Profile.from_document, documents)}
        rules = await self._database.read(_FACT, {"name": facts.RULES})
        self._rules = RuleSet.from_document(rules[0].value) if rules else RuleSet()
        grants = await self._database.read(_GRANT)
        self._grant = Grant.from_document(json.loads(grants[0].document)) if grants else None
        if self._last_contact_us is None:
            contacts = await self._database.read(_FACT, {"name": LAST_CONTACT})
            self._last_contact_us = int(contacts[0].value) if contacts else None
            self._kept_contact_us = self._last_contact_us

    @property
    def profiles(self) -> Sequence[Profile]:
        """The profiles in force."""
        return list(self._profiles.values())

    async def all_profiles(self) -> Sequence[Profile]:
        """Give the profiles in force, as REST asks for them."""
        return self.profiles

    def profile(self, name: str) -> Profile:
        """Find the version in force; raises NotFoundError naming the known ones."""
        found = self._profiles.get(name)
        if found is None:
            known = ", ".join(sorted(self._profiles)) or "none yet"
            raise NotFoundError(f"There is no profile “{name}” here; known: {known}.")
        return found

    def grant(self) -> Grant:
        """Give the grant in force; raises UnavailableError where there is none."""
        if self._grant is None:
            raise UnavailableError(
                "This gateway has no grant to issue.",
                remedy="Connect it to central, or ask the administrator of central for a grant.",
            )
        return self._grant

    @property
    def known_grant(self) -> Grant | None:
        """The grant, or None: for showing it."""
        return self._grant

    def rules(self) -> RuleSet:
        """Give the rules that are judged after the profile."""
        return self._rules

    def last_contact_us(self) -> int | None:
        """When central last proved that it knows this gateway, UTC µs of our clock."""
        return self._last_contact_us

    def note_contact(self) -> None:
        """Note that central answered just now; ``step`` makes it durable."""
        self._last_contact_us = self._clock.now().utc_us

    async def step(self) -> float:
        """Keep the last contact once a minute: a grant's limit counts in days; gives the pause."""
        contact_us = self._last_contact_us
        if contact_us != self._kept_contact_us:
            text = None if contact_us is None else str(contact_us)
            await self._database.writer.run(lambda tx: facts.put(tx, LAST_CONTACT, text))
            self._kept_contact_us = contact_us
        return _CONTACT_S
