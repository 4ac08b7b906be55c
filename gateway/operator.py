"""What people at the console of this box may do; implements ``gateway.console.Console``."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.console import GoOnOrder, HoldOrder, LineOrder, RevokeOrder, StationOrder
from gateway.history import History
from gateway.observation import Observation
from gateway.snapshot import LineState, Snapshot, local_text
from shared.issuance.ports import CertificateRecord
from shared.issuance.status import StatusService
from shared.kernel.clock import US_PER_SECOND, Clock
from shared.kernel.errors import NotFoundError
from shared.kernel.ids import Random
from shared.store import facts
from shared.store.access import Access
from shared.store.database import Database
from shared.store.reads import Reads
from shared.store.transaction import Transaction
from shared.web.auth import Authenticator, new_token

_LOG = logging.getLogger(__name__)
_DAY_US = 24 * 3600 * US_PER_SECOND
_SERIAL_CHARS = 32


def report(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Let central's audit log have what a person did here, in the transaction that does it.

    Refused credentials stay here: whoever knocks must not be able to fill the outbox.
    """
    if action == "credential.refused":
        return
    told = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in detail.items()
    }
    body = {"action": action, "subject": subject, "detail": told}
    transaction.emit("operator.acted", body, actor=actor)


@dataclass(frozen=True, slots=True)
class Operator:
    """Carries out the console's commands."""

    observation: Observation
    history: History
    status: StatusService
    access: Access
    authenticator: Authenticator
    database: Database
    reads: Reads
    clock: Clock
    random: Random

    async def snapshot(self) -> Snapshot:
        """Give what the page shows."""
        return await self.observation.snapshot()

    async def set_line(self, order: LineOrder, actor: str) -> None:
        """Stop or continue the line, durably: a restart does not continue it."""
        stopped = order.state is LineState.STOPPED

        def unit(transaction: Transaction) -> None:
            facts.put(transaction, facts.LINE, order.reason if stopped else None)
            action = "line.stopped" if stopped else "line.continued"
            report(transaction, actor, action, "line", {"reason": order.reason})

        await self.database.writer.run(unit)
        _LOG.warning("%s set the line to %s: %s", actor, order.state.value, order.reason)

    async def go_on(self, order: GoOnOrder, actor: str) -> None:
        """Go on although this database is an old copy."""
        await self.history.go_on(order.remaining, order.reason, actor)

    async def add_station(self, order: StationOrder, actor: str) -> str:
        """Make a station; gives its token."""
        token, digest = new_token(self.random)
        await self.access.add_station(
            order.name,
            role="station",
            profiles=order.profiles,
            token_hash=digest,
            expires_at_us=self.clock.now().utc_us + order.days * _DAY_US,
            actor=actor,
        )
        _LOG.info("%s made the station %s", actor, order.name)
        return token

    async def stations(self) -> list[dict[str, Any]]:
        """List the stations."""
        now_us = self.clock.now().utc_us
        return [
            {
                "name": station.name,
                "profiles": list(station.profiles),
                "state": "revoked"
                if station.revoked_at_us is not None
                else "ended"
                if station.expires_at_us is not None and station.expires_at_us <= now_us
                else "active",
                "ends": local_text(station.expires_at_us) if station.expires_at_us else "never",
            }
            for station in await self.access.stations()
        ]

    async def revoke_station(self, name: str, actor: str) -> None:
        """End a station's token at once."""
        await self.access.revoke_station(name, actor)
        self.authenticator.forget()
        _LOG.info("%s revoked the station %s", actor, name)

    async def revoke(self, order: RevokeOrder, actor: str) -> dict[str, str]:
        """Revoke a certificate of this gateway."""
        ca_id, serial = await self._find(order.serial)
        return _shown(await self.status.revoke(ca_id, serial, order.reason, actor))

    async def hold(self, order: HoldOrder, actor: str) -> dict[str, str]:
        """Suspend a certificate of this gateway."""
        ca_id, serial = await self._find(order.serial)
        return _shown(await self.status.hold(ca_id, serial, order.hold_id, actor))

    async def release_hold(self, order: HoldOrder, actor: str) -> dict[str, str]:
        """Release a hold."""
        ca_id, serial = await self._find(order.serial)
        return _shown(await self.status.release_hold(ca_id, serial, order.hold_id, actor))

    async def _find(self, typed: str) -> tuple[str, str]:
        """Find a certificate by its serial as people write it: colons, capitals, no zeros."""
        serial = typed.replace(":", "").replace(" ", "").lower().zfill(_SERIAL_CHARS)
        rows = await self.reads.search({"serial": serial}, None, 0, 1)
        if not rows:
            raise NotFoundError(
                f"No certificate of this gateway has the serial number {typed}.",
                remedy="Give the serial number in hex, as `openssl x509 -serial` writes it.",
            )
        return rows[0].ca_id, rows[0].serial


def _shown(record: CertificateRecord) -> dict[str, str]:
    return {"ca_id": record.ca_id, "serial": record.serial, "status": record.status.value}
