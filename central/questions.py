"""What waits for a decision of a person: open questions, and events in quarantine."""

from typing import Any

from central.core import Core
from central.inventory import audit, conflicts
from central.inventory.reads import Inventory
from central.sync import quarantine
from shared.sync.envelope import Signer
from shared.web.auth import Authenticator
from shared.web.pages import utc_text


class Questions:
    """Implements ``central.question_console.Questions``; the pages settle by it, too."""

    def __init__(
        self, central: Core, inventory: Inventory, authenticator: Authenticator, signer: Signer
    ) -> None:
        """Take central's state, what lists the questions, who is to forget revoked ones.

        ``signer`` signs what is exported.
        """
        self._signer = signer
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
        for ca_id in {effect.ca_id for effect in done.effects}:
            self._central.status.request_crl(ca_id)
        return done.sentence

    async def conflicts(self) -> list[dict[str, Any]]:
        """List the newest open questions with the choices that settle them."""
        return [
            {
                "id": row.id,
                "kind": row.kind,
                "gateway": row.gateway,
                "about": row.subject,
                "detail": dict(row.detail),
                "since": utc_text(row.created_at_us),
                "choices": {choice.name: choice.sentence for choice in row.choices},
            }
            for row in await self._inventory.conflicts()
        ]

    async def quarantined(self) -> list[dict[str, Any]]:
        """List the events that are kept but not applied."""
        return await quarantine.listed(self._database)

    async def event(self, place: str) -> dict[str, Any]:
        """Give one event with its body; raises NotFoundError."""
        return await quarantine.shown(self._database, place)

    async def export(self, place: str) -> bytes:
        """Give one event as a signed file; raises NotFoundError."""
        return await quarantine.exported(self._database, place, self._signer)

    async def take_back(self, data: bytes, actor: str) -> str:
        """Take an exported event back and try it again; gives its place."""
        place = await self._database.writer.run(
            lambda tx: quarantine.imported(tx, data, self._signer, actor)
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
