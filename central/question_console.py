"""Open questions and the quarantine from the console: routes of the socket, and commands."""

from collections.abc import Callable
from typing import Annotated, Any, Protocol

import typer
from aiohttp import web
from pydantic import Field
from rich.markup import escape
from rich.table import Table

from shared.policy.rights import Permission
from shared.web import terminal
from shared.web.console import Order, Text, command, read_order
from shared.web.terminal import out

#: Sends a command to the running server: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class SettleOrder(Order):
    """Settle an open question; an empty choice is the one that changes nothing."""

    id: Annotated[int, Field(ge=1, lt=2**62)]
    choice: Annotated[str, Field(max_length=64)] = ""


class DiscardOrder(Order):
    """Give an event in quarantine up; ``place`` is gateway/segment/lane/sequence."""

    place: Text
    reason: Text


class Questions(Protocol):
    """What answers (``central.questions``)."""

    async def conflicts(self) -> list[dict[str, Any]]:
        """List the open questions with their choices."""
        ...

    async def settle(self, conflict_id: int, choice: str, actor: str) -> str:
        """Settle a question; gives what was done."""
        ...

    async def quarantined(self) -> list[dict[str, Any]]:
        """List the events in quarantine."""
        ...

    async def retry(self, actor: str) -> int:
        """Try them again; gives how many were applied."""
        ...

    async def discard(self, place: str, reason: str, actor: str) -> None:
        """Give one up."""
        ...


def routes(questions: Questions) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def conflicts(_request: web.Request, _actor: str) -> Any:
        return await questions.conflicts()

    async def settle(request: web.Request, actor: str) -> Any:
        order = await read_order(request, SettleOrder)
        return {"done": await questions.settle(order.id, order.choice, actor)}

    async def quarantined(_request: web.Request, _actor: str) -> Any:
        return await questions.quarantined()

    async def retry(_request: web.Request, actor: str) -> Any:
        return {"applied": await questions.retry(actor)}

    async def discard(request: web.Request, actor: str) -> Any:
        order = await read_order(request, DiscardOrder)
        return await questions.discard(order.place, order.reason, actor)

    return [
        web.get("/conflicts", command(Permission.GATEWAY_READ, conflicts)),
        web.post("/conflicts/settle", command(Permission.CONFLICT_SETTLE, settle)),
        web.get("/quarantine", command(Permission.GATEWAY_READ, quarantined)),
        web.post("/quarantine/retry", command(Permission.CONFLICT_SETTLE, retry)),
        web.post("/quarantine/discard", command(Permission.CONFLICT_SETTLE, discard)),
    ]


def conflict_commands(ask: Ask) -> typer.Typer:
    """Give the group ``conflict``."""
    app = typer.Typer(no_args_is_help=True, help="Questions that a person must decide.")

    @app.command("list")
    def list_(context: typer.Context, as_json: Json = False) -> None:
        """List the open questions, and what each decision would do."""
        found = ask(context, "GET", "/conflicts", None)
        if as_json:
            terminal.print_json(found)
            return
        for one in found:
            out.print(f"[bold]{one['id']}[/] {one['kind']} at {one['gateway']}, {one['since']}")
            out.print(f"  about {escape(one['about'])} {escape(str(one['detail']))}")
            for name, sentence in one["choices"].items():
                out.print(f"  {name}: {escape(sentence)}")

    @app.command("settle")
    def settle(
        context: typer.Context,
        number: Annotated[int, typer.Argument(help="Number of the question.")],
        choice: Annotated[str, typer.Option(help="A choice of `conflict list`.")] = "",
    ) -> None:
        """Decide a question, once; without --choice nothing is changed and it counts as seen."""
        order = terminal.order(SettleOrder, id=number, choice=choice)
        out.print(escape(ask(context, "POST", "/conflicts/settle", order)["done"]))

    return app


def quarantine_commands(ask: Ask) -> typer.Typer:
    """Give the group ``quarantine``."""
    app = typer.Typer(no_args_is_help=True, help="Events that could not be applied.")

    @app.command("list")
    def list_(context: typer.Context, as_json: Json = False) -> None:
        """List the events that are kept whole but not applied, and why."""
        found = ask(context, "GET", "/quarantine", None)
        if as_json:
            terminal.print_json(found)
            return
        table = Table("event", "type", "reason")
        for one in found:
            table.add_row(escape(one["place"]), escape(one["type"] or "unreadable"), one["reason"])
        out.print(table)

    @app.command("retry")
    def retry(context: typer.Context) -> None:
        """Try all of them again; each start of the server does so, too."""
        applied = ask(context, "POST", "/quarantine/retry", None)["applied"]
        out.print(f"{applied} events were applied.")

    @app.command("discard")
    def discard(
        context: typer.Context,
        place: Annotated[str, typer.Argument(help="The event, as `quarantine list` names it.")],
        reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    ) -> None:
        """Give an event up for good; its bytes stay in the inbox."""
        order = terminal.order(DiscardOrder, place=place, reason=reason)
        ask(context, "POST", "/quarantine/discard", order)
        out.print("The event is discarded.")

    return app
