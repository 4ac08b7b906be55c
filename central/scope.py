"""Of which lines one may see and change something; what is of no line is for who may everywhere."""

from collections.abc import Callable

from shared.kernel.errors import NotFoundError
from shared.policy.rights import Permission, Place
from shared.sync.join import CENTRAL_NAME
from shared.web.auth import Principal

#: Tells of a line ("": of no line) whether something is allowed there.
Of = Callable[[str], bool]


def anywhere(_line: str) -> bool:
    """Say yes: for who may do it everywhere."""
    return True


def lines_of(who: Principal, permission: Permission) -> frozenset[str] | None:
    """Give the lines where this is allowed; None: everywhere."""
    scopes = who.scopes(permission)
    if any(not scope.named() for scope in scopes):
        return None
    return frozenset(
        scope.line for scope in scopes if scope.line and scope.named().keys() == {"line"}
    )


def may_of(who: Principal, permission: Permission) -> Of:
    """Tell of a line ("": no line) whether this is allowed there."""
    return lambda line: who.may(permission, Place(line=line or None))


def here(gateway: str) -> Place:
    """Give the place of a box; central is no line."""
    return Place(line=None if gateway == CENTRAL_NAME else gateway)


def visible(gateway: str, who: Principal) -> str:
    """Give the name of a gateway. Raises NotFoundError for one that somebody may not even see."""
    if not who.may(Permission.GATEWAY_READ, here(gateway)):
        raise NotFoundError(f"There is no gateway {gateway}.")
    return gateway
