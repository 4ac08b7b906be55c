"""Central and a gateway in one process, with what travels between them in plain lists."""

import json
import os
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from central.authority.hierarchy import store_authority
from central.forwarding import Forwarding
from central.issuing import CentralProfiles
from central.policy import books
from central.sync import directives
from central.sync.apply import Applier
from gateway import commands
from gateway.ca_cache import Rules
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.service import IssuanceService
from shared.kernel.errors import (
    PendingError,
    RefusedError,
    TokenUnavailableError,
    UnavailableError,
)
from shared.pki import keys
from shared.pki.plan import NameAttribute
from shared.policy.grant import Grant
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.shipped import SHIPPED
from shared.store.database import Database
from shared.store.forwarded import SqlForwards
from shared.store.ledger import SqlLedger
from shared.store.schema import (
    ca,
    certificate,
    gateway,
    grant_use,
)
from shared.store.transaction import Transaction
from shared.sync.events import Event
from tests.support.pki_hierarchy import Authority, Hierarchy, subordinate
from tests.support.store_clock import START_US, ManualClock
from tests.support.store_databases import ListSink

NAME = "gw-1"
GRANT = Grant(
    grant_id="g",
    version=1,
    profiles=("forwarded", "tls-client"),
    quota=3,
    not_before_us=0,
    not_after_us=START_US * 2,
    last_contact_max_s=3600,
)
_CLIENT = next(one for one in SHIPPED if one.name == "tls-client")
FORWARD = Profile.from_document(
    _CLIENT.to_document() | {"name": "forwarded", "version": 1, "mode": "forward"}
)


class Keys:
    """One CA; without it, as at a gateway whose token is away, nothing is issued."""

    def __init__(self, authority: Authority | None) -> None:
        self.key = authority and SoftwareIssuingKey(authority.issuer, authority.key)

    def active(self, profile: str) -> SoftwareIssuingKey:
        if self.key is None:
            raise TokenUnavailableError("The token is away.")
        return self.key

    of = active


class Two:
    """Central and a gateway, and what is under way between them."""

    def __init__(
        self,
        central: Database,
        box: Database,
        clock: ManualClock,
        down: ListSink,
        up: ListSink,
    ) -> None:
        self.central, self.box, self.clock = central, box, clock
        self.down, self.up = down, up
        self.hierarchy = Hierarchy()
        self.issuing = subordinate(self.hierarchy.fleet, "Issuing CA", 0)
        self.profiles = CentralProfiles(central)
        self.rules = Rules(box, self.clock)
        self.forwards = SqlForwards(box)
        self.service = IssuanceService(
            profiles=self.rules,
            keys=Keys(None),
            ledger=SqlLedger(box),
            clock=self.clock,
            random=os.urandom,
            forwards=self.forwards,
        )
        self.begin_central()

    def begin_central(self, fails: bool = False) -> None:
        """Start central (again); it may die after it signed and before it answered."""
        keys_of_central = Keys(self.issuing)
        self.at_central = IssuanceService(
            profiles=self.profiles,
            keys=keys_of_central,
            ledger=SqlLedger(self.central),
            clock=self.clock,
            random=os.urandom,
            grant_of=self.profiles.grant_of,
        )

        def chain(_ca_id: str) -> tuple[bytes, ...]:
            if fails:
                raise UnavailableError("Central died.")
            return self.issuing.issuer.chain

        self.forwarding = Forwarding(self.central, self.at_central, self.profiles, chain)

    async def found(self) -> None:
        issuing = self.issuing.issuer

        def at_central(tx: Transaction) -> None:
            store_authority(tx, kind="issuing", name="I", der=issuing.chain[0], parent_id=None)
            row = {"name": NAME, "state": "active", "state_reason": "", "created_at": 0}
            tx.execute(insert(gateway), row)
            books.draft(tx, FORWARD, "a")
            books.publish(tx, FORWARD.name, 1, FORWARD.sha256, "a")
            tx.execute(insert(grant_use), self._grant(GRANT))
            directives.order_grant(tx, NAME, GRANT, "a")

        def at_the_gateway(tx: Transaction) -> None:
            root = self.hierarchy.root.issuer
            row = {"ca_id": root.ca_id, "name": "R", "kind": "root", "der": root.chain[0]}
            row |= {"state": "active", "not_after": 1, "crl_number": 0, "created_at": 0}
            tx.execute(insert(ca), row)

        await self.central.writer.run(at_central)
        await self.box.writer.run(at_the_gateway)
        await self.carry()
        self.rules.note_contact()

    def _grant(self, grant: Grant) -> dict[str, Any]:
        document = json.dumps(grant.to_document()).encode()
        return {"grant_id": grant.grant_id, "version": 1, "quota": grant.quota, "used": 0,
                "state": "active", "document": document}  # fmt: skip

    async def ask(self, device: str = "D-1", **changes: Any) -> Any:
        return await self.service.issue(request(device, **changes))

    async def waits(self, device: str = "D-1", **changes: Any) -> str:
        with pytest.raises(PendingError) as pending:
            await self.ask(device, **changes)
        return pending.value.reference

    async def refused(self, device: str = "D-1", **changes: Any) -> RefusedError:
        with pytest.raises(RefusedError) as refused:
            await self.ask(device, **changes)
        return refused.value

    def told(self, sink: ListSink) -> list[Event]:
        events = [event for peer, event in sink.events if (peer is not None) is (sink is self.down)]
        sink.events.clear()
        return events

    async def report(self) -> list[Event]:
        """Bring events to central; gives them."""
        events = self.told(self.up)
        for event in events:
            await self.central.writer.run(lambda tx, e=event: Applier(NAME).apply(tx, e))
        return events

    async def order(self) -> list[Event]:
        """Bring directives to the gateway; gives them."""
        orders = self.told(self.down)
        for event in orders:
            await self.box.writer.run(lambda tx, e=event: commands.apply(tx, e))
        await self.rules.load()
        return orders

    async def carry(self) -> None:
        """Let everything arrive, and central answer."""
        await self.report()
        await self.forwarding.step()
        await self.order()
        await self.report()

    async def signed(self) -> int:
        """Count what central issued."""
        found = select(func.count().label("n")).where(certificate.c.origin == NAME)
        return (await self.central.read(found))[0].n


def request(device: str = "D-1", **changes: Any) -> EnrollmentRequest:
    fields: dict[str, Any] = {
        "operation": Operation.ENROLL,
        "protocol": "rest",
        "alias": "rest",
        "profile": "forwarded",
        "principal": "station:one",
        "public_key": KEYS[device],
        "subject": (NameAttribute("2.5.4.3", device),),
        "device_id": device,
    }
    return EnrollmentRequest(**fields | changes)


KEYS = {f"D-{number}": keys.spki(keys.generate().public_key()) for number in range(1, 6)}
