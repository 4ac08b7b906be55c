"""``filter[…]``, ``page[after]`` and ``page[size]`` of a list, the same for every list."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from shared.enroll.rest.rendering import BASE
from shared.kernel import limits
from shared.kernel.errors import BadRequestError

_VALUE_CHARS_MAX = 256


class Page(NamedTuple):
    """What a query asks for: filters, after which row ('': from the first), how many."""

    filters: Mapping[str, str]
    after: str
    size: int

    def link(self, path: str, after: str) -> str:
        """Give the address of the page that follows."""
        query = {f"filter[{name}]": value for name, value in self.filters.items()}
        query |= {"page[size]": str(self.size), "page[after]": after}
        return f"{BASE}{path}?{urlencode(query)}"


def parameters(filters: Sequence[str]) -> tuple[str, ...]:
    """Name the parameters of a list with these filters."""
    return (*(f"filter[{name}]" for name in filters), "page[size]", "page[after]")


def read(
    query: Mapping[str, str], filters: Sequence[str], *, size: int, after: str = ".{0,256}"
) -> Page:
    """Read a query; ``after`` is the pattern of what names a row, ``size`` the usual page.

    Raises BadRequestError for what is not known.
    """
    known = {f"filter[{name}]": name for name in filters}
    wanted: dict[str, str] = {}
    following = ""
    for name, value in query.items():
        if name == "page[after]" and re.fullmatch(after, value):
            following = value
        elif name == "page[size]" and re.fullmatch("[0-9]{1,18}", value):
            size = min(max(int(value), 1), limits.PAGE_ROWS_MAX)
        elif name in known and len(value) <= _VALUE_CHARS_MAX:
            wanted[known[name]] = value
        else:
            raise BadRequestError(
                f"The query parameter {name[:40]!r} is not known here, or its value is wrong.",
                remedy=f"Filter by {', '.join(filters)}; page by page[size] and page[after].",
            )
    return Page(wanted, following, size)
