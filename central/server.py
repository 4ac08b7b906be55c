"""The composition root of central: every adapter is chosen here, and nowhere else."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from aiohttp.web import AbstractRouteDef
from cryptography.hazmat.primitives.asymmetric import ec

from central import (
    backup,
    backup_doors,
    comparison_doors,
    core,
    directive_key_doors,
    fleet_doors,
    history_doors,
    question_doors,
    revoking,
    setup,
)
from central import console as commands
from central.admin import (
    authority_pages,
    backup_pages,
    conflict_pages,
    history_pages,
    metadata_pages,
    policy_pages,
    quarantine_pages,
    revocation_pages,
)
from central.admin.routes import routes as admin_routes
from central.authority import console as authority_console
from central.authority import doors as authority_doors
from central.authority.administration import Administration
from central.authority.join import Joined, Joining
from central.authority.join_routes import routes as join_routes
from central.authority.renewals import Renewals
from central.authority.responders import CentralValidation
from central.config import CentralSettings
from central.core import VERSION, Core
from central.desk import Desk
from central.enrolling import Enrolling
from central.forwarding import Forwarding
from central.identity import doors
from central.inventory.crl_ages import CrlAges
from central.inventory.reads import Inventory
from central.issuing import CentralKeys, CentralProfiles
from central.listeners import Listeners, listening
from central.metadata import doors as metadata_doors
from central.operations import Operations
from central.policy import console as policy_console
from central.policy import rest as policy_rest
from central.policy.authoring import Authoring
from central.questions import Questions
from central.searching import Searching
from central.sync import directives, quarantine
from central.sync.comparing import Comparing
from central.sync.directive_keys import DirectiveKeys
from central.sync.histories import Histories
from central.sync.listener import Listener
from central.sync.view import SyncView
from central.transport import Transport
from shared.enroll.rest.explain_console import Explain
from shared.enroll.rest.explaining import explain
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.routes import routes as rest_routes
from shared.issuance.service import IssuanceService
from shared.pki.ocsp import never_issued_state
from shared.store.kept import Kept
from shared.system.files import private_directory
from shared.system.processes import hold_lock
from shared.system.steady import repeat
from shared.validation.answers import Answers
from shared.validation.routes import routes as validation_routes
from shared.web import app, backup_console, console, metrics, revocation_console
from shared.web.app import Endpoint
from shared.web.pages import Pages
from shared.web.throttle import Throttle

_LOG = logging.getLogger(__name__)
_PRODUCT = "TMA Edge Central"
_REFRESH_S = 3600
_PURGE_S = 60
_FINISH_OPEN_S = 30
_RENEWALS_S = 2
_EXCHANGE_KEY = "exchange"  # opens what is sealed to central
_PAGE_PACKAGES = ("central.admin", "shared.enroll.rest")


def run(settings: CentralSettings) -> None:
    """Run until SIGTERM or SIGINT; raises what keeps central from starting."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    asyncio.run(_run(settings))


