"""The histories of a gateway, and comparing with it, from the console: the commands."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from central.comparison_doors import compared
from central.history_doors import DecideOrder
from shared.kernel.clock import datetime_of
from shared.web import terminal
from shared.web.console import Order
from shared.web.terminal import out

#: Sends a command to the running server: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]
Name = Annotated[str, typer.Argument(help="Name of the gateway.")]


def add_commands(app: typer.Typer, ask: Ask) -> None:
    """Add ``histories``, ``decide`` and ``compare`` to the group ``gateway``."""

    @app.command("histories")
    def histories(
        context: typer.Context,
        name: Name,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ) -> None:
        """Show what two boxes of one name say of themselves, side by side.

        `here` is the history that central holds. What the others wrote beside it is fetched as
        soon as they speak to central, and kept whatever is decided.
        """
        found = ask(context, "GET", f"/gateways/{name}/histories", None)
        if as_json:
            terminal.print_json(found)
            return
        if not found:
            out.print(f"Only one history of the gateway {escape(name)} was ever seen.")
            return
        table = Table("id", "state", "last heard of", "version", "certificates only there")
        for one in found:
            seen = one["last_seen_us"]
            issued = "-" if one["issued"] is None else f"{one['issued']:,}"
            when = f"{datetime_of(seen):%Y-%m-%d %H:%M} UTC" if seen else "-"
            more = "" if one.get("complete", True) else " so far"
            table.add_row(one["id"], one["state"], when, one["version"] or "-", issued + more)
        out.print(table)

    @app.command("decide")
    def decide(
        context: typer.Context,
        name: Name,
        keep: Annotated[str, typer.Option(help="`here`, or the id of a history to go on with.")],
        reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
        revoke: Annotated[
            bool, typer.Option("--revoke", help="Revoke what only the other boxes issued.")
        ] = False,
    ) -> None:
        """Decide which of two boxes of one name goes on; `gateway histories` shows both.

        The other box stays stopped: switch it off, and join it anew under another name. What it
        issued is known here from then on. This cannot be taken back.
        """
        order = terminal.order(DecideOrder, keep=keep, reason=reason, revoke=revoke)
        ask(context, "POST", f"/gateways/{name}/decide", order)
        out.print(f"It is decided: the gateway {escape(name)} goes on with {escape(keep)}.")

    @app.command("compare")
    def compare(
        context: typer.Context,
        name: Name,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ) -> None:
        """Compare what central and a gateway hold of its certificates, and repair what differs.

        It is done by itself once a day. The gateway must be online, with nothing unsent.
        """
        found = ask(context, "POST", f"/gateways/{name}/compare", None)
        if as_json:
            terminal.print_json(found)
            return
        out.print(f"{found['certificates']:,} certificates were compared. {compared(found)}")
