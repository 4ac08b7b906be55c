"""The composition root: builds the gateway from its parts, runs it, and takes it down in order."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp.web import AbstractRouteDef

from gateway import backup, commands, monitor, revoking
from gateway.authority_renewal import AuthorityRenewal
from gateway.ca_cache import Rules
from gateway.central_responder import CentralResponder
from gateway.config import GatewaySettings
from gateway.console_routes import console_routes
from gateway.enrollment import Enrollment
from gateway.errands import Errands
from gateway.history import History
from gateway.identity import Identity, directive_keys, joined_name
from gateway.identity_renewal import IdentityRenewal
from gateway.issuing import Authorities
from gateway.link import CentralLink, GatewayOutbox
from gateway.observation import Observation, Sources
from gateway.operator import Operator, report
from gateway.recent import WatchedIssuance
from gateway.responder import Responders
from gateway.snapshot import HistoryState, TokenState
from gateway.sync_view import SyncView
from gateway.token_watch import TokenWatch
from gateway.validation import GatewayStatus
from gateway.verdict import verdict
from gateway.version import VERSION
from gateway.web import page
from gateway.web_identity import WebIdentity
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.routes import routes as rest_routes
from shared.hsm.client import HsmClient
from shared.issuance.service import IssuanceService
from shared.issuance.status import StatusService
from shared.kernel.clock import US_PER_SECOND, ClockQuality
from shared.kernel.errors import TmaError
from shared.pki.ocsp import never_issued_state
from shared.store import pruning
from shared.store.access import Access
from shared.store.backups import Backups
from shared.store.database import Database
from shared.store.forwarded import SqlForwards
from shared.store.kept import Kept
from shared.store.ledger import SqlLedger
from shared.store.pruning import Rule
from shared.store.reads import Reads
from shared.store.transaction import Transaction
from shared.store.vault import Vault
from shared.sync.join import CENTRAL_NAME
from shared.system.clock import SystemClock
from shared.system.files import private_directory
from shared.system.processes import hold_lock
from shared.system.steady import repeat
from shared.validation.answers import Answers
from shared.validation.routes import routes as validation_routes
from shared.web import app, console, metrics
from shared.web.auth import Authenticator
from shared.web.pages import Pages
from shared.web.throttle import Throttle

_LOG = logging.getLogger(__name__)
_PRODUCT = "TMA Edge"
_MEGABYTE = 1_000_000
_PURGE_S = 60
_PRUNE_S = 60
_FINISH_OPEN_S = 30
_CLOCK_CHECK_S = 10
#: How far the clock may stand before central's last answer without being in doubt.
_CLOCK_TOLERANCE_US = 300 * US_PER_SECOND
#: At the start a token that is being opened is waited for so long, then the page says so.
_TOKEN_WAIT_S = 2.0


def run(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    name = joined_name(settings.database_path)
    private_directory(settings.state)
    settings.lock_path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = hold_lock(settings.lock_path)
    outbox = GatewayOutbox.of_gateway(name, VERSION)
    clock = SystemClock(monitor.clock_quality())
    database = await Database.open(
        settings.database_path,
        sink=outbox,
        clock=clock,
        floor_bytes=settings.disk.reserve_mb * _MEGABYTE,
    )
    client = HsmClient(settings.token_socket)
    try:
        vault = await Vault.open(database, box_path=settings.box_slot_path, random=os.urandom)
        identity = await Identity.load(database, vault)
        agent = Agent(Ground(settings, identity, database, vault, outbox, clock, client))
        await agent.start()
        await agent.serve(stop)
    finally:
        await client.close()
        await database.close()
        os.close(lock)


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything stands on; opened before the agent is built, closed after it has ended."""

    settings: GatewaySettings
    identity: Identity
    database: Database
    vault: Vault
    outbox: GatewayOutbox
    clock: SystemClock
    client: HsmClient


