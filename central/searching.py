"""Search at central, put together: its task, its pages, REST and console.

A part of the composition root (``central.server``) that stands apart for its size.
"""

from aiohttp.web import AbstractRouteDef

from central.admin import search_pages
from central.admin.frame import Frame
from central.core import Core
from central.identity import doors
from central.inventory import search_doors
from central.inventory.reads import Inventory
from central.inventory.search import Search
from shared.web.auth import Authenticator


class Searching:
    """What finds certificates by any attribute; ``step`` keeps up with the inventory."""

    def __init__(self, central: Core, authenticator: Authenticator) -> None:
        """Take central's state and who judges tokens."""
        self._search = Search(central.storage.database)
        self._authenticator = authenticator
        self.step = self._search.indexing.step

    def console_routes(self) -> list[AbstractRouteDef]:
        """Give the commands."""
        return doors.console_routes(search_doors.console_doors(self._search))

    def web_routes(self, frame: Frame, inventory: Inventory) -> list[AbstractRouteDef]:
        """Give pages and REST."""
        return [
            *search_pages.routes(frame, inventory, self._search),
            *doors.rest_routes(search_doors.rest_doors(self._search), self._authenticator),
        ]
