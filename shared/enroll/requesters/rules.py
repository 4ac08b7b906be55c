"""The aliases that are on at one box: those that central named, and one for each profile."""

from collections.abc import Callable, Collection, Sequence

from shared.kernel.errors import NotFoundError
from shared.policy.access import Access, Alias
from shared.policy.profile import Profile


class AliasRules:
    """Implements the port ``Rules``; ``access`` is replaced when central orders another one.

    A profile ``x`` is reachable as the alias ``x`` for stations, as REST's ``cert_x`` is, unless an
    alias of that name is defined. ``off`` and ``on`` are this box's own switches.
    """

    def __init__(
        self,
        profiles: Callable[[], Sequence[Profile]],
        *,
        off: Collection[str] = (),
        on: Collection[str] = (),
    ) -> None:
        """Take the profiles in force and the local switches."""
        self._profiles = profiles
        self._off = frozenset(off)
        self._on = frozenset(on)
        self.access = Access()

    def alias(self, name: str) -> Alias:
        """Find an alias that is on; raises NotFoundError naming those that are."""
        found = self.access.by_alias.get(name) or self._implied(name)
        if found is None or not self._is_on(found):
            known = ", ".join(sorted(one.name for one in self.all())) or "none"
            raise NotFoundError(f"There is no alias “{name}” here; there are: {known}.")
        return found

    def all(self) -> Sequence[Alias]:
        """Give every alias that is on."""
        implied = (Alias.of_profile(profile) for profile in self._profiles())
        known = {one.name: one for one in (*implied, *self.access.aliases)}
        return [one for one in known.values() if self._is_on(one)]

    def _implied(self, name: str) -> Alias | None:
        found = (profile for profile in self._profiles() if profile.name == name)
        profile = next(found, None)
        return None if profile is None else Alias.of_profile(profile)

    def _is_on(self, alias: Alias) -> bool:
        return alias.name not in self._off and (alias.enabled or alias.name in self._on)
