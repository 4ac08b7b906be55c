"""Security presets: what a plant's profiles are to demand, as pure functions on profiles.

Applying one makes new versions; ``difference`` shows beforehand what would change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from shared.kernel.errors import NotFoundError
from shared.pki.keys import KeyType
from shared.policy.profile import ClockInDoubt, Profile, TooLong


@dataclass(frozen=True, slots=True)
class Preset:
    """One level of security; a profile keeps what is stricter already.

    ``days_max`` bounds certificates that expire (None: as they are); ``key_types`` are those that
    stay allowed (empty: all); a profile that has none of them is left out, and said to be.
    """

    name: str
    title: str
    key_types: frozenset[KeyType] = frozenset()
    days_max: int | None = None
    clock_in_doubt: ClockInDoubt = ClockInDoubt.ISSUE
    too_long: TooLong = TooLong.CLIP
    known_devices_only: bool = False


_STRONG = frozenset(
    kind
    for kind in KeyType
    if kind not in {KeyType.RSA_2048, KeyType.EC_SECP256K1} and not kind.value.startswith("ml-")
)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("lab", "Everything that works, for benches and trials"),
        Preset(
            "brownfield",
            "Plants with old devices: long lives, weak clocks are forgiven",
            days_max=3_650,
            clock_in_doubt=ClockInDoubt.BACK_DATE,
        ),
        Preset(
            "industrial",
            "New plants: 112 bits of security and more, two years",
            days_max=825,
            too_long=TooLong.REFUSE,
        ),
        Preset(
            "hardened",
            "Critical plants: 128 bits and more, a year, known devices, a clock that is known",
            key_types=_STRONG,
            days_max=398,
            clock_in_doubt=ClockInDoubt.HOLD,
            too_long=TooLong.REFUSE,
            known_devices_only=True,
        ),
    )
}
_CLOCK_ORDER = (ClockInDoubt.ISSUE, ClockInDoubt.BACK_DATE, ClockInDoubt.HOLD)


def preset(name: str) -> Preset:
    """Find a preset; raises NotFoundError naming the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise NotFoundError(f"There is no preset {name}; there are: {known}.") from None


def applied(to: Preset, profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """Give a new version of each profile that the preset changes, and of no other.

    The lives of IDevIDs and CAs are no matter of a preset: they have no expiry, or a planned one.
    """
    return tuple(new for old in profiles if (new := _applied(to, old)) is not old)


def _applied(to: Preset, profile: Profile) -> Profile:
    rules = profile.validity
    changes: dict[str, Any] = {}
    if rules.days_max is not None and profile.ca_path_length is None:
        days_max = min(rules.days_max, to.days_max or rules.days_max)
        default = min(rules.days_default or days_max, days_max)
        least = min(rules.days_min or default, default) if rules.days_min else None
        changes |= {"days_max": days_max, "days_default": default, "days_min": least}
    if to.too_long is TooLong.REFUSE:
        changes["too_long"] = TooLong.REFUSE
    changes["clock_in_doubt"] = max(rules.clock_in_doubt, to.clock_in_doubt, key=_CLOCK_ORDER.index)
    allowed = tuple(kind for kind in profile.key_types if kind in to.key_types)
    known = to.known_devices_only and profile.device_id_required
    new = profile.model_copy(
        update={
            "validity": rules.model_copy(update=changes),
            "key_types": allowed or profile.key_types,
            "known_devices_only": profile.known_devices_only or known,
        }
    )
    # A copy shares what was computed of the original: read it anew from its document.
    new = Profile.from_document(new.to_document())
    if new.sha256 == profile.sha256:
        return profile
    return Profile.from_document(new.to_document() | {"version": profile.version + 1})


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a document that differs; None: not said there."""

    field: str
    before: Any
    after: Any


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Change]:
    """List the fields that differ between two documents, by path, in alphabetical order."""
    old, new = (dict(_leaves(document or {})) for document in (before, after))
    return [
        Change(field, old.get(field), new.get(field))
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give the leaves of a document; members of lists are named by what names them, or a number."""
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inner = [(str(key), one) for key, one in cast("dict[str, Any]", value).items()]
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        if any(isinstance(item, dict) for item in items):
            inner = [(_name(item, number), item) for number, item in enumerate(items)]
    for name, one in inner:
        yield from _leaves(one, f"{path}.{name}" if path else name)
    if not inner:
        yield path, value


def _name(item: Any, number: int) -> str:
    names = ("attribute", "kind", "name", "key")
    return next((str(item[name]) for name in names if name in item), str(number))
