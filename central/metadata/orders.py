"""Which objects carry metadata, and what may be ordered about it."""

from collections.abc import Mapping
from enum import StrEnum

from shared.kernel import limits
from shared.web.console import Order


class Kind(StrEnum):
    """What carries metadata; a profile does under its name, whatever its version."""

    CA = "ca"
    GATEWAY = "gateway"
    STATION = "station"
    PROFILE = "profile"
    USER = "user"


#: Where REST has the objects; the metadata of one is below it.
ADDRESSES: Mapping[Kind, str] = {
    Kind.CA: "/authorities",
    Kind.GATEWAY: "/gateways",
    Kind.STATION: "/stations",
    Kind.PROFILE: "/policy/profiles",
    Kind.USER: "/users",
}


class MetadataOrder(Order):
    """Change some pairs, as a merge patch does (RFC 7396): null removes one, others stay."""

    metadata: dict[str, str | None]


#: What a list is filtered by: each of these pairs.
Wanted = dict[str, str]
#: How many rows one page has at most.
ROWS_MAX = limits.PAGE_ROWS_MAX
