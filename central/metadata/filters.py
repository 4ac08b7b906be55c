"""How lists of REST are filtered by metadata: ``filter[meta.NAME]=VALUE``, any number of them."""

from collections.abc import Mapping

from central.inventory.terms import META
from central.metadata.orders import Wanted
from shared.enroll.rest import paging
from shared.enroll.rest.paging import Page

#: As the description of the interface names it.
FILTER = f"filter[{META}NAME]"
_OPENING = f"filter[{META}"
_PAGE_ROWS = 100


def page(query: Mapping[str, str]) -> Page:
    """Read the query of a list that comes in pages; raises BadRequestError."""
    given = [name[len("filter[") : -1] for name in query if name.startswith(_OPENING)]
    return paging.read(query, [f"{META}NAME", *given], size=_PAGE_ROWS)


def of_page(asked: Page) -> Wanted:
    """Give the pairs that a list is filtered by."""
    return {name.removeprefix(META): value for name, value in asked.filters.items()}


def wanted(query: Mapping[str, str]) -> Wanted:
    """Read the query of a list that comes as a whole; raises BadRequestError."""
    return of_page(page(query))
