"""The histories of a gateway that is two: seen side by side, and decided by a person.

``shared.sync.forks`` has the rules. What a decision does to the registry is done in the same
transaction; what the box that is set aside issued is taken in afterwards, bit by bit.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from central.inventory import audit
from central.sync import fleet
from central.sync.apply import Applier
from central.sync.listener import Listener, Storage
from shared.kernel.errors import ConflictError
from shared.store import certificates
from shared.store.forks import OF_PEER, claim_of
from shared.store.link import LinkTables, Own
from shared.store.schema import fork, fork_event
from shared.store.transaction import Transaction
from shared.sync import forks
from shared.sync.events import Event
from shared.sync.lineage import Verdict
from shared.sync.ports import ClaimState

#: Names the history that central holds.
HERE: Final = "here"
_TOGETHER = 200  # events taken in by one transaction
_PAUSE_S = 2
_REVOKED_AS = "privilege_withdrawn"

_UNHEARD: Final[Mapping[str, Any]] = {
    "version": "",
    "boot_id": "",
    "segment": "",
    "first_seen_us": None,
    "last_seen_us": None,
    "backlog": 0,
    "complete": True,
    "revoke": False,
}

_KEPT = (
    select(
        fork_event.c.fork,
        func.count().label("events"),
        func.count().filter(fork_event.c.type == "certificate.issued").label("issued"),
    )
    .where(fork_event.c.peer == bindparam("link"))
    .group_by(fork_event.c.fork)
)
_UNTAKEN = select(fork).where(
    fork.c.state == ClaimState.OUTCAST.value,
    select(fork_event.c.id)
    .where(
        fork_event.c.peer == fork.c.peer,
        fork_event.c.fork == fork.c.fork,
        fork_event.c.id > fork.c.taken,
    )
    .exists(),
)


class Histories:
    """Lists and decides; ``step`` takes in what outcasts issued."""

    def __init__(self, storage: Storage, listener: Listener) -> None:
        """Take the storage, and who listens to the gateways."""
        self._storage = storage
        self._listener = listener

    async def of(self, name: str) -> list[dict[str, Any]]:
        """Give the histories that were seen beside the one here, and this one first; UTC µs."""
        database, this = self._storage.database, {"link": name}
        rows = await database.read(OF_PEER, this)
        if not rows:
            return []
        kept = {row.fork: row for row in await database.read(_KEPT, this)}
        trunk = [_described(row, {}) for row in rows if row.state == ClaimState.TRUNK]
        others = [_described(row, kept) for row in rows if not row.of_trunk or row.fork in kept]
        here = trunk[-1] if trunk else _UNHEARD
        return [{**here, "id": HERE, "state": HERE, "events": None, "issued": None}, *others]

    async def decide(
        self, name: str, keep: str, reason: str, actor: str, *, revoke: bool
    ) -> dict[str, Any]:
        """Let one history go on and set the others aside; ``revoke`` what those issued.

        Raises NotFoundError (no such gateway or history), ConflictError (nothing to decide).
        """
        async with self._listener.silenced(name):
            return await self._storage.database.writer.run(
                lambda tx: self._decide(tx, name, keep, reason, actor, revoke=revoke)
            )

    def _decide(
        self, tx: Transaction, name: str, keep: str, reason: str, actor: str, *, revoke: bool
    ) -> dict[str, Any]:
        state = fleet.find(tx, name).state
        if state == fleet.ENDED:
            raise ConflictError(f"The gateway {name} is ended: there is nothing to decide.")
        store = self._tables(tx, name)
        if keep == HERE:
            outcasts = [claim.fork for claim in forks.keep_trunk(store, revoke=revoke)]
            fleet.change(tx, name, {"state": fleet.ACTIVE, "state_reason": ""})
        else:
            forks.keep_claim(store, keep, tx.random, revoke=revoke)
            outcasts = [one.fork for one in store.forks.claims() if one.state is ClaimState.OUTCAST]
            why = "The chosen box takes back what was held here, and goes on as soon as it speaks."
            stopped = fleet.STOPPED[Verdict.RESTORED]
            fleet.change(tx, name, {"state": stopped, "state_reason": why})
        detail = {"keep": keep, "set_aside": outcasts, "revoke": revoke, "reason": reason}
        audit.add(tx, actor, "gateway.decided", name, detail)
        return {"id": name, **detail}

    async def step(self) -> float:
        """Take in some of what boxes issued that were set aside; gives the next pause."""
        database = self._storage.database
        rows = await database.read(_UNTAKEN, {})
        for row in rows:
            await database.writer.run(partial(self._take_in, row.peer, row.fork))
        return 0 if rows else _PAUSE_S

    def _take_in(self, name: str, wanted: str, tx: Transaction) -> None:
        store = self._tables(tx, name)
        for claim in store.forks.claims():  # read anew: it may have been written since
            if claim.fork == wanted:
                forks.take_in(store, claim, _TOGETHER)

    def _tables(self, tx: Transaction, name: str) -> LinkTables:
        own = Own(take_in=partial(_apply, name))
        return LinkTables(tx, self._storage.outbox, name, Applier(name).apply_all, own)


def _apply(name: str, tx: Transaction, event: Event, revoke: bool) -> None:
    if event.type == "enrollment.forwarded":
        return  # no answer would reach that box
    Applier(name).apply(tx, event)
    if revoke and event.type == "certificate.issued":
        place = event.body["ca_id"], event.body["serial"]
        certificates.revoke_each(tx, [place], _REVOKED_AS, "system")


def _described(row: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    claim, counted = claim_of(row), kept.get(row.fork)
    return {
        "id": claim.fork,
        "state": claim.state.value,
        "version": claim.version,
        "boot_id": claim.boot_id,
        "segment": claim.segment,
        "first_seen_us": row.first_seen,
        "last_seen_us": row.last_seen,
        "backlog": claim.backlog,
        "complete": claim.complete,
        "events": counted.events if counted else 0,
        "issued": counted.issued if counted else 0,
        "revoke": claim.revoke,
    }


def undecided(histories: Sequence[Mapping[str, Any]]) -> bool:
    """Tell if a person has to decide between them."""
    return any(one["state"] == ClaimState.OPEN for one in histories)
