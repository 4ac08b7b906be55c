"""People at central, put together: how they log in, what they may, what two of them must agree to.

A part of the composition root (``central.server``) that stands apart for its size.
"""

import os

from aiohttp.web import AbstractRouteDef, RouteDef

from central.admin import oversight as oversight_pages
from central.admin import people as people_pages
from central.admin.frame import Frame
from central.core import Core
from central.identity import doors, oversight
from central.identity.approvals import Approvals
from central.identity.audit_log import AuditLog
from central.identity.cards import CardLogin
from central.identity.doors import Door
from central.identity.operations import PeopleOperations
from central.inventory import audit
from central.sync.directive_keys import DirectiveKeys
from shared.store.access import Access
from shared.store.accounts import Accounts
from shared.web.auth import Authenticator
from shared.web.pages import Pages
from shared.web.sessions import Sessions
from shared.web.throttle import Throttle


class Desk:
    """What asks who somebody is, and what administers it."""

    def __init__(self, central: Core, directive_keys: DirectiveKeys) -> None:
        """Take central's state and the directive keys, which sign the audit log's heads."""
        database, clock = central.storage.database, central.clock
        self._clock = clock
        self._web = central.settings.web
        self.access = Access(database, audit.add)
        accounts = Accounts(database, audit.add)
        self.failures = Throttle(clock)
        self.authenticator = Authenticator(
            credentials=self.access, clock=clock, failures=self.failures
        )
        self._sessions = Sessions(
            accounts=accounts, clock=clock, random=os.urandom, failures=self.failures
        )
        wanted = central.settings.approvals
        self.approvals = Approvals(
            database, needed=frozenset(wanted.operations), hours=wanted.hours, clock=clock
        )
        self.audit_log = AuditLog(database, directive_keys, clock)
        self._people = PeopleOperations(
            database,
            approvals=self.approvals,
            hash_password=self._sessions.hash,
            forget=self.authenticator.forget,
            clock=clock,
            random=os.urandom,
        )
        self._cards = CardLogin(
            accounts=accounts,
            access=self.access,
            sessions=self._sessions,
            failures=self.failures,
            clock=clock,
            random=os.urandom,
        )

    def frame(self, pages: Pages) -> Frame:
        """Give what guards and frames every page."""
        port = self._web.card_port if self._web.card_authorities else None
        return Frame(pages, self._sessions, self._clock, port)

    def console_routes(self) -> list[AbstractRouteDef]:
        """Give the commands about people."""
        return doors.console_routes(self._doors())

    def web_routes(self, frame: Frame) -> list[AbstractRouteDef]:
        """Give pages and REST about people."""
        by_rest = [*self._doors(), oversight.export_door(self.audit_log)]
        return [
            *people_pages.routes(frame, self._people),
            *oversight_pages.routes(frame, self.audit_log, self.approvals),
            *doors.rest_routes(by_rest, self.authenticator),
            *(self._cards.people_routes() if self._web.card_authorities else ()),
        ]

    def card_routes(self) -> list[RouteDef]:
        """Give what the port of the smart cards serves."""
        return self._cards.card_routes(self._web.names, self._web.port)

    def _doors(self) -> list[Door]:
        return [
            *doors.people_doors(self._people),
            *oversight.doors(self.audit_log, self.approvals),
        ]