class Agent:
    """All parts of one gateway, wired. ``start`` makes it ready, ``serve`` lets others in."""

    def __init__(self, ground: Ground) -> None:
        """Build the parts; nothing is read or signed yet."""
        self._ground = ground
        database, clock = ground.database, ground.clock
        urls = ground.settings.status_url, ground.identity.answer.status_url
        self._reads = Reads(database)
        self._ledger, self._forwards = SqlLedger(database), SqlForwards(database)
        self._rules = Rules(database, clock)
        self._authorities = Authorities(database, ground.client, urls, ground.settings.crl)
        self._history = History(
            witness=ground.settings.witness_path,
            authorities=self._authorities,
            outbox=ground.outbox,
            database=database,
            clock=clock,
        )
        self._access = Access(database, report)
        self._authenticator = Authenticator(
            credentials=self._access, clock=clock, failures=Throttle(clock)
        )
        self._enrollment = Enrollment(ground, self._rules, self._authorities, self._authenticator)
        self._service = IssuanceService(
            profiles=self._rules,
            keys=self._authorities,
            ledger=self._ledger,
            clock=clock,
            random=os.urandom,
            devices=self._enrollment.devices,
            forwards=self._forwards,
        )
        self._issuance = WatchedIssuance(self._service, self._reads, clock)
        self._kept = Kept(database, ground.vault.keyring)
        self._tokens = TokenWatch(
            client=ground.client,
            authorities=self._authorities,
            database=database,
            on_ready=self._recover,
        )
        self._link = self._make_link()
        self._responders = self._make_responders()
        self._web_identity = WebIdentity(
            gateway=ground.identity.name,
            hosts=ground.settings.web.names,
            authorities=self._authorities,
            database=database,
            vault=ground.vault,
            clock=clock,
        )
        self._identity_renewal = self._make_identity_renewal()
        self._authority_renewal = self._make_authority_renewal()
        self._errands = Errands(commands=self._commands(), database=database, clock=clock)
        self._observation = Observation(self._sources())
        self._backups = self._make_backups()
        self._sync_view = self._make_sync_view()
        self._answers = Answers(clock)
        database.writer.watch(self._answers)
        self._recovered = 0
        self._status: StatusService

    def _make_link(self) -> CentralLink:
        ground = self._ground
        return CentralLink(
            identity=ground.identity,
            database=ground.database,
            outbox=ground.outbox,
            clock=ground.clock,
            random=os.urandom,
            changed=self._ordered,
            contact=self._contact,
            judged=self._history.judged,
            healed=self._healed,
        )

    def _make_identity_renewal(self) -> IdentityRenewal:
        ground = self._ground
        return IdentityRenewal(
            present=ground.identity,
            database=ground.database,
            vault=ground.vault,
            clock=ground.clock,
            adopted=self._link.renew,
        )

    def _make_authority_renewal(self) -> AuthorityRenewal:
        ground = self._ground
        return AuthorityRenewal(
            gateway=ground.identity.name,
            authorities=self._authorities,
            client=ground.client,
            key_type=ground.settings.token.key_type,
            database=ground.database,
            clock=ground.clock,
            adopted=self._certified,
        )

    def _make_responders(self) -> Responders:
        return Responders(
            authorities=self._authorities,
            database=self._ground.database,
            vault=self._ground.vault,
            clock=self._ground.clock,
            random=os.urandom,
        )

    def _sources(self) -> Sources:
        ground = self._ground
        return Sources(
            gateway=ground.identity.name,
            settings=ground.settings,
            database=ground.database,
            reads=self._reads,
            authorities=self._authorities,
            rules=self._rules,
            link=self._link,
            issuance=self._issuance,
            clock=ground.clock,
            forwards=self._forwards,
            crl_refusals=lambda: self._status.refusals,
        )

    def _make_sync_view(self) -> SyncView:
        return SyncView(
            name=self._ground.identity.name,
            database=self._ground.database,
            link=self._link,
            authorities=self._authorities,
            backups=self._backups,
            clock=self._ground.clock,
        )

    def _make_backups(self) -> Backups:
        ground = self._ground
        return backup.of_gateway(
            ground.settings,
            ground.identity.name,
            ground.database,
            ground.vault.keyring,
            clock=ground.clock,
            random=os.urandom,
        )

    async def start(self) -> None:
        """Open the segment, take over the rules, finish what a crash left, get a certificate."""
        await self._history.begin()
        await self._link.accept(self._ground.identity.answer.envelopes)
        await self._authorities.load()
        await self._rules.load()
        self._status = revoking.status_service(
            self._ground, ledger=self._ledger, authorities=self._authorities, rules=self._rules
        )
        self._mass_revocation = revoking.mass_revocation(
            self._ground.database, self._status, self._authenticator.forget
        )
        await self._judge_clock()
        await self._responders.load()
        await self._web_identity.load()
        await self._enrollment.load(self._web_identity.machines)
        if self._authorities.history is not HistoryState.CONTINUOUS:
            return
        await self._wait_for_token()
        await self._ground.database.writer.run(self._tell_start)
        if self._authorities.token.state is TokenState.READY:
            try:
                await self._web_identity.step(self._service)
            except TmaError as error:
                _LOG.warning("The page has no certificate yet: %s", error.message)

    async def serve(self, stop: asyncio.Event) -> None:
        """Let people, stations and relying parties in until ``stop``, then finish what runs."""
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(work) for work in self._background()]
            async with (
                app.serve(self._endpoints()),
                console.serve(self._ground.settings.agent_socket, self._console_routes()),
            ):
                monitor.notify("READY=1")
                _LOG.info("Gateway %s %s is ready.", self._ground.identity.name, VERSION)
                await stop.wait()
                monitor.notify("STOPPING=1")
            await self._service.drained()
            await self._backups.end()
            for task in background:
                task.cancel()

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        """Give what runs beside the listeners for as long as the agent does."""
        central_responder = CentralResponder(
            authorities=self._authorities,
            client=self._ground.client,
            database=self._ground.database,
            clock=self._ground.clock,
            random=os.urandom,
        )
        return [
            self._link.run(),
            self._answers.run(),
            repeat("The token is watched", self._tokens.step),
            repeat("The history is witnessed", self._history.step),
            repeat("The OCSP responder is renewed", self._responders.step),
            repeat("Central's OCSP responder is certified", central_responder.step),
            repeat(
                "The page's certificate is renewed", partial(self._web_identity.step, self._service)
            ),
            repeat("The identity on the link is renewed", self._identity_renewal.step),
            repeat("The issuing CA is renewed", self._authority_renewal.step),
            repeat("Central's commands are run", self._errands.step),
            repeat("The clock is judged", self._judge_clock),
            repeat("The last contact is noted", self._rules.step),
            repeat("CRLs are signed", self._sign_crls),
            repeat("Many are revoked by one order", self._mass_revocation.step),
            repeat("What was kept for retries is forgotten", self._forget_kept),
            repeat("Open requests are finished", self._finish_open),
            repeat("The rate of replication is measured", self._sync_view.step),
            repeat("Backups are made", self._backups.step),
            repeat("Applied events are deleted by the rule", self._prune),
        ]

    def _endpoints(self) -> list[app.Endpoint]:
        web = self._ground.settings.web
        pages = Pages("gateway.web", "shared.enroll.rest", product=_PRODUCT, version=VERSION)
        ports = self._rest_ports()
        measured = metrics.routes(self._authenticator, self._sync_view.metrics)
        shown = page.routes(pages, self._observation.snapshot)
        aliases = self._enrollment.catalogue
        people = [*shown, *measured, *rest_routes(ports, pages, more=aliases.routes())]
        never_issued = never_issued_state(web.never_issued)
        status = GatewayStatus(self._reads, self._authorities, self._responders, never_issued)
        relying, front = validation_routes(status, self._ground.clock, self._answers)
        est = self._enrollment.est(ports, lambda: self._web_identity.signer)
        machines = [*measured, *rest_routes(ports), *est]
        make = partial(app.create, random=os.urandom)
        identity = self._web_identity
        return [
            app.Endpoint(make(people, pages=pages), web.address, web.port, identity.people),
            app.Endpoint(make(machines), web.address, web.machine_port, identity.machines),
            app.Endpoint(make(relying), web.address, web.status_port, front=front),
        ]

    def _rest_ports(self) -> RestPorts:
        return RestPorts(
            issuance=self._issuance,
            status=self._status,
            mass_revocation=self._mass_revocation,
            refusals=self._ledger,
            reads=self._reads,
            kept=self._kept,
            keys=self._authorities,
            chain=self._authorities.parents,
            forwards=self._forwards,
            authenticator=self._authenticator,
            clock=self._ground.clock,
            profiles=self._rules.all_profiles,
            health=self._health,
            sync=self._sync_view.shown,
        )

    def _console_routes(self) -> list[AbstractRouteDef]:
        operator = Operator(
            observation=self._observation,
            history=self._history,
            status=self._status,
            access=self._access,
            authenticator=self._authenticator,
            database=self._ground.database,
            reads=self._reads,
            clock=self._ground.clock,
            random=os.urandom,
        )
        own = console_routes(
            operator, self._issuance, self._rules, self._backups, self._mass_revocation
        )
        return [*own, *self._enrollment.catalogue.console_routes()]

    async def _wait_for_token(self) -> None:
        """Look until the token is ready or surely not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TOKEN_WAIT_S):
                while True:
                    pause_s = await self._tokens.step()
                    if self._authorities.token.state is not TokenState.STARTING:
                        return
                    await asyncio.sleep(pause_s)

    async def _recover(self) -> None:
        """Finish or void what the loss of the token, or of this process, cut off."""
        finished, voided = await self._service.recover()
        self._recovered += finished + voided
        if finished or voided:
            _LOG.warning("Open requests: %d finished, %d voided.", finished, voided)

    def _tell_start(self, transaction: Transaction) -> None:
        body = {"version": VERSION, "recovered": self._recovered}
        transaction.emit("agent.started", body, actor="system")

    async def _ordered(self, types: set[str]) -> None:
        """Let memory follow the directives that were just applied."""
        await self._authorities.load()
        await self._rules.load()
        if commands.OF_KEYS in types:
            self._link.trust(await directive_keys(self._ground.database))
        if types & commands.OF_ENROLLMENT:
            await self._enrollment.load(self._web_identity.machines)

    def _commands(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Give what central may order by name."""
        return {
            "renew-identity": self._identity_renewal.ask,
            "renew-authority": self._authority_renewal.ask,
            "sign-crl": self._sign_own_crls,
        }

    async def _sign_own_crls(self) -> None:
        for key in self._authorities.own:
            await self._status.sign_crl(key.issuer.ca_id)

    async def _certified(self) -> None:
        """Let memory follow when another CA, or another certificate of it, is in force."""
        await self._authorities.load()
        for key in self._authorities.own:
            self._status.add_ca(key.issuer.ca_id)
        await self._responders.step()

    def _healed(self) -> None:
        """Go on with what came back, and let the CRLs say it."""
        self._history.healed()
        for key in self._authorities.own:
            self._status.request_crl(key.issuer.ca_id)

    def _contact(self) -> None:
        self._rules.note_contact()
        self._history.contact()

    async def _judge_clock(self) -> float:
        """Say how well the time is known; it is in doubt where central's last answer is ahead."""
        clock, contact_us = self._ground.clock, self._rules.last_contact_us() or 0
        behind = clock.now().utc_us < contact_us - _CLOCK_TOLERANCE_US
        clock.quality = ClockQuality.UNKNOWN if behind else monitor.clock_quality()
        monitor.notify("WATCHDOG=1")
        return _CLOCK_CHECK_S

    async def _sign_crls(self) -> float:
        await self._status.run()
        return 0

    async def _finish_open(self) -> float:
        """Take up what a full disk or a lost commit left open while the agent lived on."""
        if self._authorities.token.state is TokenState.READY:
            await self._recover()
        return _FINISH_OPEN_S

    async def _prune(self) -> float:
        """Delete what central applied but has in no backup, if an administrator wants that."""
        wanted = self._ground.settings.outbox
        rule = Rule(wanted.unarchived_days, wanted.unarchived_mb)
        now_us = self._ground.clock.now().utc_us
        await pruning.prune(self._ground.database, CENTRAL_NAME, rule, now_us)
        return _PRUNE_S

    async def _forget_kept(self) -> float:
        await self._kept.purge()
        await self._forwards.purge()
        return _PURGE_S

    async def _health(self) -> Mapping[str, Any]:
        judged = verdict(await self._observation.snapshot())
        return {"line": judged.level.value, "why": judged.why, "remedy": judged.remedy}
