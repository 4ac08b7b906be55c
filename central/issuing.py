"""What central plugs into the issuance core: its profiles, and the keys of its own CAs."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from shared.kernel.errors import NotFoundError
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.store.database import Database
from shared.store.schema import profile

_ACTIVE = select(profile.c.document).where(profile.c.state == "active").order_by(profile.c.version)


class CentralProfiles:
    """The profiles in force; implements ``shared.issuance.ports.Profiles``. No grant is needed."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        """Take the newest version of each by name; use ``load``."""
        self._profiles = profiles

    @classmethod
    async def load(cls, database: Database) -> "CentralProfiles":
        """Read them; of several active versions the highest is in force."""
        rows = await database.read(_ACTIVE)
        loaded = (Profile.from_document(row.document) for row in rows)
        return cls({found.name: found for found in loaded})

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

    def last_contact_us(self) -> int | None:
        """Central asks nobody."""
        return None
