"""Directives that take more than one transaction: each is done once, then answered.

The order is durable as a directive, the answer as a fact; so a token that is away, or a crash in
between, only delays it. What is done must bear to be done twice: the crash may come before the
answer.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, select

from gateway import commands
from shared.kernel import cbor, limits
from shared.kernel.errors import Kind, TmaError
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import directive, fact
from shared.store.transaction import Transaction, Unit

_LOG = logging.getLogger(__name__)

_FORGET = delete(directive).where(
    directive.c.kind == bindparam("which"), directive.c.subject == bindparam("about")
)


@dataclass(frozen=True, slots=True)
class Order:
    """One directive as it came; ``place`` is its (incarnation, number) in text."""

    subject: str
    body: Mapping[str, Any]
    place: str


#: Does what is ordered, and gives what is to be written in the transaction of the answer.
Act = Callable[[Order], Awaitable[Unit[None]]]


class StandingOrders:
    """The directives of one kind."""

    def __init__(self, kind: str, database: Database, *, once: bool = False) -> None:
        """Take the kind. ``once``: an answered order is forgotten, because no other replaces it."""
        self._kind = kind
        self._database = database
        self._once = once
        self._answered = f"{kind}_answered/"
        self._all = (
            select(
                directive.c.subject,
                directive.c.number,
                directive.c.incarnation,
                directive.c.envelope,
                fact.c.value.label("answered"),
            )
            .outerjoin(fact, fact.c.name == self._answered + directive.c.subject)
            .where(directive.c.kind == kind)
            .order_by(directive.c.number)
        )

    async def obey(self, act: Act) -> None:
        """Do what is ordered and not answered.

        An error that a later try can mend leaves here; any other one is the answer.
        """
        for row in await self._database.read(self._all):
            place = f"{row.incarnation}/{row.number}"
            if row.answered != place:
                body = cbor.decode(row.envelope, limit=limits.EVENT_BYTES_MAX)
                await self._obey(act, Order(row.subject, body, place))

    async def _obey(self, act: Act, order: Order) -> None:
        effect: Unit[None] | None = None
        detail = ""
        try:
            effect = await act(order)
        except TmaError as error:
            if error.kind is Kind.RETRYABLE:
                raise
            _LOG.error("An order (%s) was not obeyed: %s", self._kind, error.message)
            detail = error.message

        def unit(transaction: Transaction) -> None:
            if effect is not None:
                effect(transaction)
            result = "failed" if effect is None else "applied"
            commands.answer(
                transaction, self._kind, order.subject, order.body, result=result, detail=detail
            )
            if self._once:
                transaction.execute(_FORGET, {"which": self._kind, "about": order.subject})
            else:
                facts.put(transaction, self._answered + order.subject, order.place)

        await self._database.writer.run(unit)