async def _run(settings: CentralSettings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        private_directory(settings.state)
        stack.callback(os.close, hold_lock(settings.lock_path))
        if await setup.passed(settings, stopped, _PRODUCT):
            central = await stack.enter_async_context(core.opened(settings))
            server = await Server.build(central)
            await server.serve(stopped)
    _LOG.info("Central has stopped.")


class Server:
    """The running parts."""

    def __init__(
        self,
        central: Core,
        profiles: CentralProfiles,
        directive_keys: DirectiveKeys,
        incarnation: str,
        exchange_key: ec.EllipticCurvePrivateKey,
    ) -> None:
        """Put the parts together; nothing listens yet. Use ``build``."""
        self._central = central
        database, clock = central.storage.database, central.clock
        self._profiles, self._keys = profiles, CentralKeys(central.hierarchy, profiles)
        self._kept = Kept(database, central.vault.keyring)
        self._desk = Desk(central, directive_keys)
        self._directive_keys = directive_keys
        self._authenticator = self._desk.authenticator
        self._listeners = Listeners(central)
        self._enrolling = Enrolling(
            central, profiles, exchange_key, trusted=self._listeners.accept_all, random=os.urandom
        )
        self._issuance = self._make_issuance()
        self._forwarding = Forwarding(database, self._issuance, profiles, central.hierarchy.parents)
        self._mass_revocation = revoking.mass_revocation(
            central, self._desk.approvals, self._authenticator.forget
        )
        self._crl_ages = _crl_ages(central)
        self._inventory = Inventory(
            database, partial(backup.alarm, central.settings, clock), self._crl_ages
        )
        self._searching = Searching(central, self._authenticator)
        self._validation = _validation(central)
        self._answers = Answers(clock)
        database.writer.watch(self._answers)
        self._transport = Transport(central, os.urandom)
        self._listener = Listener(
            self._transport.address(),
            central.storage,
            signers=directive_keys.signers,
            incarnation=incarnation,
            clock=clock,
            random=os.urandom,
        )
        self._transport.listener = self._listener
        self._joining = self._make_joining()
        self._renewals = self._make_renewals()
        self._backups = backup.of_central(central, os.urandom, self._listener.archived)
        self._sync_view = SyncView(
            database, self._inventory, self._listener, self._backups, clock, crl_ages=self._crl_ages
        )
        self._questions = Questions(central, self._inventory, self._authenticator, directive_keys)
        self._histories = Histories(central.storage, self._listener)
        self._comparing = Comparing(
            central.storage, self._listener, clock, central.settings.gateways.compare_hours
        )
        self._authoring = Authoring(database, clock, profiles.refresh, self._desk.approvals)
        self._administration = self._make_administration()
        self._operations = self._make_operations()

    def _make_joining(self) -> Joining:
        central = self._central
        return Joining(
            central.settings,
            central.storage,
            organization=central.organization,
            hierarchy=central.hierarchy,
            vault=central.vault,
            directive_keys=self._directive_keys,
            clock=central.clock,
            random=os.urandom,
            joined=self._joined,
        )

    def _make_issuance(self) -> IssuanceService:
        return IssuanceService(
            profiles=self._profiles,
            keys=self._keys,
            ledger=self._central.ledger,
            clock=self._central.clock,
            random=os.urandom,
            devices=self._enrolling.devices,
            grant_of=self._profiles.grant_of,
        )

    def _make_operations(self) -> Operations:
        return Operations(
            self._central,
            joining=self._joining,
            profiles=self._profiles,
            transport=self._transport,
            inventory=self._inventory,
            access=self._desk.access,
            authenticator=self._authenticator,
            approvals=self._desk.approvals,
            random=os.urandom,
        )

    def _make_administration(self) -> Administration:
        central = self._central
        return Administration(
            central.hierarchy,
            database=central.storage.database,
            vault=central.vault,
            status=central.status,
            organization=central.organization,
            clock=central.clock,
            random=os.urandom,
            accept=self._listeners.accept,
        )

    @classmethod
    async def build(cls, central: Core) -> "Server":
        """Read what the parts need, renew what is due, finish what a crash left."""
        database = central.storage.database
        profiles = await CentralProfiles.load(database)
        incarnation = await database.writer.run(directives.incarnation)
        server = cls(
            central,
            profiles,
            await DirectiveKeys.load(database, central.vault),
            incarnation,
            await central.vault.key_or_new(_EXCHANGE_KEY),
        )
        await server._transport.refresh()
        await server._listeners.refresh()
        await server._enrolling.load()
        await server._issuance.recover()
        await quarantine.drive_again(database)
        return server

    async def serve(self, stopped: asyncio.Event) -> None:
        """Listen and replicate until ``stopped``; then end in order and lose nothing."""
        async with AsyncExitStack() as stack:
            settings = self._central.settings
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._listener.run(),
                    self._answers.run(),
                    repeat("CRLs are signed", self._sign_crls),
                    repeat("Many are revoked by one order", self._mass_revocation.step),
                    repeat("What was kept for retries is forgotten", self._forget_kept),
                    repeat("Open requests are finished", self._finish_open),
                    repeat("What gateways ask for is certified", self._renew_gateways),
                    repeat("What gateways forward is issued", self._forwarding.step),
                    repeat("The rates of replication are measured", self._sync_view.step),
                    repeat("Search keeps up with the inventory", self._searching.step),
                    repeat("The head of the audit log is signed", self._desk.audit_log.step),
                    repeat("Backups are made", self._backups.step),
                    repeat(
                        "What boxes that are set aside issued is taken in", self._histories.step
                    ),
                    repeat(
                        "Gateways hear who may enroll", self._enrolling.operations.distribution.step
                    ),
                    repeat("Identities and the transport CRL are renewed", self._refresh),
                )
            ]
            stack.push_async_callback(_end, tasks)
            stack.push_async_callback(self._issuance.drained)
            stack.push_async_callback(self._backups.end)
            await stack.enter_async_context(
                console.serve(settings.control_socket, self._console_routes())
            )
            await stack.enter_async_context(listening(self._endpoints()))
            _LOG.info(
                "Central %s serves %s.", VERSION, f"https://{settings.host}:{settings.web.port}"
            )
            waiting = asyncio.create_task(stopped.wait())
            await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    @property
    def _explain(self) -> Explain:
        return partial(explain, self._issuance, self._profiles.listed)

    def _console_routes(self) -> list[AbstractRouteDef]:
        return [
            *commands.routes(self._operations),
            *policy_console.routes(self._authoring, self._explain),
            *backup_console.routes(self._backups),
            *revocation_console.routes(self._mass_revocation),
            *self._enrolling.console_routes(),
            *self._desk.console_routes(),
            *self._searching.console_routes(),
            *doors.console_routes(question_doors.console_doors(self._questions)),
            *doors.console_routes(history_doors.doors(self._histories)),
            *doors.console_routes(comparison_doors.doors(self._comparing)),
            *doors.console_routes(directive_key_doors.doors(self._directive_keys, self._backups)),
            *doors.console_routes(metadata_doors.console_doors(self._inventory.metadata)),
            *authority_console.routes(self._administration),
        ]

    def _endpoints(self) -> list[Endpoint]:
        web, clock = self._central.settings.web, self._central.clock
        pages = Pages(*_PAGE_PACKAGES, product=_PRODUCT, version=VERSION, login_path="/login")
        relying, front = validation_routes(self._validation, clock, self._answers)
        frame = self._desk.frame(pages)
        ports = self._rest_ports()
        own = policy_rest.routes(self._authoring, self._authenticator)
        more = [*own, *self._enrolling.rest_routes()]
        est = self._enrolling.est(
            ports, self._authenticator, self._desk.failures, lambda: self._listeners.signer
        )
        measured = metrics.routes(self._authenticator, self._sync_view.metrics)
        acts = backup_doors.BackupActs(self._backups, self._central.storage.database)
        people = [
            *admin_routes(frame, self._inventory, self._operations),
            *history_pages.routes(frame, self._histories, self._comparing),
            *conflict_pages.routes(frame, self._questions),
            *backup_pages.routes(frame, acts),
            *revocation_pages.routes(frame, self._mass_revocation),
            *quarantine_pages.routes(frame, self._questions),
            *authority_pages.routes(frame, self._administration),
            *metadata_pages.routes(frame, self._inventory.metadata),
            *doors.rest_routes(
                [
                    *question_doors.rest_doors(self._questions),
                    *backup_doors.doors(acts),
                    *history_doors.doors(self._histories),
                    *comparison_doors.doors(self._comparing),
                    *directive_key_doors.doors(self._directive_keys, self._backups),
                    *authority_doors.doors(self._administration),
                    authority_doors.of_crls(self._crl_ages),
                    *metadata_doors.doors(self._inventory.metadata),
                    *fleet_doors.doors(self._inventory, self._operations),
                ],
                self._authenticator,
            ),
            *self._desk.web_routes(frame),
            *self._searching.web_routes(frame, self._inventory),
            *policy_pages.routes(frame, self._authoring, self._explain),
            *measured,
            *self._enrolling.pages(frame, self._inventory),
            *rest_routes(ports, pages, more=more),
        ]

        def endpoint(port: int, routes: Any, tls: Any = None, **named: Any) -> Endpoint:
            application = app.create(routes, random=os.urandom, **named)
            return Endpoint(application, web.address, port, tls)

        bare = Pages(product=_PRODUCT, version=VERSION)
        cards = endpoint(web.card_port, self._desk.card_routes(), self._listeners.cards, pages=bare)
        return [
            *([cards] if web.card_authorities else ()),
            endpoint(web.port, people, self._listeners.people, pages=pages),
            endpoint(
                web.machine_port,
                [*measured, *rest_routes(ports, more=more), *est],
                self._listeners.machines,
            ),
            endpoint(
                web.gateway_port,
                join_routes(self._joining, Throttle(clock)),
                self._transport.server,
            ),
            app.Endpoint(
                app.create(relying, random=os.urandom), web.address, web.status_port, front=front
            ),
        ]

    def _rest_ports(self) -> RestPorts:
        central = self._central
        return RestPorts(
            issuance=self._issuance,
            status=central.status,
            mass_revocation=self._mass_revocation,
            refusals=central.ledger,
            reads=central.reads,
            kept=self._kept,
            keys=self._keys,
            chain=central.hierarchy.parents,
            authenticator=self._authenticator,
            clock=central.clock,
            profiles=self._profiles.listed,
            health=self._health,
            sync=self._sync_view.shown,
        )

    def _make_renewals(self) -> Renewals:
        central = self._central
        return Renewals(
            database=central.storage.database,
            hierarchy=central.hierarchy,
            vault=central.vault,
            organization=central.organization,
            issue_days=central.settings.authority.issue_days,
            clock=central.clock,
            random=os.urandom,
            accept=self._listeners.accept,
        )

    async def _health(self) -> Mapping[str, Any]:
        """Give what ``GET /status`` shows: the same numbers as the first page."""
        seen = await self._inventory.dashboard()
        totals = seen.totals
        return {
            "product": "central",
            "version": VERSION,
            "issued": totals.issued,
            "good": totals.good,
            "held": totals.held,
            "revoked": totals.revoked,
            "voided": totals.voided,
            "gateways": [
                {
                    "name": gateway.name,
                    "state": gateway.state,
                    "link": gateway.link,
                    "backlog": gateway.backlog,
                    "applied": gateway.applied,
                    "waiting": gateway.waiting,
                }
                for gateway in seen.gateways
            ],
            "conflicts": len(seen.conflicts),
            "quarantined": seen.quarantined,
            "crl_alarms": len(seen.crl_alarms),
        }

    async def _joined(self, joined: Joined) -> None:
        """Shut an earlier gateway of this name out, listen to the newborn, accept its devices."""
        if joined.again:
            await self._transport.shut_out(joined.name)
        self._listener.add(joined.name, joined.event_key)
        self._listeners.accept(joined.authority)

    async def _sign_crls(self) -> float:
        await self._central.status.run()
        return 0

    async def _forget_kept(self) -> float:
        await self._kept.purge()
        return _PURGE_S

    async def _finish_open(self) -> float:
        """Take up what a full disk or a lost commit left open while central lived on."""
        await self._issuance.recover()
        return _FINISH_OPEN_S

    async def _renew_gateways(self) -> float:
        await self._renewals.certify_waiting()
        await self._transport.follow_adopted()
        return _RENEWALS_S

    async def _refresh(self) -> float:
        await self._transport.refresh()
        await self._listeners.refresh()
        return _REFRESH_S


def _crl_ages(central: Core) -> CrlAges:
    days = central.settings.authority.crl_alarm_days
    database, clock, status = central.storage.database, central.clock, central.status
    return CrlAges(database, clock, days, lambda: status.refusals)


def _validation(central: Core) -> CentralValidation:
    return CentralValidation(
        central.storage.database,
        central.vault,
        central.hierarchy,
        central.clock,
        os.urandom,
        never_issued=never_issued_state(central.settings.web.never_issued),
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what runs; what ended by itself tells why."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
