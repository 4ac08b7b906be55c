"""What waits for a decision of a person: open questions, and events in quarantine."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from central.core import Core
from central.inventory import audit, conflicts
from central.inventory.models import CertificateView, ConflictView
from central.inventory.reads import Inventory
from central.sync import quarantine
from central.sync.directive_keys import DirectiveKeys
from shared.enroll.rest.paging import Page
from shared.kernel.errors import NotFoundError
from shared.web.auth import Authenticator
from shared.web.pages import utc_text


class Questions:
    """Implements ``central.question_console.Questions``; the pages settle by it, too."""

    def __init__(
        self, central: Core, inventory: Inventory, authenticator: Authenticator, keys: DirectiveKeys
    ) -> None:
        """Take central's state, what lists the questions, who is to forget revoked ones.

        ``keys`` sign what is exported.
        """
        self._keys = keys
        self._central = central
        self._database = central.storage.database
        self._inventory = inventory
        self._authenticator = authenticator

    async def settle(
        self, conflict_id: int, choice: str, actor: str, *, gateway: str | None = None
    ) -> str:
        """Settle an open question by a choice and do what it says; gives that as a sentence.

        Raises NotFoundError, ConflictError (settled before), BadRequestError (no such choice).
        """
        done = await self._database.writer.run(
            lambda tx: conflicts.settle(tx, conflict_id, choice, actor, gateway=gateway)
        )
        self._authenticator.forget()
        return done.sentence

    async def conflicts(
        self, page: Page, lines: Collection[str] | None
    ) -> tuple[list[dict[str, Any]], str]:
        """List questions of some lines (None: all); gives them and where the next page begins."""
        found, more = await self._inventory.conflicts.find(
            page.filters, lines=lines, after=page.after, limit=page.size
        )
        return [_shown(one) for one in found], more

    async def conflict(self, number: int) -> tuple[ConflictView, list[CertificateView]]:
        """Give one question and the certificates that disagree; raises NotFoundError."""
        found = await self._inventory.conflicts.one(number)
        certificates: list[CertificateView] = []
        for ca_id, serial in found.sides:
            with suppress(NotFoundError):  # a stub that was never filled
                certificates.append(await self._inventory.certificate(ca_id, serial))
        return found, certificates

    async def shown(self, number: int) -> dict[str, Any]:
        """Give one question with both sides, as REST has it; raises NotFoundError."""
        found, certificates = await self.conflict(number)
        return {**_shown(found), "certificates": [_side(one) for one in certificates]}

    async def quarantined(self) -> list[dict[str, Any]]:
        """List the events that are kept but not applied."""
        return await quarantine.listed(self._database)

    async def event(self, place: str) -> dict[str, Any]:
        """Give one event with its body; raises NotFoundError."""
        return await quarantine.shown(self._database, place)

    async def export(self, place: str) -> bytes:
        """Give one event as a signed file; raises NotFoundError."""
        return await quarantine.exported(self._database, place, self._keys)

    async def take_back(self, data: bytes, actor: str) -> str:
        """Take an exported event back and try it again; gives its place."""
        place = await self._database.writer.run(
            lambda tx: quarantine.imported(tx, data, self._keys, actor)
        )
        await quarantine.drive_again(self._database)
        return place

    async def retry(self, actor: str) -> int:
        """Try all of them again; gives how many were applied."""
        applied = await quarantine.drive_again(self._database)
        await self._database.writer.run(
            lambda tx: audit.add(tx, actor, "quarantine.retried", "", {"applied": applied})
        )
        return applied

    async def discard(self, place: str, reason: str, actor: str) -> None:
        """Give one of them up, for a reason; raises NotFoundError."""
        await self._database.writer.run(lambda tx: quarantine.discard(tx, place, reason, actor))


def _shown(row: ConflictView) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "gateway": row.gateway,
        "about": row.subject,
        "detail": dict(row.detail),
        "since": utc_text(row.created_at_us),
        "state": row.state,
        "choices": {choice.name: choice.sentence for choice in row.choices},
        "resolution": row.resolution,
        "settled_by": row.settled_by,
        "settled_at": row.settled_at_us and utc_text(row.settled_at_us),
    }


def _side(one: CertificateView) -> dict[str, Any]:
    line = one.line
    return {
        "ca_id": line.ca_id,
        "serial": line.serial,
        "issued_at": utc_text(line.issued_at_us),
        "issued_by": line.origin,
        "clock": one.clock_quality,
        "subject": line.subject_cn,
        "device_id": line.device_id,
        "profile": line.profile,
        "status": line.status,
        "not_after": line.not_after_us and utc_text(line.not_after_us),
    }
