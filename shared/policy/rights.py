"""Who may do what, where: permissions, roles and scopes. Pure; deny by default.

A *permission* is one thing that can be done. A *role* is a named set of them. A *right* gives a
subject the permissions of a role within a *scope*; what is asked about is a *place*. A scope
covers a place only if the place has every property that the scope names, so what belongs to no
line is not covered by a right for a line.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from shared.kernel.errors import BadRequestError


class Permission(StrEnum):
    """One thing that can be done. What is not listed here cannot be allowed."""

    CERTIFICATE_READ = "certificate.read"
    CERTIFICATE_ENROLL = "certificate.enroll"
    CERTIFICATE_RENEW = "certificate.renew"
    CERTIFICATE_REVOKE = "certificate.revoke"
    CERTIFICATE_HOLD = "certificate.hold"
    AUTHORITY_READ = "authority.read"
    AUTHORITY_WRITE = "authority.write"
    PROFILE_READ = "profile.read"
    PROFILE_WRITE = "profile.write"
    PROFILE_PUBLISH = "profile.publish"
    DEVICE_READ = "device.read"
    DEVICE_WRITE = "device.write"
    GRANT_WRITE = "grant.write"
    STATION_READ = "station.read"
    STATION_WRITE = "station.write"
    GATEWAY_READ = "gateway.read"
    GATEWAY_INVITE = "gateway.invite"
    GATEWAY_COMMAND = "gateway.command"
    GATEWAY_END = "gateway.end"
    LINE_WRITE = "line.write"
    CONFLICT_SETTLE = "conflict.settle"
    USER_READ = "user.read"
    USER_WRITE = "user.write"
    AUDIT_READ = "audit.read"
    BACKUP_RUN = "backup.run"
    STATUS_READ = "status.read"


_READING = frozenset(one for one in Permission if one.endswith(".read"))
_CERTIFICATES = frozenset(one for one in Permission if one.startswith("certificate."))
_P = Permission

#: The roles that every installation has. Their permissions follow the version; names never change.
ROLES: Mapping[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "operator": frozenset(
        {
            *(_READING - {_P.USER_READ, _P.AUDIT_READ}),
            _P.CERTIFICATE_REVOKE,
            _P.CERTIFICATE_HOLD,
            _P.GATEWAY_INVITE,
            _P.GATEWAY_COMMAND,
            _P.LINE_WRITE,
            _P.CONFLICT_SETTLE,
            _P.BACKUP_RUN,
        }
    ),
    "ra-officer": frozenset(
        {
            *_CERTIFICATES,
            _P.DEVICE_READ,
            _P.DEVICE_WRITE,
            _P.PROFILE_READ,
            _P.AUTHORITY_READ,
            _P.GATEWAY_READ,
            _P.STATUS_READ,
        }
    ),
    "auditor": _READING,
    "station": frozenset({*_CERTIFICATES, _P.PROFILE_READ, _P.AUTHORITY_READ, _P.STATUS_READ}),
    "device": frozenset({*(_CERTIFICATES - {_P.CERTIFICATE_ENROLL}), _P.AUTHORITY_READ}),
}
_ROLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VALUE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_EVERYWHERE_TEXT = "*"


@dataclass(frozen=True, slots=True)
class Place:
    """What is asked about: the properties it has. A user account or the audit log has none.

    ``line`` is the gateway's name, ``serial`` a certificate of ``ca``.
    """

    tenant: str | None = None
    ca: str | None = None
    profile: str | None = None
    line: str | None = None
    serial: str | None = None


#: What belongs to the whole installation: only an unlimited right reaches it.
WHOLE = Place()


@dataclass(frozen=True, slots=True)
class Scope(Place):
    """Where a right holds: everywhere that has all the properties that are named."""

    def covers(self, place: Place) -> bool:
        """Tell whether the place has every property that this scope names."""
        return all(getattr(place, name) == value for name, value in self.named().items())

    def within(self, other: "Scope") -> "Scope | None":
        """Give the scope of what both cover; None if they exclude each other."""
        mine, its = self.named(), other.named()
        if any(its.get(name, value) != value for name, value in mine.items()):
            return None
        return Scope(**(mine | its))

    def named(self) -> dict[str, str]:
        """Give the properties that limit it; none means everywhere."""
        return {
            name: value for name in _PROPERTIES if (value := getattr(self, name, None)) is not None
        }

    @property
    def text(self) -> str:
        """Write it: ``*``, or ``line=press-1,profile=tls-server``."""
        named = self.named()
        return ",".join(f"{name}={value}" for name, value in named.items()) or _EVERYWHERE_TEXT

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Read what ``text`` writes; raises BadRequestError."""
        if text.strip() == _EVERYWHERE_TEXT:
            return EVERYWHERE
        named: dict[str, str] = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if name not in _PROPERTIES or name in named or not _VALUE.fullmatch(value):
                raise BadRequestError(
                    f"{text[:80]!r} is no scope.",
                    remedy=f"Write * for everywhere, or name=value pairs with commas between; "
                    f"the names are {', '.join(_PROPERTIES)}.",
                )
            named[name] = value
        return cls(**named)


_PROPERTIES = tuple(field.name for field in fields(Place))
EVERYWHERE = Scope()


@dataclass(frozen=True, slots=True)
class Right:
    """The permissions of a role within a scope; ``role`` is its name, for people."""

    role: str
    permissions: frozenset[Permission]
    scope: Scope = EVERYWHERE

    @classmethod
    def of(cls, role: str, scope: Scope = EVERYWHERE) -> "Right":
        """Give the right of a role that every installation has."""
        return cls(role, ROLES[role], scope)

    def narrowed(
        self, permissions: frozenset[Permission] | None, scope: Scope = EVERYWHERE
    ) -> "Right | None":
        """Give what is left within both limits (None: any permission); None if nothing is."""
        left = self.permissions if permissions is None else self.permissions & permissions
        within = self.scope.within(scope)
        return Right(self.role, left, within) if left and within is not None else None


def allowed(rights: Iterable[Right], permission: Permission, place: Place) -> bool:
    """Tell whether one of the rights allows it at that place."""
    return any(permission in one.permissions and one.scope.covers(place) for one in rights)


def scopes(rights: Iterable[Right], permission: Permission) -> tuple[Scope, ...]:
    """Give where it is allowed, for lists that show only that; (EVERYWHERE,) if everywhere."""
    found = tuple(dict.fromkeys(one.scope for one in rights if permission in one.permissions))
    return (EVERYWHERE,) if EVERYWHERE in found else found


def permissions_of(names: Iterable[str]) -> frozenset[Permission]:
    """Read permissions; raises BadRequestError naming the unknown ones."""
    wanted = set(names)
    if unknown := wanted - set(Permission):
        raise BadRequestError(
            f"There is no permission {', '.join(sorted(unknown))}.",
            remedy=f"There are: {', '.join(Permission)}.",
        )
    return frozenset(Permission(name) for name in wanted)


def require_role_name(name: str) -> None:
    """Raise BadRequestError for a name that a custom role cannot have."""
    if not _ROLE_NAME.fullmatch(name) or name in ROLES:
        raise BadRequestError(
            f"{name[:64]!r} cannot be the name of a new role.",
            remedy="Use a-z, 0-9 and dash, beginning with a letter, and none of: "
            + ", ".join(ROLES),
        )
